//! The edge end of a connection over HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Registrar;

/// Serves one connection of an agent over a stream that is already secured, until it ends; answers why it ended.
///
/// Dropping the future cuts the connection; [`crate::Connection::close`] ends it.
pub async fn serve<IO, R>(io: IO, remote: SocketAddr, registrar: Arc<R>) -> String
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Registrar,
{
    let _ = (io, remote, registrar);
    todo!()
}

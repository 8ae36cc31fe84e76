//! The edge end of a connection over QUIC.

use std::sync::Arc;

use crate::Registrar;

/// Serves one connection of an agent until it ends; answers why it ended.
///
/// Dropping the future cuts the connection; [`crate::Connection::close`] ends it.
pub async fn serve<R: Registrar>(connection: quinn::Connection, registrar: Arc<R>) -> String {
    let _ = (connection, registrar);
    todo!()
}

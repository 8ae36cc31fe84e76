//! The edge end of a connection over HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use super::cork::Corked;
use super::link::Link;
use super::liveness::Watched;
use super::{CONNECTION_WINDOW, FRAME, HEADER_LIST, HELD, SEND_BUFFER, SMALL_FRAMES, STREAM_WINDOW};
use crate::held::Holders;
use crate::session::{REGISTRATION_LIMIT, Session};
use crate::{Connection, Registrar, connection};

/// How long a connection that is closing in order has to send what is left and to take its leave.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Serves one connection of an agent over a stream that is already secured, until it ends; answers why it ended.
///
/// Dropping the future cuts the connection; [`Connection::close`] ends it.
pub async fn serve<IO, R>(io: IO, remote: SocketAddr, registrar: Arc<R>) -> String
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Registrar,
{
    let deadline = Instant::now() + REGISTRATION_LIMIT;
    let (io, heard) = Watched::new(io);
    let (io, uncork) = Corked::new(io);
    let (sender, mut connection) = match timeout_at(deadline, uncork.drive(builder().handshake::<_, Bytes>(io))).await {
        Ok(Ok(ends)) => ends,
        Ok(Err(error)) => return format!("the HTTP/2 connection failed at its start: {error}"),
        Err(_) => return "the agent took nothing in".into(),
    };
    let ping = connection.ping_pong().expect("a fresh connection has its ping handle");

    let mut session = Session::new(registrar);
    let holders = Holders::new(HELD);
    let link = Link::new(sender, heard.clone(), Arc::clone(&holders));
    let reason = tokio::select! {
        // The end of the connection shows on the control stream as well, which knows no reason.
        biased;
        ended = uncork.drive(&mut connection) => match ended {
            Ok(()) => "the agent closed the connection".into(),
            Err(error) => format!("the HTTP/2 connection failed: {error}"),
        },
        () = heard.vanished(ping) => {
            // Nothing can be sent any more.
            drop(connection);
            return session.end("the agent vanished".into());
        }
        never = holders.relieve() => match never {},
        reason = control(&mut session, link.clone(), remote, deadline) => {
            link.close();
            if session.is_idle() {
                let _ = timeout(CLOSE_LIMIT, uncork.drive(&mut connection)).await;
            }
            reason
        }
    };
    link.close();
    drop(connection);
    session.end(reason)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        // An origin's nonsense, such as a wrong length, makes the library reset a stream; that must not add up to
        // the end of the connection.
        .max_local_error_reset_streams(None);
    builder
}

/// Opens the control stream and serves it until the connection is to be closed.
async fn control<R: Registrar>(session: &mut Session<R>, link: Link, remote: SocketAddr, deadline: Instant) -> String {
    match timeout_at(deadline, link.open_control()).await {
        Err(_) => "the agent did not accept the control stream in time".into(),
        Ok(Err(reason)) => reason,
        Ok(Ok(io)) => {
            link.limit_streams();
            let connect = |extensions| Connection::new(remote, extensions, connection::Link::Http2(link));
            session.run(io, deadline, connect).await
        }
    }
}

//! The edge end of a connection over HTTP/2.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use super::link::Link;
use super::liveness::Liveness;
use super::{HELD, edge_settings};
use crate::held::Holders;
use crate::session::{REGISTRATION_LIMIT, Session};
use crate::{Breach, Connection, Ended, Registrar, connection};

/// How long a connection that is closing in order has to send what is left and to take its leave.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Serves one connection of an agent over a stream that is already secured, until it ends.
///
/// Dropping the future cuts the connection; [`Connection::close`] ends it.
pub async fn serve<IO, R>(io: IO, remote: SocketAddr, registrar: Arc<R>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Registrar,
{
    let deadline = Instant::now() + REGISTRATION_LIMIT;
    let (mut driver, handle) = ::http2::client(io, edge_settings());

    let mut session = Session::new(registrar);
    let holders = Holders::new(HELD);
    let liveness = Liveness::new(handle.clone());
    let link = Link::new(handle, liveness.clone(), Arc::clone(&holders));
    let mut breach = None;
    let reason = tokio::select! {
        // The end of the connection shows on the control stream as well, which knows no reason.
        biased;
        ended = poll_fn(|context| driver.poll(context)) => match ended {
            Ok(()) => "the agent closed the connection".into(),
            Err(error) => {
                breach = Breach::of_http2(&error);
                format!("the HTTP/2 connection failed: {error}")
            }
        },
        () = liveness.vanished() => {
            // Nothing can be sent any more.
            drop(driver);
            return Ended { reason: session.end("the agent vanished".into()), breach };
        }
        never = holders.relieve() => match never {},
        reason = control(&mut session, link.clone(), remote, deadline) => {
            link.close();
            if session.is_idle() {
                let _ = timeout(CLOSE_LIMIT, poll_fn(|context| driver.poll(context))).await;
            }
            reason
        }
    };
    link.close();
    drop(driver);
    Ended { reason: session.end(reason), breach }
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

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::stop::Stop;

/// How long to wait when the system has no descriptors or memory for one more connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Accepts the next connection; none when the node stops.
pub(crate) async fn accept(listener: &TcpListener, stop: &Stop) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            () = stop.drained() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => return Some((stream, SocketAddr::new(remote.ip().to_canonical(), remote.port()))),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted")
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Sends small writes at once, and finds a peer that vanished after this long, busy or idle.
pub(crate) fn tune(stream: &TcpStream, silence: Duration) {
    let socket = SockRef::from(stream);
    // Three probes in the second half of the time; the first half may be silent.
    let probes = TcpKeepalive::new().with_time(silence / 2).with_interval(silence / 6);
    let tuned = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&probes));
    #[cfg(target_os = "linux")]
    let tuned = tuned.and_then(|()| socket.set_tcp_user_timeout(Some(silence)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection could not be tuned");
    }
}

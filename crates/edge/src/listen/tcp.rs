use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::stop::Stop;

/// How long to wait when the system has no descriptors or memory for one more connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// On these systems a connection has the settings of the socket on which it came: a crowd that comes and goes costs five calls of the
/// system less for each.
const INHERITED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Units that a connection costs of the 128 that the runtime gives a task for a turn. Sixteen of them are made ready in some 100 µs, which is
/// what everybody else on the thread waits for.
const COST: usize = 8;

/// Bytes that wait in the system for their turn to be sent, beside those that are on their way. As many more as a fast network takes
/// until the task has its turn; what the system would keep otherwise, up to 4 MiB for each connection, is fetched through the
/// tunnel for whoever reads nothing.
const UNSENT: u32 = 256 << 10;

/// Where TCP comes in. Its connections send small writes at once, and find a peer that vanished after some time, busy or idle.
pub(crate) struct Entrance {
    listener: TcpListener,
    silence: Duration,
}

impl Entrance {
    /// A peer that answers nothing for as long as `silence` is gone.
    pub(crate) fn new(listener: TcpListener, silence: Duration) -> Self {
        if INHERITED {
            tune(&SockRef::from(&listener), silence);
        }
        Self { listener, silence }
    }

    /// The next connection; none when the node stops.
    pub(crate) async fn accept(&self, stop: &Stop) -> Option<(TcpStream, SocketAddr)> {
        for _ in 1..COST {
            tokio::task::consume_budget().await;
        }
        loop {
            let accepted = tokio::select! {
                () = stop.drained() => return None,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    if !INHERITED {
                        tune(&SockRef::from(&stream), self.silence);
                    }
                    return Some((stream, SocketAddr::new(remote.ip().to_canonical(), remote.port())));
                }
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
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn tune(socket: &SockRef<'_>, silence: Duration) {
    // Three probes in the second half of the time; the first half may be silent.
    let probes = TcpKeepalive::new().with_time(silence / 2).with_interval(silence / 6);
    let tuned = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&probes));
    #[cfg(target_os = "linux")]
    let tuned = tuned
        .and_then(|()| socket.set_tcp_user_timeout(Some(silence)))
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection could not be tuned");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_have_what_their_entrance_has() {
        const SILENCE: Duration = Duration::from_secs(30);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance::new(listener, SILENCE);
        let _visitor = TcpStream::connect(address).await.unwrap();
        let (stream, _) = entrance.accept(&Stop::default()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), SILENCE / 2);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), SILENCE / 6);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SILENCE));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
    }
}

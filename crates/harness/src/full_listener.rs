use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// Whoever gets no answer for so long waits in vain.
const PATIENCE: Duration = Duration::from_millis(500);

/// Far more than its queue holds.
const MOST: usize = 100;

/// A listener on Linux that accepts nobody and whose queue of connections is full, so that nobody more gets an answer.
#[derive(Debug)]
pub struct FullListener {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl FullListener {
    /// Starts it on a free port of loopback.
    ///
    /// # Panics
    /// No port is free, or the queue never fills.
    pub async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("there is IPv4");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
        let listener = socket.listen(1).expect("it is bound");
        let address = listener.local_addr().expect("it is bound");
        let mut waiting = Vec::new();
        // One may be slow; two in a row are not.
        let mut in_vain = 0;
        while in_vain < 2 {
            match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(stream) => {
                    waiting.push(stream.expect("somebody listens"));
                    in_vain = 0;
                }
                Err(_) => in_vain += 1,
            }
            assert!(waiting.len() < MOST, "the queue never fills");
        }
        Self { listener, _waiting: waiting }
    }

    /// Where nobody gets an answer.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }
}

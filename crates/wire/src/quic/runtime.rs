//! How QUIC meets the system: its tasks and its sockets.

mod socket;

use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};

use super::settings::LARGEST_PACKET;
use socket::{Peers, Socket};

/// An endpoint on Tokio that spares packets and calls of the system while there is much to do.
///
/// It takes packets of jumbo frames. Without `server` it only dials.
///
/// # Errors
///
/// The system does not let the socket be set up.
pub fn endpoint(mut config: EndpointConfig, server: Option<ServerConfig>, socket: UdpSocket) -> io::Result<Endpoint> {
    config.max_udp_payload_size(LARGEST_PACKET).expect("the size is one that the protocol allows");
    let peers = if server.is_some() { Peers::Many } else { Peers::One };
    Endpoint::new(config, server, socket, Arc::new(Runtime(peers)))
}

#[derive(Debug)]
struct Runtime(Peers);

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        tokio::spawn(Patient { driver, waited: false });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(socket, self.0)?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The driver of a connection or of an endpoint. When it is woken, those go first who are ready to run already: what they have
/// to send leaves in one packet, together with the acknowledgement of what they have got. While nobody else is ready, nobody waits.
struct Patient {
    driver: Driver,
    waited: bool,
}

impl Future for Patient {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.waited = !self.waited;
        if self.waited {
            // Puts it behind everybody who is in this thread's queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.driver.as_mut().poll(context)
    }
}

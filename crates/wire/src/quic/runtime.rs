//! How QUIC meets the system: its tasks and its sockets.

mod crowd;
mod socket;

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
pub fn endpoint(mut config: EndpointConfig, server: Option<Server>, socket: UdpSocket) -> io::Result<Endpoint> {
    config.max_udp_payload_size(LARGEST_PACKET).expect("the size is one that the protocol allows");
    let (settings, peers, take_turns) = match server {
        Some(Server { settings, on_loss, take_turns }) => (Some(settings), Peers::Many { on_loss }, Some(take_turns)),
        None => (None, Peers::One, None),
    };
    let runtime = Runtime { peers, take_turns, drives_endpoint: AtomicBool::new(false), is_crowded: Arc::default() };
    Endpoint::new(config, settings, socket, Arc::new(runtime))
}

/// What an endpoint that is dialled has beside one that only dials.
pub struct Server {
    /// For the connections that come.
    pub settings: ServerConfig,
    /// Is told of packets that have come and are lost.
    pub on_loss: OnLoss,
    /// Is given what drives each of them, within [`quinn::Incoming::accept`].
    pub take_turns: TakeTurns,
}

/// Is told how many packets have come and are lost now, since more wait than there is room for. It must not take long.
pub type OnLoss = Arc<dyn Fn(u64) + Send + Sync>;

/// Makes of the driver of a connection one that takes turns with others. While it waits, so do the packets that come for it and those
/// that it has to send.
pub type TakeTurns = Arc<dyn Fn(Driver) -> Driver + Send + Sync>;

/// What encrypts and decrypts, sends and hears for one connection, until it is over.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Runtime {
    peers: Peers,
    take_turns: Option<TakeTurns>,
    /// The first driver has come, which is that of the endpoint itself: all others depend on it.
    drives_endpoint: AtomicBool,
    /// More comes to the socket than there is time for.
    is_crowded: Arc<AtomicBool>,
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        let driver = match &self.take_turns {
            Some(take_turns) if self.drives_endpoint.swap(true, Ordering::Relaxed) => take_turns(driver),
            _ => driver,
        };
        tokio::spawn(Patient { driver, waited: false, is_crowded: Arc::clone(&self.is_crowded) });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Socket::new(socket, self.peers.clone(), Arc::clone(&self.is_crowded))?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// The driver of a connection or of an endpoint. When it is woken, those go first who are ready to run already: what they have
/// to send leaves in one packet, together with the acknowledgement of what they have got. While nobody else is ready, nobody waits, and
/// while packets wait for their turns, neither: each turn brings some of them to their connections.
struct Patient {
    driver: Driver,
    waited: bool,
    is_crowded: Arc<AtomicBool>,
}

impl Future for Patient {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.waited = !self.waited && !self.is_crowded.load(Ordering::Relaxed);
        if self.waited {
            // Puts it behind everybody who is in this thread's queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.driver.as_mut().poll(context)
    }
}

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::{Connection, ConnectionError, Incoming};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::defence::Defence;

/// QUIC handshakes under way from which on whoever comes shows first that its address is its own. Fewer cost little, and each
/// keeps somebody from waiting a round trip longer; a first packet with a forged address costs an attacker next to nothing.
const PROVE_FROM: usize = 100;

/// QUIC handshakes under way beyond which nobody is taken in. With a round trip of 100 ms these are ten thousand a second.
const MOST: usize = 1_000;

/// The handshakes of one kind of peer, visitors or agents: how many are under way, and whose turn it is to calculate.
///
/// The keys and the signature of a handshake take some tenths of a millisecond of a core. Were a thousand of them ready at
/// once, whatever else is ready would wait for all of them; here it waits for one per core.
#[derive(Debug)]
pub(crate) struct Handshakes {
    over_quic: AtomicUsize,
    turns: Semaphore,
}

/// A QUIC handshake that may begin. It counts as under way until this is dropped.
pub(crate) struct Newcomer {
    incoming: Incoming,
    under_way: UnderWay,
}

/// Counts a handshake as long as it lives.
#[derive(Debug)]
struct UnderWay(Arc<Handshakes>);

/// Why a QUIC handshake has not ended well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It was none, or the peer broke it off.
    #[error(transparent)]
    Failed(#[from] ConnectionError),
    /// It took too long.
    #[error("it took too long")]
    Slow,
}

impl HandshakeError {
    /// The reason under which it is counted.
    pub(crate) fn defence(&self) -> Defence {
        match self {
            Self::Failed(_) => Defence::BadHandshake,
            Self::Slow => Defence::SlowHandshake,
        }
    }
}

impl Handshakes {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Arc::new(Self { over_quic: AtomicUsize::new(0), turns: Semaphore::new(cores) })
    }

    /// Looks at whoever comes over QUIC. Who is not taken in has been told so: to prove the address first, or to go away.
    pub(crate) fn meet(self: &Arc<Self>, incoming: Incoming) -> Result<Newcomer, Defence> {
        match self.admit(incoming.remote_address_validated()) {
            Ok(under_way) => Ok(Newcomer { incoming, under_way }),
            Err(Defence::UnprovenAddress) => {
                // It fails only for addresses that are proven.
                let _ = incoming.retry();
                Err(Defence::UnprovenAddress)
            }
            Err(defence) => {
                incoming.refuse();
                Err(defence)
            }
        }
    }

    fn admit(self: &Arc<Self>, proven: bool) -> Result<UnderWay, Defence> {
        let (most, beyond) = if proven { (MOST, Defence::Handshakes) } else { (PROVE_FROM, Defence::UnprovenAddress) };
        let admitted = self
            .over_quic
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < most).then_some(count + 1));
        admitted.map(|_| UnderWay(Arc::clone(self))).map_err(|_| beyond)
    }

    /// Shakes hands over TCP. A peer who takes long takes no turn meanwhile.
    pub(crate) async fn shake_hands<IO>(&self, stream: IO, tls: Arc<ServerConfig>) -> std::io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let turn = self.turns.acquire().await;
        // What costs is done right here; the rest waits for the peer.
        let rest = hello.into_stream(tls);
        drop(turn);
        rest.await
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.over_quic.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Newcomer {
    /// Tells it to go away.
    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Shakes hands over QUIC for so long at most.
    pub(crate) async fn shake_hands(self, limit: Duration) -> Result<Connection, HandshakeError> {
        let Self { incoming, under_way } = self;
        let handshake = async {
            let turn = under_way.0.turns.acquire().await;
            // What costs is done right here if the first packet holds all of the peer's first message.
            let rest = incoming.accept();
            drop(turn);
            rest?.await
        };
        Ok(timeout(limit, handshake).await.map_err(|_| HandshakeError::Slow)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_prove_nothing_leave_room_for_those_who_do() {
        let handshakes = Handshakes::new();
        let forged: Vec<_> = (0..PROVE_FROM).map(|_| handshakes.admit(false).unwrap()).collect();
        assert_eq!(handshakes.admit(false).unwrap_err(), Defence::UnprovenAddress);
        let proven: Vec<_> = (PROVE_FROM..MOST).map(|_| handshakes.admit(true).unwrap()).collect();
        assert_eq!(handshakes.admit(true).unwrap_err(), Defence::Handshakes);
        drop(forged);
        assert!(handshakes.admit(true).is_ok());
        assert_eq!(
            handshakes.admit(false).unwrap_err(),
            Defence::UnprovenAddress,
            "those of the others are many enough"
        );
        drop(proven);
        assert!(handshakes.admit(false).is_ok());
        assert_eq!(handshakes.over_quic.load(Ordering::Relaxed), 0);
    }
}

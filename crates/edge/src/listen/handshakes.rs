use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint, Incoming};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use wire::quic::TakeTurns;

use crate::defence::Defence;
use crate::fair::{Fair, Fairness, Payer, stand_in_line};

/// QUIC connections without a finished handshake from which on whoever comes shows first that its address is its own. Fewer cost
/// little, and each keeps somebody from waiting a round trip longer; a first packet with a forged address costs an attacker next
/// to nothing. Those that have ended count until the library has forgotten them, which takes it three time-outs of a loss: a
/// second packet that breaks the handshake off costs as little.
const PROVE_FROM: usize = 100;

/// QUIC handshakes under way beyond which nobody is taken in. With a round trip of 100 ms these are ten thousand a second.
const MOST: usize = 1_000;

thread_local! {
    /// Whose connection is being accepted. The library makes its driver within that call and does not tell whose it is.
    static ACCEPTED: Cell<Option<Payer>> = const { Cell::new(None) };
}

/// Where QUIC comes in: the handshakes of one endpoint.
#[derive(Debug)]
pub(crate) struct Entrance {
    endpoint: Endpoint,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Handshakes that have begun and not ended.
    under_way: AtomicUsize,
    /// Connections whose handshake was finished and that are served.
    established: AtomicUsize,
}

/// A QUIC handshake that may begin. It counts as under way until this is dropped.
pub(crate) struct Newcomer {
    incoming: Incoming,
    /// Instead of the endpoint's.
    settings: Option<Arc<quinn::ServerConfig>>,
    counts: Arc<Counts>,
    under_way: Counted,
}

/// A QUIC connection that counts as established until this is dropped.
pub(crate) struct Established {
    /// The connection.
    pub(crate) connection: Connection,
    _counted: Counted,
}

/// Counts one as long as it lives.
#[derive(Debug)]
struct Counted(Arc<Counts>, fn(&Counts) -> &AtomicUsize);

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

/// Shakes hands over TCP.
pub(crate) async fn shake_hands<IO>(stream: IO, tls: Arc<ServerConfig>) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    answer(LazyConfigAcceptor::new(Acceptor::default(), stream).await?, tls).await
}

/// Answers a peer's first message over TCP, and goes on from there. It costs a signature, which is some ten turns of others.
pub(crate) async fn answer<IO>(hello: StartHandshake<IO>, tls: Arc<ServerConfig>) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    stand_in_line().await;
    hello.into_stream(tls).await
}

/// Lets the drivers of connections take their turns on the accounts of those with whom hands are shaken.
///
/// Packets pile up for a driver until it has a turn. So it does not wait long, and takes in all that has come, however much that is: there
/// is no more than the endpoint has read since.
pub(crate) fn take_turns(fairness: Fairness) -> TakeTurns {
    Arc::new(move |driver| match ACCEPTED.take() {
        Some(payer) => Box::pin(Fair::new(unconstrained(driver), fairness.clone(), payer).urgent()),
        None => driver,
    })
}

impl Entrance {
    /// Nobody has come yet.
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, counts: Arc::default() }
    }

    /// The next who comes, once looked at; nobody when the endpoint is closed. Who is not taken in has been told so: to prove
    /// the address first, or to go away.
    pub(crate) async fn next(&self) -> Option<Result<Newcomer, Defence>> {
        let incoming = self.endpoint.accept().await?;
        let established = self.counts.established.load(Ordering::Relaxed);
        let unfinished = self.endpoint.open_connections().saturating_sub(established);
        Some(match self.counts.admit(unfinished, incoming.remote_address_validated()) {
            Ok(under_way) => Ok(Newcomer { incoming, settings: None, counts: Arc::clone(&self.counts), under_way }),
            Err(Defence::UnprovenAddress) => {
                // It fails only for addresses that are proven.
                let _ = incoming.retry();
                Err(Defence::UnprovenAddress)
            }
            Err(defence) => {
                incoming.refuse();
                Err(defence)
            }
        })
    }
}

impl Counts {
    /// `unfinished` are the connections that the library knows and that are not established.
    fn admit(self: &Arc<Self>, unfinished: usize, proven: bool) -> Result<Counted, Defence> {
        let under_way = self.under_way.load(Ordering::Relaxed);
        if !proven && under_way.max(unfinished) >= PROVE_FROM {
            return Err(Defence::UnprovenAddress);
        }
        if under_way >= MOST {
            return Err(Defence::Handshakes);
        }
        Ok(Counted::new(self, |counts| &counts.under_way))
    }
}

impl Counted {
    fn new(counts: &Arc<Counts>, which: fn(&Counts) -> &AtomicUsize) -> Self {
        which(counts).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Newcomer {
    /// Who it is.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Has settings of its own.
    pub(crate) fn with(self, settings: Arc<quinn::ServerConfig>) -> Self {
        Self { settings: Some(settings), ..self }
    }

    /// Tells it to go away.
    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Shakes hands over QUIC for so long at most. Who pays does so for what drives the connection, too, from then on.
    pub(crate) async fn shake_hands(
        self,
        limit: Duration,
        payer: impl Into<Payer>,
    ) -> Result<Established, HandshakeError> {
        let Self { incoming, settings, counts, under_way } = self;
        let handshake = async {
            stand_in_line().await;
            ACCEPTED.set(Some(payer.into()));
            // What costs is done right here if the first packet holds all of the peer's first message.
            let rest = match settings {
                Some(settings) => incoming.accept_with(settings),
                None => incoming.accept(),
            };
            ACCEPTED.take();
            rest?.await
        };
        let connection = timeout(limit, handshake).await.map_err(|_| HandshakeError::Slow)??;
        let counted = Counted::new(&counts, |counts| &counts.established);
        drop(under_way);
        Ok(Established { connection, _counted: counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_prove_nothing_leave_room_for_those_who_do() {
        let counts = Arc::<Counts>::default();
        let forged: Vec<_> = (0..PROVE_FROM).map(|_| counts.admit(0, false).unwrap()).collect();
        assert_eq!(counts.admit(0, false).unwrap_err(), Defence::UnprovenAddress);
        let proven: Vec<_> = (PROVE_FROM..MOST).map(|_| counts.admit(0, true).unwrap()).collect();
        assert_eq!(counts.admit(0, true).unwrap_err(), Defence::Handshakes);
        drop(forged);
        assert!(counts.admit(0, true).is_ok());
        assert_eq!(counts.admit(0, false).unwrap_err(), Defence::UnprovenAddress, "the others are many enough");
        drop(proven);
        assert!(counts.admit(0, false).is_ok());
        assert_eq!(counts.under_way.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn connections_that_linger_count_too() {
        let counts = Arc::<Counts>::default();
        assert_eq!(counts.admit(PROVE_FROM, false).unwrap_err(), Defence::UnprovenAddress);
        assert!(counts.admit(PROVE_FROM - 1, false).is_ok());
        assert!(counts.admit(10 * MOST, true).is_ok(), "many who come and leave keep nobody out");
    }
}

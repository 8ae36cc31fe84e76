//! Questions over TCP (RFC 7766), plain or with TLS (RFC 7858): one after the other on each connection, each answered in its
//! turn.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::desk::{Desk, Reply};
use crate::metrics::{Metrics, Tally, Transport};
use crate::places::{Places, Taken};
use crate::transfer;

/// Between two questions; what RFC 7766, section 6.2.3 finds enough.
const IDLE: Duration = Duration::from_secs(10);
/// From the first byte of a question to its last, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions on one connection; whoever has more opens another, so that nobody stays for ever.
const QUESTIONS: usize = 10_000;
/// When no connection can be accepted, the system lacks something that comes back.
const PAUSE: Duration = Duration::from_millis(100);

/// From the first byte to a finished TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What connections share.
pub(crate) struct Counter {
    desk: Mutex<Desk>,
    transfers: transfer::Desk,
    metrics: Arc<Metrics>,
    places: Mutex<Places>,
}

impl Counter {
    pub(crate) fn new(desk: Desk, transfers: transfer::Desk, metrics: Arc<Metrics>) -> Self {
        Self { desk: Mutex::new(desk), transfers, metrics, places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answer(&self, packet: &[u8], from: &From, message: &mut Vec<u8>) -> Reply {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.refresh();
        let reply = desk.over_tcp(packet, from.address, message);
        drop(desk);
        let mut tally = Tally::default();
        tally.note(reply);
        self.metrics.add(from.transport, &tally);
        reply
    }
}

/// Where questions come from.
pub(crate) struct From {
    pub(crate) address: IpAddr,
    pub(crate) transport: Transport,
}

/// Answers those who connect, with TLS if there is any, until it is told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    counter: Arc<Counter>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&counter, from.ip()) else { continue };
        // Answers are written whole.
        let _ = stream.set_nodelay(true);
        let (stop, tls) = (stop.clone(), tls.clone());
        tasks.spawn(async move {
            tokio::select! {
                // Whoever breaks off or is too slow is not told so.
                _ = receive(stream, tls, from.ip(), &place) => (),
                () = place.displaced.cancelled() => (),
                () = stop.cancelled() => (),
            }
        });
    }
}

async fn receive(stream: TcpStream, tls: Option<TlsAcceptor>, address: IpAddr, place: &Place) -> io::Result<()> {
    match tls {
        None => converse(stream, &From { address, transport: Transport::Tcp }, place).await,
        Some(tls) => {
            let stream = timeout(HANDSHAKE, tls.accept(stream)).await??;
            converse(stream, &From { address, transport: Transport::Tls }, place).await
        }
    }
}

/// Answers the questions of one connection.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, from: &From, place: &Place) -> io::Result<()> {
    let counter = &place.counter;
    let (mut packet, mut message) = (Vec::new(), Vec::new());
    let mut whole = Vec::new();
    for _ in 0..QUESTIONS {
        let first = timeout(IDLE, stream.read_u8()).await??;
        place.is_busy();
        let rest = async {
            let second = stream.read_u8().await?;
            packet.resize(usize::from(u16::from_be_bytes([first, second])), 0);
            stream.read_exact(&mut packet).await
        };
        timeout(PATIENCE, rest).await??;
        if let Some(sent) = counter.transfers.answer(&packet, from.address, &mut stream).await {
            counter.metrics.add(from.transport, &Tally { questions: 1, ..Tally::default() });
            sent?;
            place.is_idle();
            continue;
        }
        if !matches!(counter.answer(&packet, from, &mut message), Reply::Answer { .. }) {
            // No question comes here that would not be answered, so this is somebody else's protocol.
            return Ok(());
        }
        let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        whole.clear();
        whole.extend_from_slice(&length.to_be_bytes());
        whole.extend_from_slice(&message);
        let write = async {
            stream.write_all(&whole).await?;
            stream.flush().await
        };
        timeout(PATIENCE, write).await??;
        place.is_idle();
    }
    Ok(())
}

/// A connection's, as long as it lives.
struct Place {
    counter: Arc<Counter>,
    id: u64,
    displaced: CancellationToken,
}

impl Place {
    fn take(counter: &Arc<Counter>, from: IpAddr) -> Option<Self> {
        let taken = counter.places().take(from, Instant::now());
        let Some(Taken { id, displaced, has_displaced }) = taken else {
            counter.metrics.turned_away();
            return None;
        };
        if has_displaced {
            counter.metrics.displaced();
        }
        Some(Self { counter: Arc::clone(counter), id, displaced })
    }

    /// A question has begun to come.
    fn is_busy(&self) {
        self.counter.places().note(self.id, None);
    }

    /// It is answered.
    fn is_idle(&self) {
        self.counter.places().note(self.id, Some(Instant::now()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counter.places().give_back(self.id);
    }
}

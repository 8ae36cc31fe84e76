//! Transfers of whole zones to other name servers (RFC 5936), over TCP or TLS: who may have one, and how it is sent. Who has
//! an older one gets it whole, too (RFC 1995, section 4).

mod notify;
mod view;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use registry::{ItemId, Snapshot, Zone};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::{Asker, Unchecked, Whole, World};
use crate::desk::{Sources, now};
use crate::message::{self, Part, Record};
use crate::metrics::Metrics;
use crate::query::{AXFR, Code, IXFR, Query};
use crate::tsig::{Rejected, Signer};

pub(crate) use notify::tell;
pub(crate) use view::keep as keep_views;

/// Transfers at once: each holds the registry as it was when it began, and no more than one message.
const AT_ONCE: usize = 8;
/// For a place among them.
const PLACE: Duration = Duration::from_secs(30);
/// For a message to be taken.
const PATIENCE: Duration = Duration::from_secs(20);
/// For all of them: some ten megabytes for those who are slowest.
const WHOLE: Duration = Duration::from_secs(1_800);

/// Whether whoever asks from this address, with questions signed by this key, is a peer to whom the zone is transferred: its
/// key tells it, and its address where it has one, or else its address alone.
pub(crate) fn may_have(snapshot: &Snapshot, zone: &Zone, from: IpAddr, key: Option<ItemId>) -> bool {
    let Some(out) = snapshot.transfer_out(zone.id).filter(|_| !zone.traits.signed) else { return false };
    let from = from.to_canonical();
    let is_listed = snapshot.may_ask_for_transfers(from);
    snapshot.transfer_peers(out).iter().any(|peer| {
        let is_there = is_listed || peer.address.is_some_and(|address| address.to_canonical() == from);
        match peer.key {
            Some(wanted) => key == Some(wanted) && (is_there || peer.address.is_none()),
            None => is_there,
        }
    })
}

/// Sends transfers.
pub(crate) struct Desk {
    sources: Arc<Sources>,
    metrics: Arc<Metrics>,
    places: Semaphore,
}

impl Desk {
    pub(crate) fn new(sources: Arc<Sources>, metrics: Arc<Metrics>) -> Self {
        Self { sources, metrics, places: Semaphore::new(AT_ONCE) }
    }

    /// Answers a question for a transfer; `None` if it is another question.
    ///
    /// # Errors
    /// The asker takes no more of it.
    pub(crate) async fn answer(
        &self,
        packet: &[u8],
        from: IpAddr,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Option<io::Result<()>> {
        let query = Query::read(packet).ok().filter(|query| matches!(query.kind, AXFR | IXFR))?;
        let sent = timeout(WHOLE, self.send(&query, from, stream)).await;
        Some(sent.map_err(io::Error::from).flatten())
    }

    async fn send(&self, query: &Query<'_>, from: IpAddr, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let refuse = |code| {
            self.metrics.transfer_refused();
            let mut message = Vec::new();
            let of = (query.id, 0, query.wants_recursion);
            message::refuse(of, code, query.question, query.edns.is_some(), &mut message);
            message
        };
        let mut signer = match self.sources.check(query, now()) {
            Ok(signer) => signer,
            Err(rejected) => {
                let mut message = refuse(Rejected::CODE);
                rejected.push(&mut message, now());
                return write(stream, &message).await;
            }
        };
        let key = signer.as_ref().map(Signer::key);
        // Only peers wait for a place.
        if let Err(code) = permit(&self.sources.registry.snapshot(), query, from, key) {
            return write_signed(stream, refuse(code), signer.as_mut()).await;
        }
        let Ok(Ok(_place)) = timeout(PLACE, self.places.acquire()).await else {
            return write_signed(stream, refuse(Code::ServFail), signer.as_mut()).await;
        };
        let book = self.sources.book.load_full();
        // Behind the book, so that the serial number is never newer than what follows.
        let snapshot = self.sources.registry.snapshot();
        let zone = match permit(&snapshot, query, from, key) {
            Ok(zone) => zone,
            Err(code) => return write_signed(stream, refuse(code), signer.as_mut()).await,
        };
        let serial = book.serial(zone.id);
        // In half of the circle (RFC 1982).
        let is_current =
            query.kind == IXFR && query.serial.is_some_and(|known| known.wrapping_sub(serial) < u32::MAX / 2);
        let (book, written) = view::of_zone(&self.sources, &snapshot, &book, zone.id);
        let world = World {
            snapshot: &snapshot,
            book: &book,
            domain: &self.sources.domain,
            members: &Unchecked,
            outside: &written,
            asker: &Asker { address: from, subnet: None },
            signing: None,
        };
        let mut whole = Whole::new(world, zone);
        if !is_current {
            whole.elsewhere();
            // Who has an older one is better off with it than with one that lacks a name; he is told again once it is known.
            if written.lacks() {
                return write_signed(stream, refuse(Code::ServFail), signer.as_mut()).await;
            }
        }
        let start = whole.start();
        let mut sending = Sending { part: Part::new(query.id, query.question), stream, signer };
        sending.push(&start).await?;
        if is_current {
            return sending.finish().await;
        }
        for record in whole.others() {
            sending.push(&record).await?;
        }
        for set in Whole::sets(&snapshot, zone) {
            for record in whole.of_set(set) {
                sending.push(&record).await?;
            }
        }
        sending.push(&start).await?;
        sending.finish().await?;
        self.metrics.transferred();
        tracing::info!(zone = %zone.name, serial, "a zone was transferred");
        Ok(())
    }
}

/// The zone that is asked for, if the asker may have it.
fn permit<'a>(snapshot: &'a Snapshot, query: &Query<'_>, from: IpAddr, key: Option<ItemId>) -> Result<&'a Zone, Code> {
    let zone = snapshot.zone_named(&query.name.to_text()).ok_or(Code::NotAuth)?;
    if may_have(snapshot, zone, from, key) { Ok(zone) } else { Err(Code::Refused) }
}

/// A transfer on its way.
struct Sending<'a, S> {
    part: Part,
    stream: &'a mut S,
    signer: Option<Signer>,
}

impl<S: AsyncWrite + Unpin> Sending<'_, S> {
    async fn push(&mut self, record: &Record) -> io::Result<()> {
        if self.part.is_full_for(record) {
            self.finish().await?;
        }
        // What no message can hold is answered to nobody else either.
        let _ = self.part.push(record);
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        let message = self.part.take();
        write_signed(self.stream, message, self.signer.as_mut()).await
    }
}

async fn write_signed(
    stream: &mut (impl AsyncWrite + Unpin),
    mut message: Vec<u8>,
    signer: Option<&mut Signer>,
) -> io::Result<()> {
    if let Some(signer) = signer {
        signer.sign(&mut message, now());
    }
    write(stream, &message).await
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let whole = [&length.to_be_bytes(), message].concat();
    let write = async {
        stream.write_all(&whole).await?;
        stream.flush().await
    };
    timeout(PATIENCE, write).await?
}

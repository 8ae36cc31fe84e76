//! Where questions are answered: out of a cache of prepared answers, or anew. One for each thread, so that nothing waits.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use lru::LruCache;
use registry::{Hostname, Registry, ZoneId};

use crate::answer::{self, Answer, Asker, Lasts, Members, Outside, Signers, Signing, World};
use crate::book::Book;
use crate::cookie::Cookies;
use crate::limit::{Kind, Limit, Verdict};
use crate::message::{self, Body, MAX_BYTES, PAYLOAD, SOA};
use crate::options::Replies;
use crate::query::{AXFR, Code, IXFR, Query, Unanswered};
use crate::transfer::may_have;
use crate::tsig::{self, Rejected, Signer};

/// Prepared answers of one desk: some 15 MB where all are used, and more names than are asked for often.
const PREPARED: usize = 65_536;
/// Larger answers are made each time, so that few of them do not take all memory.
const LARGEST_PREPARED: usize = 4_096;
/// For so many milliseconds a name's load balancer leads all askers whom it does not tell apart to the same members, so that a name
/// that very many ask for costs no more than any other. Far less than it takes to find that a member is not well.
const MOMENT: u32 = 20;
/// What an asker takes in a datagram that does not say (RFC 1035, section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;

/// What all desks share.
pub(crate) struct Sources {
    pub(crate) registry: Registry,
    pub(crate) book: Arc<ArcSwap<Book>>,
    pub(crate) domain: Hostname,
    pub(crate) members: Arc<dyn Members>,
    pub(crate) outside: Arc<dyn Outside>,
    pub(crate) cookies: Cookies,
    pub(crate) signers: Signers,
}

impl Sources {
    /// By whom a question is signed, if it is.
    ///
    /// # Errors
    /// The signature does not hold.
    pub(crate) fn check(&self, query: &Query<'_>, now: u64) -> Result<Option<Signer>, Box<Rejected>> {
        let Some(signature) = &query.signature else { return Ok(None) };
        let key = self.registry.snapshot().transfer_key_named(&signature.key_name());
        signature.check(key.as_ref(), now).map(Some)
    }
}

/// Since 1970, in seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Answers questions. Needs `&mut` and no lock: each thread has one of its own.
pub struct Desk {
    sources: Arc<Sources>,
    book: Arc<Book>,
    /// By name in lower case, type, and whether they are signed.
    prepared: LruCache<Box<[u8]>, Prepared>,
    limit: Limit,
    started: Instant,
    moment: Moment,
}

/// When the present batch came.
#[derive(Debug, Clone, Copy, Default)]
struct Moment {
    /// Since the desk was made, in milliseconds, in a circle.
    millis: u32,
    /// Since 1970, in seconds, in a circle.
    seconds: u32,
}

struct Prepared {
    body: Body,
    likeness: Likeness,
    /// The zones that it was made of, and their serial numbers then.
    zones: Box<[(ZoneId, u32)]>,
    epoch: u64,
    /// When its signatures are to be made anew, in seconds since 1970, in a circle.
    until: Option<u32>,
    /// When it was made, as the desk's moments say it, if it holds for this moment only.
    moment: Option<u32>,
    /// The latest edition of the book with which it was compared.
    edition: u64,
}

/// Which other answers are like one.
#[derive(Debug, Clone, Copy)]
enum Likeness {
    /// Those for the same name and type.
    Name,
    /// Any of this zone that denies, refers, or follows from a wildcard.
    Zone(ZoneId),
    /// Any that says what was wrong.
    Refusal,
}

/// How a packet fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// No answer is due.
    Silence,
    /// The asker's network had too many.
    Limited,
    /// The answer is in the buffer.
    Answer {
        /// How it turned out, as DNS numbers it.
        code: u16,
        /// It was cut short: the asker comes again over TCP.
        is_cut: bool,
        /// It was prepared.
        was_prepared: bool,
    },
}

impl Reply {
    fn of_refusal(code: Code) -> Self {
        Self::Answer { code: code as u16, is_cut: false, was_prepared: false }
    }
}

impl Desk {
    pub(crate) fn new(sources: Arc<Sources>) -> Self {
        let book = sources.book.load_full();
        let (limit, started) = (Limit::new(), Instant::now());
        let moment = Moment::default();
        let mut desk = Self { sources, book, prepared: LruCache::unbounded(), limit, started, moment };
        desk.refresh();
        desk
    }

    /// Takes in what has changed, and the time. Called before each batch of questions.
    pub fn refresh(&mut self) {
        let book = self.sources.book.load();
        if book.edition != self.book.edition {
            self.book = Arc::clone(&book);
        }
        self.moment = Moment { millis: self.started.elapsed().as_millis() as u32, seconds: now() as u32 };
    }

    /// Answers a datagram from this address into the buffer, which is emptied before.
    pub fn over_udp(&mut self, packet: &[u8], from: IpAddr, message: &mut Vec<u8>) -> Reply {
        message.clear();
        let query = match Query::read(packet) {
            Ok(query) => query,
            Err(unanswered) => {
                let reply = refuse(unanswered, message);
                return self.limit_refusal(reply, from, message);
            }
        };
        let payload = query.edns.map_or(PLAIN_PAYLOAD, |edns| edns.payload.min(PAYLOAD));
        if query.signature.is_some() {
            // Whoever has a key is not limited.
            return match self.answer_signed(query, from, usize::from(payload), message) {
                (reply, true) => reply,
                (reply, false) => self.limit_refusal(reply, from, message),
            };
        }
        let Some(query) = self.without_transfer(query, from, None, message) else {
            return self.limit_refusal(Reply::of_refusal(Code::Refused), from, message);
        };
        let key = Key::of(&query);
        let options = self.options(&query, from);
        let (reply, likeness) = self.answer(&query, &key, from, usize::from(payload), options, message);
        if self.is_known(&query, from) {
            return reply;
        }
        let kind = match &likeness {
            Likeness::Name => Kind::Answer(key.as_bytes()),
            Likeness::Zone(zone) => Kind::Zone(*zone),
            Likeness::Refusal => Kind::Refusal,
        };
        match (self.limit.judge(self.moment.millis, from, kind), reply) {
            (Verdict::Cut, Reply::Answer { code, was_prepared, .. }) => {
                message::cut(&query, &options, message);
                Reply::Answer { code, is_cut: true, was_prepared }
            }
            (Verdict::Drop, _) => limited(message),
            (Verdict::Send | Verdict::Cut, reply) => reply,
        }
    }

    /// Answers a message of a stream from this address into the buffer, which is emptied before.
    pub fn over_tcp(&mut self, packet: &[u8], from: IpAddr, message: &mut Vec<u8>) -> Reply {
        message.clear();
        match Query::read(packet) {
            Ok(query) if query.signature.is_some() => self.answer_signed(query, from, MAX_BYTES, message).0,
            Ok(query) => match self.without_transfer(query, from, None, message) {
                Some(query) => {
                    let options = self.options(&query, from);
                    self.answer(&query, &Key::of(&query), from, MAX_BYTES, options, message).0
                }
                None => Reply::of_refusal(Code::Refused),
            },
            Err(unanswered) => refuse(unanswered, message),
        }
    }

    /// Keeps a refusal back that is one too many.
    fn limit_refusal(&mut self, reply: Reply, from: IpAddr, message: &mut Vec<u8>) -> Reply {
        let is_too_many = self.limit.judge(self.moment.millis, from, Kind::Refusal) == Verdict::Drop;
        if is_too_many && reply != Reply::Silence { limited(message) } else { reply }
    }

    /// Answers a question that is signed, and signs the answer; and whether whoever asks has the key.
    fn answer_signed(&mut self, query: Query<'_>, from: IpAddr, most: usize, message: &mut Vec<u8>) -> (Reply, bool) {
        let now = now();
        let mut signer = match self.sources.check(&query, now) {
            Ok(Some(signer)) => signer,
            Ok(None) => return (fail(&query, message), false),
            Err(rejected) => {
                let (code, of) = (Rejected::CODE, (query.id, 0, query.wants_recursion));
                message::refuse(of, code, query.question, query.edns.is_some(), message);
                rejected.push(message, now);
                return (Reply::of_refusal(code), false);
            }
        };
        let most = most.saturating_sub(tsig::MOST_BYTES);
        let reply = match self.without_transfer(query, from, Some(&signer), message) {
            Some(query) => {
                let options = self.options(&query, from);
                self.answer(&query, &Key::of(&query), from, most, options, message).0
            }
            None => Reply::of_refusal(Code::Refused),
        };
        signer.sign(message, now);
        (reply, true)
    }

    /// Turns a question for what has changed into one for what is current, where no more can be answered (RFC 1995, section 2);
    /// `None`: the asker may not have it, and the refusal is in the buffer.
    fn without_transfer<'a>(
        &self,
        query: Query<'a>,
        from: IpAddr,
        signer: Option<&Signer>,
        message: &mut Vec<u8>,
    ) -> Option<Query<'a>> {
        if !matches!(query.kind, AXFR | IXFR) {
            return Some(query);
        }
        let snapshot = self.sources.registry.snapshot();
        let zone = snapshot.zone_named(&query.name.to_text());
        let may = zone.is_some_and(|zone| may_have(&snapshot, zone, from, signer.map(Signer::key)));
        if may && query.kind == IXFR {
            return Some(Query { kind: SOA, ..query });
        }
        let of = (query.id, 0, query.wants_recursion);
        message::refuse(of, Code::Refused, query.question, query.edns.is_some(), message);
        None
    }

    /// Who sends a cookie gets one.
    fn options(&self, query: &Query<'_>, from: IpAddr) -> Replies {
        let client = query.edns.and_then(|edns| edns.options.cookie).map(|(client, _)| client);
        let cookie = client.map(|client| (client, self.sources.cookies.make(client, from, self.moment.seconds)));
        Replies { cookie, subnet: None }
    }

    /// Whether the asker has shown that answers reach it.
    fn is_known(&self, query: &Query<'_>, from: IpAddr) -> bool {
        match query.edns.and_then(|edns| edns.options.cookie) {
            Some((client, Some(server))) => self.sources.cookies.knows(client, server, from, self.moment.seconds),
            Some((_, None)) | None => false,
        }
    }

    fn answer(
        &mut self,
        query: &Query<'_>,
        key: &Key,
        from: IpAddr,
        most: usize,
        mut options: Replies,
        message: &mut Vec<u8>,
    ) -> (Reply, Likeness) {
        if let Some(prepared) = self.prepared.get_mut(key.as_bytes()) {
            if prepared.holds(&self.book, self.moment) {
                let is_cut = prepared.body.assemble(query, most, &options, message);
                let code = prepared.body.code() as u16;
                return (Reply::Answer { code, is_cut, was_prepared: true }, prepared.likeness);
            }
            self.prepared.pop(key.as_bytes());
        }
        let asker = Asker { address: from, subnet: query.edns.and_then(|edns| edns.options.subnet) };
        let Some(Answer { body: Some(body), zones, lasts, is_of_name, scope, until }) = self.make(query, &asker) else {
            return (fail(query, message), Likeness::Refusal);
        };
        options.subnet = asker.subnet.zip(scope);
        let is_cut = body.assemble(query, most, &options, message);
        let reply = Reply::Answer { code: body.code() as u16, is_cut, was_prepared: false };
        let likeness = match zones.first() {
            // Who asks for names of others may ask for any number of them.
            None => return (reply, Likeness::Refusal),
            Some(_) if is_of_name => Likeness::Name,
            Some(zone) => Likeness::Zone(*zone),
        };
        // What holds for a moment is worth it only where very many ask for one name.
        let is_worth_it = lasts == Lasts::Unchanged || (lasts == Lasts::Moment && is_of_name);
        if is_worth_it && body.size() <= LARGEST_PREPARED {
            let zones = zones.into_iter().map(|zone| (zone, self.book.serial(zone))).collect();
            let Book { epoch, edition, .. } = *self.book;
            let moment = (lasts == Lasts::Moment).then_some(self.moment.millis);
            if self.prepared.len() >= PREPARED {
                self.prepared.pop_lru();
            }
            self.prepared.put(key.as_bytes().into(), Prepared { body, likeness, zones, epoch, until, moment, edition });
        }
        (reply, likeness)
    }

    /// Makes an answer; `None` if that is not possible, which is a mistake of ours and costs this answer alone.
    fn make(&self, query: &Query<'_>, asker: &Asker) -> Option<Answer> {
        let Sources { registry, domain, members, outside, signers, .. } = &*self.sources;
        // Behind the book, so that what the answer is taken for is never newer than it is.
        let snapshot = registry.snapshot();
        let world = World {
            snapshot: &snapshot,
            book: &self.book,
            domain,
            members: members.as_ref(),
            outside: outside.as_ref(),
            asker,
            signing: query.edns.filter(|edns| edns.dnssec_ok).map(|_| Signing { signers, now: self.moment.seconds }),
        };
        let made = catch_unwind(AssertUnwindSafe(|| answer::answer(world, &query.name, query.kind)));
        made.map_err(|_| tracing::error!(kind = query.kind, "making an answer has panicked")).ok()
    }
}

impl Prepared {
    fn holds(&mut self, book: &Book, now: Moment) -> bool {
        // In half of the circle.
        let is_over = self.until.is_some_and(|until| until.wrapping_sub(now.seconds) > u32::MAX / 2);
        if is_over || self.moment.is_some_and(|made| now.millis.wrapping_sub(made) >= MOMENT) {
            return false;
        }
        if self.edition == book.edition {
            return true;
        }
        let holds = self.epoch == book.epoch && self.zones.iter().all(|(zone, serial)| book.serial(*zone) == *serial);
        self.edition = book.edition;
        holds
    }
}

/// What tells prepared answers apart.
struct Key {
    bytes: [u8; 258],
    length: usize,
}

impl Key {
    fn of(query: &Query<'_>) -> Self {
        let name = query.name.as_wire();
        let mut key = Self { bytes: [0; 258], length: name.len() + 3 };
        let [high, low] = query.kind.to_be_bytes();
        let wants_signatures = query.edns.is_some_and(|edns| edns.dnssec_ok);
        key.bytes[..name.len()].copy_from_slice(name);
        key.bytes[name.len()..key.length].copy_from_slice(&[high, low, wants_signatures.into()]);
        key
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn refuse(unanswered: Unanswered<'_>, message: &mut Vec<u8>) -> Reply {
    match unanswered {
        Unanswered::Silence => Reply::Silence,
        Unanswered::Refused { id, opcode, wants_recursion, code, question, has_edns } => {
            message::refuse((id, opcode, wants_recursion), code, question, has_edns, message);
            Reply::of_refusal(code)
        }
    }
}

fn limited(message: &mut Vec<u8>) -> Reply {
    message.clear();
    Reply::Limited
}

fn fail(query: &Query<'_>, message: &mut Vec<u8>) -> Reply {
    let code = Code::ServFail;
    message.clear();
    message::refuse((query.id, 0, query.wants_recursion), code, query.question, query.edns.is_some(), message);
    Reply::of_refusal(code)
}

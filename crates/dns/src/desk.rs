//! Where questions are answered: out of a cache of prepared answers, or anew. One for each thread, so that nothing waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;
use lru::LruCache;
use registry::{Hostname, Registry, ZoneId};

use crate::answer::{self, Answer, Members, Outside, World};
use crate::book::Book;
use crate::message::{self, Body, MAX_BYTES, PAYLOAD};
use crate::query::{Code, Query, Unanswered};

/// Prepared answers of one desk: some megabytes, and more names than are asked for often.
const PREPARED: usize = 16_384;
/// Larger answers are made each time, so that few of them do not take all memory.
const LARGEST_PREPARED: usize = 4_096;
/// What an asker takes in a datagram that does not say (RFC 1035, section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;

/// What all desks share.
pub(crate) struct Sources {
    pub(crate) registry: Registry,
    pub(crate) book: Arc<ArcSwap<Book>>,
    pub(crate) domain: Hostname,
    pub(crate) members: Arc<dyn Members>,
    pub(crate) outside: Arc<dyn Outside>,
}

/// Answers questions. Needs `&mut` and no lock: each thread has one of its own.
pub struct Desk {
    sources: Arc<Sources>,
    book: Arc<Book>,
    /// By name in lower case, and type.
    prepared: LruCache<Box<[u8]>, Prepared>,
}

struct Prepared {
    body: Body,
    /// The zones that it was made of, and their serial numbers then.
    zones: Box<[(ZoneId, u32)]>,
    epoch: u64,
    /// The latest edition of the book with which it was compared.
    edition: u64,
}

/// How a packet fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// No answer is due.
    Silence,
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

impl Desk {
    pub(crate) fn new(sources: Arc<Sources>) -> Self {
        let book = sources.book.load_full();
        Self { sources, book, prepared: LruCache::unbounded() }
    }

    /// Takes in what has changed. Called before each batch of questions.
    pub fn refresh(&mut self) {
        let book = self.sources.book.load();
        if book.edition != self.book.edition {
            self.book = Arc::clone(&book);
        }
    }

    /// Answers a datagram into the buffer, which is emptied before.
    pub fn over_udp(&mut self, packet: &[u8], message: &mut Vec<u8>) -> Reply {
        message.clear();
        match Query::read(packet) {
            Ok(query) => {
                let payload = query.edns.map_or(PLAIN_PAYLOAD, |edns| edns.payload.min(PAYLOAD));
                self.answer(&query, usize::from(payload), message)
            }
            Err(unanswered) => refuse(unanswered, message),
        }
    }

    /// Answers a message of a stream into the buffer, which is emptied before.
    pub fn over_tcp(&mut self, packet: &[u8], message: &mut Vec<u8>) -> Reply {
        message.clear();
        match Query::read(packet) {
            Ok(query) => self.answer(&query, MAX_BYTES, message),
            Err(unanswered) => refuse(unanswered, message),
        }
    }

    fn answer(&mut self, query: &Query<'_>, most: usize, message: &mut Vec<u8>) -> Reply {
        let key = Key::of(query);
        if let Some(prepared) = self.prepared.get_mut(key.as_bytes()) {
            if prepared.holds(&self.book) {
                let is_cut = prepared.body.assemble(query, most, message);
                return Reply::Answer { code: prepared.body.code() as u16, is_cut, was_prepared: true };
            }
            self.prepared.pop(key.as_bytes());
        }
        let Some(Answer { body: Some(body), zones }) = self.make(query) else {
            return fail(query, message);
        };
        let is_cut = body.assemble(query, most, message);
        let reply = Reply::Answer { code: body.code() as u16, is_cut, was_prepared: false };
        // Who asks for names of others may ask for any number of them.
        let zones = zones.filter(|zones| !zones.is_empty() && body.size() <= LARGEST_PREPARED);
        if let Some(zones) = zones {
            let zones = zones.into_iter().map(|zone| (zone, self.book.serial(zone))).collect();
            let Book { epoch, edition, .. } = *self.book;
            if self.prepared.len() >= PREPARED {
                self.prepared.pop_lru();
            }
            self.prepared.put(key.as_bytes().into(), Prepared { body, zones, epoch, edition });
        }
        reply
    }

    /// Makes an answer; `None` if that is not possible, which is a mistake of ours and costs this answer alone.
    fn make(&self, query: &Query<'_>) -> Option<Answer> {
        let Sources { registry, domain, members, outside, .. } = &*self.sources;
        // Behind the book, so that what the answer is taken for is never newer than it is.
        let snapshot = registry.snapshot();
        let world = World {
            snapshot: &snapshot,
            book: &self.book,
            domain,
            members: members.as_ref(),
            outside: outside.as_ref(),
        };
        let made = catch_unwind(AssertUnwindSafe(|| answer::answer(world, &query.name, query.kind)));
        made.map_err(|_| tracing::error!(kind = query.kind, "making an answer has panicked")).ok()
    }
}

impl Prepared {
    fn holds(&mut self, book: &Book) -> bool {
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
    bytes: [u8; 257],
    length: usize,
}

impl Key {
    fn of(query: &Query<'_>) -> Self {
        let name = query.name.as_wire();
        let mut key = Self { bytes: [0; 257], length: name.len() + 2 };
        key.bytes[..name.len()].copy_from_slice(name);
        key.bytes[name.len()..key.length].copy_from_slice(&query.kind.to_be_bytes());
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
            Reply::Answer { code: code as u16, is_cut: false, was_prepared: false }
        }
    }
}

fn fail(query: &Query<'_>, message: &mut Vec<u8>) -> Reply {
    let code = Code::ServFail;
    message.clear();
    message::refuse((query.id, 0, query.wants_recursion), code, query.question, query.edns.is_some(), message);
    Reply::Answer { code: code as u16, is_cut: false, was_prepared: false }
}

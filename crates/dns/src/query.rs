//! What is asked: the header, the question and what EDNS adds, read out of a packet. Pure.

use crate::name::Name;
use crate::options::Options;
use crate::tsig::{Signature, TSIG};

/// Of every message.
pub(crate) const HEADER: usize = 12;
/// Bytes of a question behind its name.
const TYPE_AND_CLASS: usize = 4;
/// The type of the record by which EDNS extends a message (RFC 6891).
pub(crate) const OPT: u16 = 41;
/// A whole zone, or what has changed in it since (RFC 5936, RFC 1995).
pub(crate) const AXFR: u16 = 252;
pub(crate) const IXFR: u16 = 251;
/// Start of authority.
const SOA: u16 = 6;
/// Records beside the question: the SOA of an IXFR in the authority, then OPT and TSIG.
const MAX_RECORDS: u16 = 4;
/// The class of everything here.
const IN: u16 = 1;
/// Less than this is what everybody takes (RFC 6891, section 6.2.5).
const LEAST_PAYLOAD: u16 = 512;

/// How an answer turned out (RFC 1035, section 4.1.1; RFC 6891, section 6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    NotAuth = 9,
    BadVers = 16,
}

/// A question that can be answered.
#[derive(Debug, Clone)]
pub(crate) struct Query<'a> {
    pub(crate) id: u16,
    pub(crate) wants_recursion: bool,
    /// As it came: name, type and class.
    pub(crate) question: &'a [u8],
    pub(crate) name: Name,
    /// The type of the records that are asked for.
    pub(crate) kind: u16,
    pub(crate) edns: Option<Edns>,
    /// By whom it is signed, or says to be.
    pub(crate) signature: Option<Box<Signature<'a>>>,
    /// The serial number that the asker has, where it asks for what has changed since.
    pub(crate) serial: Option<u32>,
}

/// What the asker says of itself by EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    /// The largest datagram that it takes, in bytes; at least 512.
    pub(crate) payload: u16,
    /// It wants signatures.
    pub(crate) dnssec_ok: bool,
    pub(crate) options: Options,
}

/// Why a packet is no question for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered<'a> {
    /// It is not even that, or itself an answer: whoever answered it could be made to answer himself for ever.
    Silence,
    /// It is told that.
    Refused {
        /// What the asker tells its questions apart by.
        id: u16,
        /// What it wanted done.
        opcode: u8,
        /// It asked for recursion.
        wants_recursion: bool,
        /// Why.
        code: Code,
        /// The question as it came, if it could be read.
        question: &'a [u8],
        /// Whether it speaks EDNS.
        has_edns: bool,
    },
}

impl<'a> Query<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// There is no question in it that we answer.
    pub(crate) fn read(packet: &'a [u8]) -> Result<Self, Unanswered<'a>> {
        let Some((header, rest)) = packet.split_first_chunk::<HEADER>() else { return Err(Unanswered::Silence) };
        let is_answer = header[2] & 0x80 != 0;
        if is_answer {
            return Err(Unanswered::Silence);
        }
        let id = u16::from_be_bytes([header[0], header[1]]);
        let (opcode, wants_recursion) = (header[2] >> 3 & 0x0f, header[2] & 1 != 0);
        let refused = |code, question, has_edns| {
            Err(Unanswered::Refused { id, opcode, wants_recursion, code, question, has_edns })
        };
        if opcode != 0 {
            return refused(Code::NotImp, &[][..], false);
        }
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let [questions, answers, authorities, additionals] = [count(4), count(6), count(8), count(10)];
        let records = answers.saturating_add(authorities).saturating_add(additionals);
        if questions != 1 || answers != 0 || records > MAX_RECORDS {
            return refused(Code::FormErr, &[], false);
        }
        let Ok(name) = Name::read(rest) else { return refused(Code::FormErr, &[], false) };
        let end = name.as_wire().len() + TYPE_AND_CLASS;
        let Some((question, mut rest)) = rest.split_at_checked(end) else {
            return refused(Code::FormErr, &[], false);
        };
        let [.., k1, k2, c1, c2] = *question else { return refused(Code::FormErr, &[], false) };
        let (kind, class) = (u16::from_be_bytes([k1, k2]), u16::from_be_bytes([c1, c2]));

        let (mut edns, mut signature, mut serial) = (None, None, None);
        for place in 0..records {
            let before = packet.len() - rest.len();
            let Some((record, after)) = Record::read(rest) else { return refused(Code::FormErr, question, false) };
            let whole = rest;
            rest = after;
            if record.kind == OPT {
                let is_misplaced = place < authorities || !record.is_of_root || edns.is_some();
                let Some(options) = Options::read(record.data).filter(|_| !is_misplaced) else {
                    return refused(Code::FormErr, question, false);
                };
                edns = Some((record, options));
            }
            if record.kind == TSIG {
                let is_last = place >= authorities && place + 1 == records;
                let read = Name::read(whole).ok().filter(|_| is_last);
                let read = read.and_then(|name| Signature::read(packet.get(..before)?, name, record.data));
                let Some(read) = read else { return refused(Code::FormErr, question, edns.is_some()) };
                signature = Some(Box::new(read));
            }
            if record.kind == SOA && place < authorities {
                // Of its five numbers the first.
                let number = record.data.len().checked_sub(20).and_then(|at| record.data[at..].first_chunk::<4>());
                serial = number.map(|number| u32::from_be_bytes(*number));
            }
        }
        if !rest.is_empty() {
            return refused(Code::FormErr, question, edns.is_some());
        }
        if edns.as_ref().is_some_and(|(edns, _)| edns.version() != 0) {
            return refused(Code::BadVers, question, true);
        }
        match kind {
            // No type, and one that is in no zone.
            0 | OPT => return refused(Code::FormErr, question, edns.is_some()),
            // Of messages, not of zones: TKEY and TSIG, MAILB and MAILA; 255 is any type.
            249..=250 | 253..=254 => return refused(Code::Refused, question, edns.is_some()),
            _ => (),
        }
        if class != IN {
            return refused(Code::Refused, question, edns.is_some());
        }
        let edns = edns.map(|(record, options)| Edns {
            payload: record.class.max(LEAST_PAYLOAD),
            dnssec_ok: record.ttl & 0x8000 != 0,
            options,
        });
        Ok(Self { id, wants_recursion, question, name, kind, edns, signature, serial })
    }
}

/// A record behind the question; those of OPT have other meanings in the places of class and time to live.
#[derive(Clone, Copy)]
struct Record<'a> {
    is_of_root: bool,
    kind: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(packet: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_of_root, rest) = skip_name(packet)?;
        let (fixed, rest) = rest.split_first_chunk::<10>()?;
        let [k1, k2, c1, c2, t1, t2, t3, t4, l1, l2] = *fixed;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1, l2])))?;
        let record = Self {
            is_of_root,
            kind: u16::from_be_bytes([k1, k2]),
            class: u16::from_be_bytes([c1, c2]),
            ttl: u32::from_be_bytes([t1, t2, t3, t4]),
            data,
        };
        Some((record, rest))
    }

    fn version(&self) -> u8 {
        self.ttl.to_be_bytes()[1]
    }
}

/// For how many seconds an answer of ours may be kept: as its records say that live the shortest; 0, if there is none.
pub(crate) fn age(message: &[u8]) -> u32 {
    let count = |at: usize| message.get(at..at + 2).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    let mut rest = message.get(HEADER..).unwrap_or_default();
    for _ in 0..count(4) {
        let Some((_, after)) = skip_name(rest) else { return 0 };
        rest = after.get(TYPE_AND_CLASS..).unwrap_or_default();
    }
    let mut age = None;
    // Not of those beside them, such as OPT.
    for _ in 0..u32::from(count(6)) + u32::from(count(8)) {
        let Some((record, after)) = Record::read(rest) else { return 0 };
        rest = after;
        age = Some(age.map_or(record.ttl, |age: u32| age.min(record.ttl)));
    }
    age.unwrap_or(0)
}

/// Passes a name over, and answers whether it is the root's. It is not followed where it points to.
fn skip_name(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let mut rest = bytes;
    loop {
        let (length, after) = rest.split_first()?;
        match length {
            0 => return Some((bytes.first() == Some(&0), after)),
            1..=63 => rest = after.get(usize::from(*length)..)?,
            0xc0.. => return Some((false, after.get(1..)?)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 2] = [0xab, 0xcd];
    const QUESTION: &[u8] = b"\x03WWW\x04test\0\x00\x01\x00\x01";

    /// A message with these flags, numbers of records, and what follows.
    fn message(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let counts = counts.into_iter().flat_map(u16::to_be_bytes);
        ID.into_iter().chain(flags.to_be_bytes()).chain(counts).chain(rest.iter().copied()).collect()
    }

    fn opt(payload: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap();
        let parts = [&[0, 0, 41][..], &payload.to_be_bytes(), &ttl.to_be_bytes(), &length.to_be_bytes(), data];
        parts.concat()
    }

    fn code(packet: &[u8]) -> Option<Code> {
        match Query::read(packet) {
            Ok(_) | Err(Unanswered::Silence) => None,
            Err(Unanswered::Refused { code, id, .. }) => {
                assert_eq!(id.to_be_bytes(), ID);
                Some(code)
            }
        }
    }

    #[test]
    fn a_question_is_read() {
        let packet = message(0x0100, [1, 0, 0, 0], QUESTION);
        let query = Query::read(&packet).unwrap();
        assert_eq!((query.id.to_be_bytes(), query.wants_recursion, query.kind, query.edns), (ID, true, 1, None));
        assert_eq!((query.question, query.name.to_text().as_str()), (QUESTION, "www.test"));
    }

    #[test]
    fn edns_is_read() {
        for (payload, ttl, expected) in [(4096, 0x8000, (4096, true)), (0, 0, (512, false))] {
            let rest = [QUESTION, &opt(payload, ttl, &[0, 9, 0, 2, 1, 2])].concat();
            let packet = message(0, [1, 0, 0, 1], &rest);
            let edns = Query::read(&packet).unwrap().edns.unwrap();
            assert_eq!((edns.payload, edns.dnssec_ok), expected);
        }
    }

    #[test]
    fn answers_and_scraps_are_not_answered() {
        let mut answer = message(0x8000, [1, 0, 0, 0], QUESTION);
        assert_eq!(Query::read(&answer).err(), Some(Unanswered::Silence));
        answer.truncate(11);
        assert_eq!(Query::read(&answer).err(), Some(Unanswered::Silence));
        assert_eq!(Query::read(b"").err(), Some(Unanswered::Silence));
    }

    #[test]
    fn what_is_malformed_is_told_so() {
        let one = opt(1232, 0, &[]);
        for (counts, rest) in [
            ([0, 0, 0, 0], Vec::new()),
            ([2, 0, 0, 0], [QUESTION, QUESTION].concat()),
            ([1, 0, 0, 0], QUESTION[..QUESTION.len() - 1].to_vec()),
            ([1, 0, 0, 0], [QUESTION, b"x"].concat()),
            ([1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01".to_vec()),
            ([1, 1, 0, 0], [QUESTION, &one].concat()),
            ([1, 0, 1, 0], [QUESTION, &one].concat()),
            ([1, 0, 0, 1], QUESTION.to_vec()),
            ([1, 0, 0, 2], [QUESTION, &one, &one].concat()),
            ([1, 0, 0, 1], [QUESTION, &opt(1232, 0, &[0, 10, 0, 9, 1])].concat()),
            ([1, 0, 0, 1], [QUESTION, b"\x01a", &one].concat()),
            ([1, 0, 0, 0xffff], [QUESTION, &one].concat()),
            ([1, 0, 0, 0], [&QUESTION[..QUESTION.len() - 4], b"\0\x29\0\x01"].concat()),
        ] {
            let packet = message(0, counts, &rest);
            assert_eq!(code(&packet), Some(Code::FormErr), "{counts:?} {rest:?}");
        }
    }

    #[test]
    fn what_is_not_done_here_is_refused() {
        let typed = |kind: u16, class: u16| {
            let name = &QUESTION[..QUESTION.len() - 4];
            message(0, [1, 0, 0, 0], &[name, &kind.to_be_bytes(), &class.to_be_bytes()].concat())
        };
        assert_eq!(code(&typed(1, 3)), Some(Code::Refused), "CHAOS");
        assert_eq!(code(&typed(249, 1)), Some(Code::Refused), "TKEY");
        assert_eq!(code(&typed(255, 1)), None, "ANY");
        let rest = [QUESTION, &opt(1232, 1 << 16, &[])].concat();
        assert_eq!(code(&message(0, [1, 0, 0, 1], &rest)), Some(Code::BadVers));
        for opcode in [1, 2, 4, 5, 15] {
            assert_eq!(code(&message(opcode << 11, [1, 0, 0, 0], QUESTION)), Some(Code::NotImp), "{opcode}");
        }
    }
}

//! Answers as DNS carries them (RFC 1035, section 4.1), with names compressed. Pure.

use crate::name;
use crate::options::Replies;
use crate::query::{Code, HEADER, OPT, Query};

/// What we take in one datagram, and say so; also the most that we send in one, whatever the asker takes: fragments get lost
/// and forged.
pub(crate) const PAYLOAD: u16 = 1232;
/// Over TCP.
pub(crate) const MAX_BYTES: usize = u16::MAX as usize;
/// A record that extends a message (RFC 6891), without options.
pub(crate) const OPT_BYTES: usize = 11;

const IS_ANSWER: u16 = 1 << 15;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const WANTS_RECURSION: u16 = 1 << 8;

/// Names further behind cannot be pointed to (RFC 1035, section 4.1.4).
const FARTHEST: usize = 0x3fff;

/// Types whose data is a name, or ends in one, that may be compressed (RFC 3597, section 4), and the bytes in front of it.
const COMPRESSED: [(u16, usize); 5] = [(2, 0), (5, 0), (12, 0), (15, 2), (6, 0)];
/// Start of authority: two names and five numbers.
pub(crate) const SOA: u16 = 6;

/// Whose record it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// That of the name that was asked for.
    Asked,
    /// That of another host name.
    Named(Box<str>),
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: Owner,
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    /// With names uncompressed.
    pub(crate) data: Box<[u8]>,
}

/// An answer to one question, but for what differs from asker to asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    code: Code,
    is_authoritative: bool,
    counts: [u16; 3],
    /// Behind the question.
    records: Box<[u8]>,
}

impl Body {
    /// Writes the records of the answer, the authority and the additional section, for this name in lower case; `None` if
    /// that is more than any message holds.
    pub(crate) fn write(code: Code, is_authoritative: bool, asked: &[u8], sections: [&[Record]; 3]) -> Option<Self> {
        let mut writer = Writer { start: HEADER + asked.len() + 4, bytes: Vec::new(), names: Vec::new() };
        writer.remember(asked, HEADER);
        let mut counts = [0; 3];
        for (count, section) in counts.iter_mut().zip(sections) {
            *count = u16::try_from(section.len()).ok()?;
            for record in section {
                writer.record(record)?;
            }
        }
        let fits = writer.start + writer.bytes.len() + OPT_BYTES <= MAX_BYTES;
        fits.then(|| Self { code, is_authoritative, counts, records: writer.bytes.into() })
    }

    /// In bytes, of what is kept.
    pub(crate) fn size(&self) -> usize {
        self.records.len()
    }

    /// How it turned out.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Puts the whole message for this asker into the empty buffer, and answers whether it had to be cut short, since
    /// it takes no more than so many bytes. The options are for those who speak EDNS.
    pub(crate) fn assemble(&self, query: &Query<'_>, most: usize, options: &Replies, message: &mut Vec<u8>) -> bool {
        let edns_bytes = if query.edns.is_some() { OPT_BYTES + options.length() } else { 0 };
        let is_cut = HEADER + query.question.len() + self.records.len() + edns_bytes > most;
        let mut flags = IS_ANSWER | self.code as u16 & 0xf;
        for (flag, is_set) in [(AUTHORITATIVE, self.is_authoritative), (WANTS_RECURSION, query.wants_recursion)] {
            flags |= if is_set { flag } else { 0 };
        }
        let [answers, authorities, additionals] = self.counts;
        let additionals = additionals + u16::from(query.edns.is_some());
        for number in [query.id, flags, 1, answers, authorities, additionals] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(query.question);
        if is_cut {
            cut(query, options, message);
            return true;
        }
        message.extend_from_slice(&self.records);
        if let Some(edns) = query.edns {
            push_opt(message, Code::NoError, edns.dnssec_ok, options);
        }
        false
    }
}

/// Leaves of an answer only that there is one, over TCP.
pub(crate) fn cut(query: &Query<'_>, options: &Replies, message: &mut Vec<u8>) {
    let [high, _] = TRUNCATED.to_be_bytes();
    if let Some(flags) = message.get_mut(2) {
        *flags |= high;
    }
    message.truncate(HEADER + query.question.len());
    if let Some(counts) = message.get_mut(6..HEADER) {
        counts.fill(0);
        counts[5] = u8::from(query.edns.is_some());
    }
    if let Some(edns) = query.edns {
        push_opt(message, Code::NoError, edns.dnssec_ok, options);
    }
}

/// Puts a refusal into the empty buffer.
pub(crate) fn refuse(
    (id, opcode, wants_recursion): (u16, u8, bool),
    code: Code,
    question: &[u8],
    has_edns: bool,
    message: &mut Vec<u8>,
) {
    let mut flags = IS_ANSWER | u16::from(opcode) << 11 | code as u16 & 0xf;
    flags |= if wants_recursion { WANTS_RECURSION } else { 0 };
    for number in [id, flags, u16::from(!question.is_empty()), 0, 0, u16::from(has_edns)] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.extend_from_slice(question);
    if has_edns {
        push_opt(message, code, false, &Replies::default());
    }
}

fn push_opt(message: &mut Vec<u8>, code: Code, dnssec_ok: bool, options: &Replies) {
    let [_, high] = (code as u16 >> 4).to_be_bytes();
    message.push(0);
    message.extend_from_slice(&OPT.to_be_bytes());
    message.extend_from_slice(&PAYLOAD.to_be_bytes());
    message.extend_from_slice(&[high, 0, if dnssec_ok { 0x80 } else { 0 }, 0]);
    message.extend_from_slice(&u16::try_from(options.length()).unwrap_or_default().to_be_bytes());
    options.write(message);
}

/// One of the messages of which a transfer consists (RFC 5936, section 2.2).
pub(crate) struct Part {
    id: u16,
    question: Box<[u8]>,
    writer: Writer,
    count: u16,
}

impl Part {
    /// Larger ones could not point back to their names.
    const BYTES: usize = 16_000;

    /// With this question, which only the first one has.
    pub(crate) fn new(id: u16, question: &[u8]) -> Self {
        let mut writer = Writer { start: HEADER + question.len(), bytes: Vec::new(), names: Vec::new() };
        let name = question.len().checked_sub(4).and_then(|end| question.get(..end));
        writer.remember(&name.unwrap_or_default().to_ascii_lowercase(), HEADER);
        Self { id, question: question.into(), writer, count: 0 }
    }

    /// Whether a record goes into another message.
    pub(crate) fn is_full_for(&self, record: &Record) -> bool {
        const OWNER_AND_FIXED: usize = 265;
        self.count > 0
            && self.writer.start + self.writer.bytes.len() + OWNER_AND_FIXED + record.data.len() > Self::BYTES
    }

    /// Adds a record; `None` if no message can hold it.
    pub(crate) fn push(&mut self, record: &Record) -> Option<()> {
        self.writer.record(record)?;
        self.count += 1;
        Some(())
    }

    /// The whole message, and an empty one to go on with.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Self { id, question, writer, count } = std::mem::replace(self, Self::new(self.id, &[]));
        let questions = u16::from(!question.is_empty());
        let mut message = Vec::with_capacity(HEADER + question.len() + writer.bytes.len());
        for number in [id, IS_ANSWER | AUTHORITATIVE, questions, count, 0, 0] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&question);
        message.extend_from_slice(&writer.bytes);
        message
    }
}

struct Writer {
    /// Where in the message the bytes begin.
    start: usize,
    bytes: Vec<u8>,
    /// Names, and ends of names, and where in the message they are.
    names: Vec<(Box<[u8]>, u16)>,
}

impl Writer {
    fn record(&mut self, record: &Record) -> Option<()> {
        match &record.owner {
            Owner::Asked => self.push_pointer(HEADER)?,
            Owner::Named(host) => self.push_name(&name::to_wire(host))?,
        }
        self.bytes.extend_from_slice(&record.kind.to_be_bytes());
        self.bytes.extend_from_slice(&1_u16.to_be_bytes());
        self.bytes.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.data(record)?;
        let length = u16::try_from(self.bytes.len() - length_at - 2).ok()?;
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        (self.start + self.bytes.len() <= MAX_BYTES).then_some(())
    }

    fn data(&mut self, record: &Record) -> Option<()> {
        let Some((_, plain)) = COMPRESSED.iter().find(|(kind, _)| *kind == record.kind) else {
            self.bytes.extend_from_slice(&record.data);
            return Some(());
        };
        let (plain, mut rest) = record.data.split_at_checked(*plain)?;
        self.bytes.extend_from_slice(plain);
        for _ in 0..if record.kind == SOA { 2 } else { 1 } {
            let (name, after) = rest.split_at_checked(length_of_name(rest)?)?;
            self.push_name(name)?;
            rest = after;
        }
        self.bytes.extend_from_slice(rest);
        Some(())
    }

    fn push_name(&mut self, name: &[u8]) -> Option<()> {
        let mut rest = name;
        while let Some(length @ 1..) = rest.first() {
            if let Some((_, at)) = self.names.iter().find(|(known, _)| **known == *rest) {
                let at = usize::from(*at);
                return self.push_pointer(at);
            }
            self.remember_one(rest, self.start + self.bytes.len());
            let (label, after) = rest.split_at_checked(1 + usize::from(*length))?;
            self.bytes.extend_from_slice(label);
            rest = after;
        }
        self.bytes.push(0);
        Some(())
    }

    fn push_pointer(&mut self, at: usize) -> Option<()> {
        let at = u16::try_from(at).ok()?;
        self.bytes.extend_from_slice(&(0xc000 | at).to_be_bytes());
        Some(())
    }

    /// A name that stands here, and what it ends in.
    fn remember(&mut self, name: &[u8], at: usize) {
        let mut from = 0;
        while let Some(length @ 1..) = name.get(from) {
            self.remember_one(&name[from..], at + from);
            from += 1 + usize::from(*length);
        }
    }

    fn remember_one(&mut self, name: &[u8], at: usize) {
        // So many are in no usual answer, and all are looked through.
        const MOST: usize = 64;
        if at <= FARTHEST && self.names.len() < MOST {
            self.names.push((name.into(), u16::try_from(at).unwrap_or_default()));
        }
    }
}

fn length_of_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            0 => return Some(at + 1),
            length => at += 1 + usize::from(*length),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::*;

    fn query(packet: &[u8]) -> Query<'_> {
        Query::read(packet).unwrap_or_else(|problem| panic!("{problem:?}"))
    }

    const PACKET: &[u8] = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\x01\x03wWw\x04tEst\0\0\x01\0\x01\0\0\x29\x10\0\0\0\0\0\0\0";

    fn record(owner: Owner, kind: u16, data: &[u8]) -> Record {
        Record { owner, kind, ttl: 300, data: data.into() }
    }

    #[test]
    fn others_read_what_is_written() {
        let named = |host: &str| Owner::Named(host.into());
        let answer = [record(Owner::Asked, 5, b"\x01a\x04test\0"), record(named("a.test"), 1, &[192, 0, 2, 1])];
        let soa = [b"\x02ns\x04test\0\x02hm\x04test\0".as_slice(), &[0; 20]].concat();
        let authority = [record(named("test"), SOA, &soa), record(named("b.test"), 15, b"\0\x0a\x01a\x04test\0")];
        let asked = query(PACKET);
        let body = Body::write(Code::NoError, true, asked.name.as_wire(), [&answer, &authority, &[]]).unwrap();
        let mut message = Vec::new();
        assert!(!body.assemble(&asked, 1232, &Replies::default(), &mut message));
        let read = Message::from_vec(&message).unwrap();
        assert_eq!(
            (read.metadata.id, read.metadata.authoritative, read.metadata.recursion_desired),
            (0xabcd, true, true)
        );
        assert_eq!(read.queries[0].name().to_string(), "wWw.tEst.");
        let all: Vec<String> = read.answers.iter().chain(&read.authorities).map(ToString::to_string).collect();
        let expected = [
            "wWw.tEst. 300 IN CNAME a.tEst.",
            "a.tEst. 300 IN A 192.0.2.1",
            "tEst. 300 IN SOA ns.tEst. hm.tEst. 0 0 0 0 0",
            "b.tEst. 300 IN MX 10 a.tEst.",
        ];
        assert_eq!(all, expected);
        assert_eq!(read.edns.map(|edns| edns.max_payload()), Some(PAYLOAD));
        // Each name stands there once.
        assert_eq!(message.windows(4).filter(|bytes| bytes.eq_ignore_ascii_case(b"test")).count(), 1);
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let asked = query(PACKET);
        let answer = vec![record(Owner::Asked, 16, &[b'x'; 100]); 20];
        let body = Body::write(Code::NoError, true, asked.name.as_wire(), [&answer, &[], &[]]).unwrap();
        let mut message = Vec::new();
        assert!(body.assemble(&asked, 1232, &Replies::default(), &mut message));
        let read = Message::from_vec(&message).unwrap();
        assert!(read.metadata.truncation && read.answers.is_empty() && read.edns.is_some());
        let answer = vec![record(Owner::Asked, 16, &[b'x'; 100]); 700];
        assert!(Body::write(Code::NoError, true, asked.name.as_wire(), [&answer, &[], &[]]).is_none());
    }

    #[test]
    fn refusals_say_why() {
        let mut message = Vec::new();
        refuse((7, 0, true), Code::BadVers, b"\0\0\x01\0\x01", true, &mut message);
        let read = Message::from_vec(&message).unwrap();
        assert_eq!((read.metadata.id, u16::from(read.metadata.response_code)), (7, 16));
    }
}

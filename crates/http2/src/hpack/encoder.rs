//! The sending half.

use std::collections::VecDeque;

use bytes::{BufMut as _, BytesMut};
use http::header::{self, HeaderName, HeaderValue};

use super::table::static_index;
use super::{DEFAULT_TABLE, OVERHEAD, STATIC, TABLE};

/// Values and names that are remembered by where they may stand. Those that share a place forget each other, which costs
/// bytes and nothing else.
const VALUES: usize = 256;
const NAMES: usize = 64;

/// The state that header blocks of one direction of a connection share.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The newest first.
    table: VecDeque<Entry>,
    /// Bytes of all entries, as section 4.1 counts.
    size: usize,
    limit: usize,
    /// The lowest limit that the other end has not been told of, and whether the present one is still to be told.
    untold: Option<usize>,
    /// Entries ever made.
    made: u32,
    /// Not known to whoever chooses values.
    seed: u64,
    values: Box<[Seen; VALUES]>,
    names: Box<[Seen; NAMES]>,
}

#[derive(Debug)]
struct Entry {
    /// Name and value.
    text: Box<[u8]>,
    name: usize,
}

/// Something that has been sent, by its hash.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    hash: u32,
    /// The number of the entry that it was made; zero: none.
    entry: u32,
}

/// How a field may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usual,
    /// A secret short enough to be guessed by its length must never stand in a table (section 7.1.3).
    Secret,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self::with_seed(rand::random())
    }

    fn with_seed(seed: u64) -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            limit: DEFAULT_TABLE,
            untold: None,
            made: 0,
            seed,
            values: Box::new([Seen::default(); VALUES]),
            names: Box::new([Seen::default(); NAMES]),
        }
    }

    /// The other end allows a table of this size (SETTINGS_HEADER_TABLE_SIZE).
    pub(crate) fn allow(&mut self, limit: usize) {
        let limit = limit.min(TABLE);
        self.untold = Some(self.untold.unwrap_or(limit).min(limit));
        self.limit = limit;
        self.evict();
    }

    /// To be called before the fields of each block.
    pub(crate) fn begin(&mut self, out: &mut BytesMut) {
        if let Some(lowest) = self.untold.take() {
            // A limit that was lower for a while has emptied the table (section 4.2).
            if lowest < self.limit {
                integer(out, 0x20, 5, lowest);
            }
            integer(out, 0x20, 5, self.limit);
        }
    }

    pub(crate) fn method(&mut self, out: &mut BytesMut, method: &http::Method) {
        match *method {
            http::Method::GET => out.put_u8(0x82),
            http::Method::POST => out.put_u8(0x83),
            _ => self.field(out, || Some(2), b":method", method.as_str().as_bytes(), Kind::Usual),
        }
    }

    pub(crate) fn scheme(&mut self, out: &mut BytesMut, scheme: &str) {
        match scheme {
            "http" => out.put_u8(0x86),
            "https" => out.put_u8(0x87),
            _ => self.field(out, || Some(6), b":scheme", scheme.as_bytes(), Kind::Usual),
        }
    }

    pub(crate) fn authority(&mut self, out: &mut BytesMut, authority: &str) {
        self.field(out, || Some(1), b":authority", authority.as_bytes(), Kind::Usual);
    }

    pub(crate) fn path(&mut self, out: &mut BytesMut, path: &str) {
        match path {
            "/" => out.put_u8(0x84),
            _ => self.field(out, || Some(4), b":path", path.as_bytes(), Kind::Usual),
        }
    }

    pub(crate) fn status(&mut self, out: &mut BytesMut, status: http::StatusCode) {
        const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match KNOWN.iter().zip(0x88..).find(|(known, _)| **known == status.as_u16()) {
            Some((_, index)) => out.put_u8(index),
            None => self.field(out, || Some(8), b":status", status.as_str().as_bytes(), Kind::Usual),
        }
    }

    pub(crate) fn header(&mut self, out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
        let secret = value.is_sensitive()
            || matches!(
                *name,
                header::AUTHORIZATION | header::COOKIE | header::PROXY_AUTHORIZATION | header::SET_COOKIE
            );
        let kind = if secret { Kind::Secret } else { Kind::Usual };
        self.field(out, || static_index(name), name.as_str().as_bytes(), value.as_bytes(), kind);
    }

    /// `known` finds the name in the static table; few fields need it.
    fn field(
        &mut self,
        out: &mut BytesMut,
        known: impl FnOnce() -> Option<usize>,
        name: &[u8],
        value: &[u8],
        kind: Kind,
    ) {
        let name_hash = hash(self.seed, name);
        let insert = if kind == Kind::Secret {
            false
        } else {
            let hash = fold(hash(name_hash, value));
            let place = hash as usize % VALUES;
            let seen = self.values[place];
            if seen.hash == hash && seen.entry > 0 && self.is(seen.entry, name, Some(value)) {
                return integer(out, 0x80, 7, self.index(seen.entry));
            }
            // What comes a second time may come a third.
            let again = seen.hash == hash && name.len() + value.len() + OVERHEAD <= self.limit / 4;
            self.values[place] = Seen { hash, entry: if again { self.made.wrapping_add(1) } else { 0 } };
            again
        };
        let known = known();
        let hash = fold(name_hash);
        let place = hash as usize % NAMES;
        let index = known.or_else(|| {
            let seen = self.names[place];
            let entry = seen.hash == hash && seen.entry > 0 && self.is(seen.entry, name, None);
            entry.then(|| self.index(seen.entry))
        });
        // A name that has no place of its own gets one when it comes again, and be it with a value that does not.
        let insert = insert
            || kind == Kind::Usual
                && index.is_none()
                && self.names[place].hash == hash
                && name.len() + value.len() + OVERHEAD <= self.limit / 4;
        match kind {
            Kind::Usual if insert => integer(out, 0x40, 6, index.unwrap_or(0)),
            Kind::Usual => integer(out, 0x00, 4, index.unwrap_or(0)),
            Kind::Secret => integer(out, 0x10, 4, index.unwrap_or(0)),
        }
        if index.is_none() {
            string(out, name);
            self.names[place] = Seen { hash, entry: 0 };
        }
        string(out, value);
        if insert {
            self.insert(name, value);
            if known.is_none() {
                self.names[place] = Seen { hash, entry: self.made };
            }
        }
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) {
        // Numbers start anew long after the entries that had them are gone.
        self.made = self.made.wrapping_add(1).max(1);
        self.size += name.len() + value.len() + OVERHEAD;
        self.table.push_front(Entry { text: [name, value].concat().into_boxed_slice(), name: name.len() });
        self.evict();
    }

    /// Where an entry stands (section 2.3.3).
    fn index(&self, entry: u32) -> usize {
        STATIC + 1 + self.made.wrapping_sub(entry) as usize
    }

    /// Whether an entry is still there, and is this.
    fn is(&self, entry: u32, name: &[u8], value: Option<&[u8]>) -> bool {
        self.table.get(self.made.wrapping_sub(entry) as usize).is_some_and(|entry| {
            let (found_name, found_value) = entry.text.split_at(entry.name);
            found_name == name && value.is_none_or(|value| found_value == value)
        })
    }

    fn evict(&mut self) {
        while self.size > self.limit
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.text.len() + OVERHEAD;
        }
    }
}

/// Quick, and not to be foreseen by whoever does not know the seed.
fn hash(seed: u64, text: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(MIX);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut state = mix(seed, text.len() as u64);
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state, u64::from_le_bytes(last))
}

fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

/// An integer behind the bits that say what it is (section 5.1).
fn integer(out: &mut BytesMut, kind: u8, prefix: u32, value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        return out.put_u8(kind | value as u8);
    }
    out.put_u8(kind | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A string as it is (section 5.2).
fn string(out: &mut BytesMut, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.put_slice(text);
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::super::Decoder;
    use super::*;

    #[test]
    fn what_repeats_becomes_one_byte_each() {
        // One with which no two of these fields share a place.
        let (mut encoder, mut decoder) = (Encoder::with_seed(7541), Decoder::new(TABLE));
        let mut lengths = Vec::new();
        for number in 0..4 {
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            encoder.method(&mut out, &Method::GET);
            encoder.authority(&mut out, "app.example");
            encoder.header(&mut out, &HeaderName::from_static("x-custom"), &HeaderValue::from_static("some value"));
            encoder.header(&mut out, &HeaderName::from_static("x-number"), &HeaderValue::from(number));
            let fields = decoder.decode(&out, 4096).unwrap();
            assert_eq!(fields.headers["x-number"], number.to_string());
            assert_eq!(
                (&fields.headers["x-custom"], fields.headers.len()),
                (&HeaderValue::from_static("some value"), 2)
            );
            lengths.push(out.len());
        }
        // Method, authority and custom field are an index each in the end; the number is an index, its length and a digit.
        assert_eq!(lengths[3], 1 + 1 + 1 + 4);
    }

    #[test]
    fn secrets_are_never_in_a_table() {
        let mut encoder = Encoder::new();
        for _ in 0..3 {
            let mut out = BytesMut::new();
            encoder.header(&mut out, &header::COOKIE, &HeaderValue::from_static("a=1"));
            assert_eq!(&out[..], b"\x1f\x11\x03a=1");
        }
        assert!(encoder.table.is_empty());
    }

    /// Against the decoder, over changes of the table's size.
    #[test]
    fn all_comes_back_as_it_was() {
        let mut random = StdRng::seed_from_u64(7541);
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE));
        let names: Vec<_> =
            ["accept", "x-one", "x-two", "date", "etag", "cookie", "user-agent", "x-long-name-of-a-field"]
                .iter()
                .map(|name| HeaderName::from_static(name))
                .collect();
        for round in 0..5_000 {
            if random.random_ratio(1, 50) {
                for _ in 0..random.random_range(1..3) {
                    encoder.allow(random.random_range(0..2 * TABLE));
                }
            }
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            let status = StatusCode::from_u16(random.random_range(200..600)).unwrap();
            encoder.status(&mut out, status);
            let mut sent = Vec::new();
            for _ in 0..random.random_range(0..12) {
                let name = &names[random.random_range(0..names.len())];
                let value = match random.random_range(0..3) {
                    0 => "x".repeat(random.random_range(0..400)),
                    1 => random.random_range(0..20).to_string(),
                    _ => random.random::<u32>().to_string(),
                };
                let value = HeaderValue::try_from(value).unwrap();
                encoder.header(&mut out, name, &value);
                sent.push((name.clone(), value));
            }
            let fields = decoder.decode(&out, 1 << 20).unwrap();
            assert_eq!(fields.status, Some(status), "round {round}");
            for name in &names {
                let wanted: Vec<_> = sent.iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect();
                assert_eq!(fields.headers.get_all(name).iter().collect::<Vec<_>>(), wanted, "round {round}");
            }
        }
    }
}

//! The receiving half.

use std::collections::VecDeque;

use bytes::BytesMut;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::table::{Field, Name, static_field, static_name};
use super::{DEFAULT_TABLE, OVERHEAD, STATIC, Undecodable, huffman};

/// Fields of one message; each takes more memory than its bytes say.
const MOST: usize = 1000;

/// Fields that a usual message has: room for them is made at once.
const USUAL: usize = 16;

/// Room for a string is kept up to this many bytes: most are shorter.
const LONG: usize = 4 << 10;

/// The state that header blocks of one direction of a connection share.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest first.
    table: VecDeque<Entry>,
    /// Bytes of all entries, as section 4.1 counts.
    size: usize,
    /// As many may be.
    limit: usize,
    /// As high the other end may set the limit.
    most: usize,
    /// A string that was not sent as it is.
    string: BytesMut,
}

#[derive(Debug)]
struct Entry {
    field: Field,
    name: usize,
    size: usize,
}

/// What one header block says.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) method: Option<Method>,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) authority: Option<Authority>,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) protocol: Option<HeaderValue>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) headers: HeaderMap,
    /// Why no message may be made of it.
    pub(crate) malformed: Option<&'static str>,
    /// It is above the limit, and the rest of it has been left out.
    pub(crate) too_large: bool,
    size: usize,
    limit: usize,
}

impl Decoder {
    /// The other end may make the table as large as `most`, once it has been told so.
    pub(crate) fn new(most: usize) -> Self {
        Self { table: VecDeque::new(), size: 0, limit: most.min(DEFAULT_TABLE), most, string: BytesMut::new() }
    }

    /// Reads a whole block. Up to `limit` bytes of it are kept, counted as in RFC 9113 section 6.5.2.
    pub(crate) fn decode(&mut self, block: &[u8], limit: usize) -> Result<Fields, Undecodable> {
        let mut fields = Fields { limit, ..Fields::default() };
        let mut input = block;
        let mut began = false;
        while let Some(first) = input.first().copied() {
            if first & 0xe0 == 0x20 {
                if began {
                    return Err(Undecodable("a change of the table's size behind a field"));
                }
                self.resize(integer(&mut input, 5)?)?;
                continue;
            }
            began = true;
            if first & 0x80 != 0 {
                let index = integer(&mut input, 7)?;
                self.indexed(index, &mut fields)?;
            } else if first & 0x40 != 0 {
                let (field, name, size) = self.literal(&mut input, 6)?;
                fields.add(&field, size);
                self.insert(Entry { field, name, size });
            } else {
                let (field, _, size) = self.literal(&mut input, 4)?;
                fields.add_owned(field, size);
            }
        }
        if self.string.capacity() > LONG {
            self.string = BytesMut::new();
        }
        Ok(fields)
    }

    fn indexed(&self, index: usize, fields: &mut Fields) -> Result<(), Undecodable> {
        let (field, size) = if index <= STATIC {
            static_field(index)
        } else {
            self.table.get(index - STATIC - 1).map(|entry| (&entry.field, entry.size))
        }
        .ok_or(Undecodable("an index that is not in the table"))?;
        fields.add(field, size);
        Ok(())
    }

    /// A field with a value of its own: the bytes of its name, and its size.
    fn literal(&mut self, input: &mut &[u8], prefix: u32) -> Result<(Field, usize, usize), Undecodable> {
        let (name, length) = match integer(input, prefix)? {
            0 => {
                let name = string(input, &mut self.string)?;
                (Name::parse(name), name.len())
            }
            index if index <= STATIC => static_name(index).ok_or(Undecodable("an index that is not in the table"))?,
            index => {
                let entry = self.table.get(index - STATIC - 1);
                let entry = entry.ok_or(Undecodable("an index that is not in the table"))?;
                (entry.field.name(), entry.name)
            }
        };
        let value = string(input, &mut self.string)?;
        let size = length + value.len() + OVERHEAD;
        Ok((name.with(value), length, size))
    }

    fn insert(&mut self, entry: Entry) {
        self.size += entry.size;
        self.table.push_front(entry);
        self.evict();
    }

    fn resize(&mut self, limit: usize) -> Result<(), Undecodable> {
        if limit > self.most {
            return Err(Undecodable("a table larger than allowed"));
        }
        self.limit = limit;
        self.evict();
        Ok(())
    }

    /// Also an entry larger than the whole table goes, and all others with it (section 4.4).
    fn evict(&mut self) {
        while self.size > self.limit
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

impl Fields {
    fn add(&mut self, field: &Field, size: usize) {
        if self.fits(size) {
            self.take(field.clone());
        }
    }

    fn add_owned(&mut self, field: Field, size: usize) {
        if self.fits(size) {
            self.take(field);
        }
    }

    fn fits(&mut self, size: usize) -> bool {
        self.size = self.size.saturating_add(size);
        self.too_large |= self.size > self.limit;
        !self.too_large
    }

    fn take(&mut self, field: Field) {
        let placed = match field {
            Field::Header(name, value) => {
                if self.headers.capacity() == 0 {
                    self.headers.reserve(USUAL);
                }
                if self.headers.len() == MOST || self.headers.try_append(name, value).is_err() {
                    self.too_large = true;
                }
                true
            }
            Field::Malformed(_, why) => {
                self.malformed.get_or_insert(why);
                true
            }
            Field::Method(method) => self.pseudo(|fields| fields.method.replace(method).is_none()),
            Field::Scheme(scheme) => self.pseudo(|fields| fields.scheme.replace(scheme).is_none()),
            Field::Authority(authority) => self.pseudo(|fields| fields.authority.replace(authority).is_none()),
            Field::Path(path) => self.pseudo(|fields| fields.path.replace(path).is_none()),
            Field::Protocol(protocol) => self.pseudo(|fields| fields.protocol.replace(protocol).is_none()),
            Field::Status(status) => self.pseudo(|fields| fields.status.replace(status).is_none()),
        };
        if !placed {
            self.malformed.get_or_insert("a pseudo-header field twice, or behind other fields");
        }
    }

    /// Pseudo-headers come first, and each once (RFC 9113 section 8.3).
    fn pseudo(&mut self, set: impl FnOnce(&mut Self) -> bool) -> bool {
        self.headers.is_empty() && set(self)
    }

    /// Bytes of it, as RFC 9113 section 6.5.2 counts.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn has_request_pseudo(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

/// An integer whose first bits are the lowest of the next byte (section 5.1).
fn integer(input: &mut &[u8], prefix: u32) -> Result<usize, Undecodable> {
    /// More than any length or index that is taken.
    const BITS: u32 = 28;
    const BROKEN: Undecodable = Undecodable("an integer that does not end, or is too large");
    let (first, mut rest) = input.split_first().ok_or(BROKEN)?;
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(BROKEN)?;
            rest = after;
            if shift >= BITS {
                return Err(BROKEN);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *input = rest;
    Ok(value)
}

/// A string (section 5.2): a part of the input, or what it means if it is in the code.
fn string<'a: 'b, 'b>(input: &mut &'a [u8], decoded: &'b mut BytesMut) -> Result<&'b [u8], Undecodable> {
    let coded = input.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(input, 7)?;
    let (text, rest) = input.split_at_checked(length).ok_or(Undecodable("a string longer than its block"))?;
    *input = rest;
    if !coded {
        return Ok(text);
    }
    decoded.clear();
    huffman::decode(text, decoded).ok_or(Undecodable("a string that is not in the code"))?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn request(fields: &Fields) -> String {
        let mut text = format!(
            "{} {}://{}{}",
            fields.method.as_ref().unwrap(),
            fields.scheme.as_ref().unwrap(),
            fields.authority.as_ref().unwrap(),
            fields.path.as_ref().unwrap()
        );
        for (name, value) in &fields.headers {
            text.push_str(&format!(" {name}={}", value.to_str().unwrap()));
        }
        text
    }

    /// Appendices C.3 and C.4.
    #[test]
    fn requests_of_the_rfc() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new(4096);
            let read: Vec<_> =
                blocks.iter().map(|block| request(&decoder.decode(&bytes(block), 4096).unwrap())).collect();
            assert_eq!(
                read,
                [
                    "GET http://www.example.com/",
                    "GET http://www.example.com/ cache-control=no-cache",
                    "GET https://www.example.com/index.html custom-key=custom-value",
                ]
            );
            assert_eq!((decoder.table.len(), decoder.size), (3, 164));
        }
    }

    /// Appendix C.5: entries are evicted.
    #[test]
    fn answers_of_the_rfc() {
        let mut decoder = Decoder::new(256);
        let first = decoder.decode(
            &bytes(
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            ),
            4096,
        );
        let first = first.unwrap();
        assert_eq!((first.status.unwrap().as_u16(), decoder.size), (302, 222));
        assert_eq!(first.headers["location"], "https://www.example.com");
        let second = decoder.decode(&bytes("4803 3330 37c1 c0bf"), 4096).unwrap();
        assert_eq!((second.status.unwrap().as_u16(), decoder.size), (307, 222));
        assert_eq!(second.headers["cache-control"], "private");
    }

    #[test]
    fn what_cannot_be_followed_ends_the_connection() {
        let wrong = [
            "80",
            "c0",
            "ff ffff ffff ffff",
            "41",
            "41 0561",
            "41 8100",
            "3f e2ff ffff 7f",
            "84 20",
            "7f",
            "40 0161 8300 0000",
        ];
        for block in wrong {
            assert!(Decoder::new(4096).decode(&bytes(block), 4096).is_err(), "{block}");
        }
    }

    #[test]
    fn what_no_message_may_hold_is_malformed_and_kept_in_step() {
        let blocks: [&[u8]; 5] = [
            b"\x40\x01A\x01x",
            b"\x40\x0aconnection\x01x",
            b"\x40\x02te\x04gzip",
            b"\x40\x01a\x01\n",
            b"\x40\x04:foo\x01x",
        ];
        for block in blocks {
            let mut decoder = Decoder::new(4096);
            assert!(decoder.decode(block, 4096).unwrap().malformed.is_some(), "{block:?}");
            assert!(decoder.decode(b"\xbe", 4096).unwrap().malformed.is_some(), "the entry is there");
        }
        // A wrong value says nothing of others.
        let mut decoder = Decoder::new(4096);
        assert!(decoder.decode(b"\x40\x01a\x01\n", 4096).unwrap().malformed.is_some());
        let next = decoder.decode(b"\x7e\x01x", 4096).unwrap();
        assert_eq!((next.malformed, &next.headers["a"]), (None, &HeaderValue::from_static("x")));
        let twice = Decoder::new(4096).decode(b"\x82\x83", 4096).unwrap();
        assert!(twice.malformed.is_some());
        let late = Decoder::new(4096).decode(b"\x00\x01a\x01b\x82", 4096).unwrap();
        assert!(late.malformed.is_some());
    }

    #[test]
    fn blanks_around_a_value_mean_nothing() {
        for block in [&b"\x00\x01a\x03 \tx"[..], b"\x00\x01a\x02x ", b"\x00\x01a\x04 x \t"] {
            assert_eq!(Decoder::new(4096).decode(block, 4096).unwrap().headers["a"], "x");
        }
    }

    #[test]
    fn a_long_string_leaves_no_room_behind() {
        let mut decoder = Decoder::new(4096);
        // 30,000 letters of five bits each.
        let text = [0b0001_1000, 0b1100_0110, 0b0011_0001, 0b1000_1100, 0b0110_0011].repeat(3750);
        let block = [&b"\x00\x01a\xff\xbf\x91\x01"[..], &text].concat();
        let fields = decoder.decode(&block, 1 << 20).unwrap();
        assert_eq!(fields.headers["a"].len(), 30_000);
        assert!(decoder.string.capacity() <= LONG);
    }

    #[test]
    fn headers_above_the_limit_are_left_out_and_the_table_is_kept() {
        let mut decoder = Decoder::new(4096);
        let block: Vec<u8> = (0..10).flat_map(|number| [0x40, 1, b'a' + number, 1, b'x']).collect();
        let fields = decoder.decode(&block, 3 * 34).unwrap();
        assert!(fields.too_large && fields.headers.len() == 3);
        assert_eq!(decoder.table.len(), 10);
    }
}

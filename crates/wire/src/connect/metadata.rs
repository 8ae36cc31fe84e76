//! The metadata list of a first message: keys and values, most of them headers.

use bytes::Bytes;
use capnp::struct_list;
use capnp::text;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::Uri;

use super::HeadError;
use crate::header::{Limits, canonical};
use crate::schema::connect_capnp::metadata;

const HEADER: &str = "HttpHeader";

/// One entry that is to be written.
pub(super) struct Entry<'a> {
    key: Key<'a>,
    value: &'a [u8],
}

enum Key<'a> {
    Plain(&'static str),
    Header(&'a str),
}

impl<'a> Entry<'a> {
    /// Tells a stock agent that there is a body.
    pub(super) const CHUNKED: Self = Self { key: Key::Header("transfer-encoding"), value: b"chunked" };

    pub(super) fn plain(key: &'static str, value: &'a [u8]) -> Self {
        Self { key: Key::Plain(key), value }
    }

    pub(super) fn header(name: &'a HeaderName, value: &'a HeaderValue) -> Self {
        Self { key: Key::Header(name.as_str()), value: value.as_bytes() }
    }

    fn key_length(&self) -> usize {
        match self.key {
            Key::Plain(key) => key.len(),
            Key::Header(name) => HEADER.len() + 1 + name.len(),
        }
    }
}

/// Entries that are to be written, gathered so that the message's size is known before it is made.
pub(super) struct Entries<'a>(Vec<Entry<'a>>);

impl<'a> Entries<'a> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn push(&mut self, entry: Entry<'a>) {
        self.0.push(entry);
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a header map holds at most 32768 values")
    }

    /// Words that the list and its texts take: a tag, and two pointers per entry.
    pub(super) fn words(&self) -> usize {
        let entry = |entry: &Entry<'_>| 2 + text_words(entry.key_length()) + text_words(entry.value.len());
        1 + self.0.iter().map(entry).sum::<usize>()
    }

    pub(super) fn write(&self, mut list: struct_list::Builder<'_, metadata::Owned>) {
        for (index, entry) in (0..).zip(&self.0) {
            let mut target = list.reborrow().get(index);
            match entry.key {
                Key::Plain(key) => target.set_key(key),
                Key::Header(name) => {
                    let length = u32::try_from(entry.key_length()).expect("a header's name is shorter than 64 KiB");
                    let key = target.reborrow().init_key(length);
                    let letters = HEADER.bytes().chain([b':']).chain(canonical(name.as_bytes()));
                    for (to, letter) in key.as_bytes_mut().iter_mut().zip(letters) {
                        *to = letter;
                    }
                }
            }
            target.set_val(text::Reader(entry.value));
        }
    }
}

/// A map with room for the headers of a list, however many it claims to hold.
pub(super) fn map_for(list: struct_list::Reader<'_, metadata::Owned>) -> HeaderMap {
    HeaderMap::with_capacity((list.len() as usize).min(Limits::HEADERS.count))
}

/// Words of a text of this length, its final NUL included.
pub(super) fn text_words(length: usize) -> usize {
    (length + 1).div_ceil(8)
}

/// Entries of a list beside its headers; there are fewer than ten keys.
const OTHERS: usize = 16;

/// Walks a list within [`Limits::HEADERS`], which are about names and values alone. Values share the memory of `message`, which the list is part of.
pub(super) fn read(
    message: &Bytes,
    list: struct_list::Reader<'_, metadata::Owned>,
    mut take: impl FnMut(&[u8], Bytes) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    const LIMITS: Limits = Limits::HEADERS;
    if list.len() as usize > LIMITS.count + OTHERS {
        return Err(HeadError::HeaderCount(LIMITS.count));
    }
    let (mut headers, mut others) = (0, 0);
    for entry in list {
        let (key, value) = (entry.get_key()?.as_bytes(), entry.get_val()?.as_bytes());
        let (bytes, name) = match usual_name(key) {
            Some(name) => (&mut headers, name),
            None => (&mut others, key),
        };
        *bytes += name.len() + value.len();
        if *bytes > LIMITS.bytes {
            return Err(HeadError::HeaderBytes(LIMITS.bytes));
        }
        // A text that is not there is a constant elsewhere in memory.
        let value = if value.is_empty() { Bytes::new() } else { message.slice_ref(value) };
        take(key, value)?;
    }
    Ok(())
}

/// The header's name if this is the key of a header: one that contains `HttpHeader`, with exactly one colon.
pub(super) fn header_name(key: &[u8]) -> Result<Option<HeaderName>, HeadError> {
    const MALFORMED: HeadError = HeadError::Malformed("a header's name");
    let name = match usual_name(key) {
        Some(name) => name,
        None if !key.windows(HEADER.len()).any(|part| part == HEADER.as_bytes()) => return Ok(None),
        None => {
            let mut parts = key.split(|byte| *byte == b':');
            let (Some(_), Some(name), None) = (parts.next(), parts.next(), parts.next()) else { return Err(MALFORMED) };
            name
        }
    };
    // A name holds no colon, so a second one is refused here.
    HeaderName::from_bytes(name).map(Some).map_err(|_| MALFORMED)
}

/// The name in the form of a key that all known peers write; the rule itself is wider.
fn usual_name(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(HEADER.as_bytes())?.strip_prefix(b":")
}

pub(super) fn append(headers: &mut HeaderMap, name: HeaderName, value: Bytes) -> Result<(), HeadError> {
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| HeadError::Malformed("a header's value"))?;
    if headers.len() >= Limits::HEADERS.count {
        return Err(HeadError::HeaderCount(Limits::HEADERS.count));
    }
    headers.try_append(name, value).map_err(|_| HeadError::HeaderCount(Limits::HEADERS.count))?;
    Ok(())
}

/// An absolute URL or a bare path. What a URL may not hold is escaped. Escapes stay as they are, broken ones too: over HTTP/2
/// nobody looks at them either, and it is the origin that knows what it takes.
pub(super) fn parse_uri(dest: Bytes) -> Option<Uri> {
    let uri = Uri::from_maybe_shared(dest.clone()).or_else(|_| {
        let mut escaped = Vec::with_capacity(dest.len() + 32);
        for byte in &dest {
            match byte {
                b'!' | b'#'..=b';' | b'=' | b'?'..=b'_' | b'a'..=b'z' | b'~' => escaped.push(*byte),
                other => escaped.extend_from_slice(format!("%{other:02X}").as_bytes()),
            }
        }
        Uri::from_maybe_shared(Bytes::from(escaped))
    });
    uri.ok().filter(|uri| uri.scheme().is_some() || uri.authority().is_none())
}

pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .any(|value| value.as_bytes().windows(b"chunked".len()).any(|part| part.eq_ignore_ascii_case(b"chunked")))
}

/// The length that the headers announce; leaves at most one header of it. A chunked body's is removed: the framing is
/// what counts (RFC 9112 section 6.3).
pub(super) fn content_length(headers: &mut HeaderMap, chunked: bool) -> Result<Option<u64>, HeadError> {
    if chunked {
        headers.remove(CONTENT_LENGTH);
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let value: Option<u64> = text.and_then(|text| text.parse().ok());
        if value.is_none() || (length.is_some() && length != value) {
            return Err(HeadError::Malformed("the content length"));
        }
        length = value;
    }
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

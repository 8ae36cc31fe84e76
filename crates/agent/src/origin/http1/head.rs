//! Heads of messages: of a request on its way out, of an answer on its way in.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body::Body as _;
use wire::Body;

use super::coding::{Outgoing, Rest};

/// Header fields in one answer of an origin; more is nonsense or an attack.
pub(in crate::origin) const MAX_FIELDS: usize = 256;
/// The head of one answer, in bytes; as generous as the reference.
pub(in crate::origin) const MAX_HEAD: usize = 1 << 20;

/// The head of an answer.
#[derive(Debug)]
pub(in crate::origin) struct Head {
    pub(in crate::origin) status: StatusCode,
    pub(in crate::origin) headers: HeaderMap,
    pub(in crate::origin) then: Then,
    /// The connection takes another request once the body is over.
    pub(in crate::origin) keeps: bool,
}

/// What follows a head.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::origin) enum Then {
    /// Another head: this one was an interim answer.
    Head,
    /// Bytes of another protocol.
    Switch,
    Body(Rest),
}

/// An answer that is not HTTP/1.1, or can be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::origin) enum BadHead {
    #[error("{0}")]
    Grammar(#[from] httparse::Error),
    #[error("the status is none")]
    Status,
    #[error("a field holds a byte that is not allowed there")]
    Field,
    #[error("content-length is not one number")]
    Length,
    #[error("transfer-encoding in an answer of HTTP/1.0")]
    Encoding,
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
}

/// Writes the head of a request with this body, whose URI is no more than path and query, and says how its body is to be sent. The headers have
/// at most one `content-length`, and it is a number.
pub(super) fn encode(out: &mut Vec<u8>, head: &Request<Body>, body: &Body) -> Outgoing {
    out.extend_from_slice(head.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.uri().path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    encode_fields(out, head.headers());
    let announced = head.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let outgoing = match (announced, body.size_hint().exact()) {
        (Some(length), _) => Outgoing::Length(length),
        (None, Some(0)) => Outgoing::Length(0),
        (None, Some(length)) => {
            out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            Outgoing::Length(length)
        }
        // These have no body as a rule, and origins stumble over one of unknown length.
        (None, None) if matches!(*head.method(), Method::GET | Method::HEAD) => Outgoing::Nothing,
        (None, None) => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Outgoing::Chunks
        }
    };
    out.extend_from_slice(b"\r\n");
    outgoing
}

pub(super) fn encode_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        encode_name(out, name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a name as HTTP/1 servers expect it: `Content-Type`. Some old ones compare names as text.
fn encode_name(out: &mut Vec<u8>, name: &HeaderName) {
    let start = out.len();
    out.extend_from_slice(name.as_str().as_bytes());
    let mut first = true;
    for byte in &mut out[start..] {
        if first {
            byte.make_ascii_uppercase();
        }
        first = *byte == b'-';
    }
}

/// Where the first head in these bytes ends, if it does; in the first `searched` of them it does not.
pub(in crate::origin) fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    // Empty lines before the status line end no head.
    let before = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut at = searched.saturating_sub(2).max(before);
    while let Some(feed) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += feed + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Whether these bytes can be the beginning of an answer.
pub(super) fn check(bytes: &[u8]) -> Result<(), BadHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    parse(bytes, &mut fields).map(|_| ())
}

/// Takes a head apart that has [ended](end).
pub(in crate::origin) fn decode(bytes: &Bytes, method: &Method) -> Result<Head, BadHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let (version, code, fields) = parse(bytes, &mut fields)?.ok_or(BadHead::Status)?;
    let status = StatusCode::from_u16(code).map_err(|_| BadHead::Status)?;
    let mut headers = HeaderMap::with_capacity(fields.len());
    let (mut close, mut keep_alive) = (false, version == 1);
    let (mut lengths, mut encodings) = (false, false);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadHead::Field)?;
        let value = match HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)) {
            Ok(value) => value,
            Err(_) => unfolded(field.value)?,
        };
        match name {
            CONNECTION => {
                close |= tokens(&value).any(|token| token.eq_ignore_ascii_case(b"close"));
                keep_alive |= tokens(&value).any(|token| token.eq_ignore_ascii_case(b"keep-alive"));
            }
            CONTENT_LENGTH => lengths = true,
            TRANSFER_ENCODING => encodings = true,
            _ => {}
        }
        headers.append(name, value);
    }
    let then = match status {
        StatusCode::SWITCHING_PROTOCOLS => Then::Switch,
        status if status.is_informational() => Then::Head,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Then::Body(Rest::Length(0)),
        _ if *method == Method::HEAD => Then::Body(Rest::Length(0)),
        _ if encodings && version == 0 => return Err(BadHead::Encoding),
        _ if encodings => {
            // It outdoes a length, which must not go on beside it; and whoever sends both is not to be asked again on this
            // connection (RFC 9112 section 6.3).
            close |= lengths;
            headers.remove(CONTENT_LENGTH);
            Then::Body(if ends_in_chunks(&headers) { Rest::chunks() } else { Rest::UntilEnd })
        }
        _ if lengths => Then::Body(Rest::Length(length(&headers)?)),
        _ => Then::Body(Rest::UntilEnd),
    };
    let keeps = keep_alive && !close && then != Then::Body(Rest::UntilEnd);
    Ok(Head { status, headers, then, keeps })
}

type Parsed<'h, 'b> = (u8, u16, &'h [httparse::Header<'b>]);

/// `None`: the head has not ended, or ended before the bytes did.
fn parse<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Option<Parsed<'h, 'b>>, BadHead> {
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true);
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, fields)?;
    match (parsed, response.version, response.code) {
        (httparse::Status::Complete(length), Some(version), Some(code)) if length == bytes.len() => {
            Ok(Some((version, code, response.headers)))
        }
        _ => Ok(None),
    }
}

/// A value that goes on in further lines, as one line (RFC 9112 section 5.2).
fn unfolded(value: &[u8]) -> Result<HeaderValue, BadHead> {
    let line: Vec<u8> = value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect();
    HeaderValue::from_bytes(&line).map_err(|_| BadHead::Field)
}

fn ends_in_chunks(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    last.and_then(|value| tokens(value).last()).is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The length that all `content-length` fields name.
fn length(headers: &HeaderMap) -> Result<u64, BadHead> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let next = digits.and_then(|text| text.parse().ok()).ok_or(BadHead::Length)?;
        if length.is_some_and(|length| length != next) {
            return Err(BadHead::Length);
        }
        length = Some(next);
    }
    length.ok_or(BadHead::Length)
}

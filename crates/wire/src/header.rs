//! Headers of the HTTP/2 transport (sections 4.1 and 5): protocol names, the serialized set, who made an answer.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::{Extensions, Kind, OriginError, OriginFault};

/// Says what a stream is; one of the `UPGRADE_…` values (section 4.1).
pub const UPGRADE: HeaderName = HeaderName::from_static("cf-cloudflared-proxy-connection-upgrade");
/// Value of [`UPGRADE`]: the control stream.
pub const UPGRADE_CONTROL: HeaderValue = HeaderValue::from_static("control-stream");
/// Value of [`UPGRADE`]: a WebSocket.
pub(crate) const UPGRADE_WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Value of [`UPGRADE`]: a configuration push.
pub(crate) const UPGRADE_CONFIGURATION: HeaderValue = HeaderValue::from_static("update-configuration");
/// Present and not empty on byte streams (section 5.5).
pub(crate) const PROXY_SRC: HeaderName = HeaderName::from_static("cf-cloudflared-proxy-src");
/// The origin's headers of an answer, serialized (section 5.3).
pub const RESPONSE_HEADERS: HeaderName = HeaderName::from_static("cf-cloudflared-response-headers");
/// Who made the answer, a [`ResponseMeta`].
pub const RESPONSE_META: HeaderName = HeaderName::from_static("cf-cloudflared-response-meta");
/// Names a request in logs.
pub(crate) const RAY: HeaderName = HeaderName::from_static("cf-ray");
/// Turns on tracing for a request.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("cf-trace-id");
/// [`Extensions::HEADER`] as a header name.
pub const EXTENSIONS: HeaderName = HeaderName::from_static(Extensions::HEADER);
/// A trailer of an answer that broke off, with the extension `trailers`. A reset would say the same, but takes what is not
/// on its way yet with it, the head included.
pub(crate) const BROKEN: HeaderName = HeaderName::from_static("cf-cloudflared-snicket-broken");

/// Bytes of the longest text of a fault that travels ([`OriginError::text`]): a sentence or two for a person.
pub const MAX_FAULT_TEXT: usize = 512;

/// What a stream towards the agent is (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum StreamKind {
    /// Configuration push (section 11.2).
    Configuration,
    /// The control stream.
    Control,
    /// A request of this kind.
    Exchange(Kind),
    /// A byte stream (section 5.5).
    Stream,
}

impl StreamKind {
    /// Looks at the two headers in the protocol's order.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes);
        if upgrade == Some(UPGRADE_CONFIGURATION.as_bytes()) {
            Self::Configuration
        } else if upgrade == Some(UPGRADE_WEBSOCKET.as_bytes()) {
            Self::Exchange(Kind::WebSocket)
        } else if headers.get(PROXY_SRC).is_some_and(|source| !source.is_empty()) {
            Self::Stream
        } else if upgrade == Some(UPGRADE_CONTROL.as_bytes()) {
            Self::Control
        } else {
            Self::Exchange(Kind::Http)
        }
    }
}

/// How many and how long headers may be when a serialized set is read. Memory for one answer grows with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pairs.
    pub count: usize,
    /// Bytes of all names and values together.
    pub bytes: usize,
}

impl Limits {
    /// For the headers of an answer. Web servers stop at 8 to 64 KiB and a hundred or so; the protocol wants generosity.
    pub const HEADERS: Self = Self { count: 512, bytes: 256 * 1024 };
    /// For trailers, which hold a status and a checksum.
    pub const TRAILERS: Self = Self { count: 64, bytes: 32 * 1024 };

    /// Whether these headers are within the limits.
    pub(crate) fn hold(self, headers: &HeaderMap) -> bool {
        let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        headers.len() <= self.count && bytes <= self.bytes
    }

    /// Bytes that a serialized set within these limits has at most.
    pub const fn serialized(self) -> usize {
        // Four letters for three bytes; per pair two separators and two incomplete groups.
        self.bytes.div_ceil(3) * 4 + self.count * 8
    }
}

/// Why a serialized header set, or a meta header, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A pair without exactly one colon.
    #[error("the serialized headers hold a pair without exactly one colon")]
    Pair,
    /// A name or value that is not base64.
    #[error("the serialized headers hold something that is not base64")]
    Base64,
    /// A name that HTTP does not allow.
    #[error("a header's name holds a character that names may not hold")]
    Name,
    /// A value that HTTP does not allow.
    #[error("the value of the header `{0}` holds a control character")]
    Value(HeaderName),
    /// [`Limits::count`] crossed.
    #[error("there are more than {0} headers")]
    Count(usize),
    /// [`Limits::bytes`] crossed.
    #[error("the headers have more than {0} bytes")]
    Bytes(usize),
    /// The meta header is not one of the forms of section 5.6.
    #[error("the answer does not say in a known way who made it")]
    Meta,
}

/// Packs an origin's headers into the value of [`RESPONSE_HEADERS`] (section 5.3); those that [`is_reserved`] are left out.
pub fn serialize(headers: &HeaderMap) -> HeaderValue {
    let length = headers
        .iter()
        .map(|(name, value)| encoded_length(name.as_str().len()) + encoded_length(value.len()) + 2)
        .sum::<usize>();
    if length == 0 {
        return HeaderValue::from_static("");
    }
    let mut out = Vec::with_capacity(length);
    for (name, value) in headers {
        if is_reserved(name) {
            continue;
        }
        if !out.is_empty() {
            out.push(b';');
        }
        encode_name(&mut out, name.as_str().as_bytes());
        out.push(b':');
        encode(&mut out, value.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(out)).expect("base64, colons and semicolons are legal in a value")
}

/// Unpacks the value of [`RESPONSE_HEADERS`]; those that [`is_reserved`] are left out.
///
/// One header that HTTP does not allow refuses the whole set: what it was meant to say is anybody's guess.
pub fn deserialize(value: &[u8], limits: Limits) -> Result<HeaderMap, HeaderError> {
    // What does not fit in this cannot be within the limits, and is refused before anything is allocated for it.
    if value.len() > limits.serialized() {
        return Err(HeaderError::Bytes(limits.bytes));
    }
    let pairs = || value.split(|byte| *byte == b';').filter(|pair| !pair.is_empty());
    let count = pairs().count();
    if count > limits.count {
        return Err(HeaderError::Count(limits.count));
    }
    let mut headers = HeaderMap::with_capacity(count);
    // All values share one allocation; a decoded set is shorter than its serialized form.
    let mut room = BytesMut::with_capacity(value.len() + 8);
    let mut bytes = 0;
    for pair in pairs() {
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(HeaderError::Pair)?;
        let (name, value) = (&pair[..colon], &pair[colon + 1..]);
        if value.contains(&b':') {
            return Err(HeaderError::Pair);
        }
        decode(&mut room, name)?;
        bytes += room.len();
        let name = HeaderName::from_bytes(&room).map_err(|_| HeaderError::Name)?;
        decode(&mut room, value)?;
        bytes += room.len();
        if bytes > limits.bytes {
            return Err(HeaderError::Bytes(limits.bytes));
        }
        let value = room.split().freeze();
        if is_reserved(&name) {
            continue;
        }
        let Ok(value) = HeaderValue::from_maybe_shared(value) else { return Err(HeaderError::Value(name)) };
        headers.try_append(name, value).map_err(|_| HeaderError::Count(limits.count))?;
    }
    Ok(headers)
}

/// Names that an origin may not send through a tunnel: they are the protocol's own (section 5.2).
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.strip_prefix("cf-") {
        Some(rest) => ["int-", "cloudflared-", "proxy-"].iter().any(|prefix| rest.starts_with(prefix)),
        None => name.starts_with(':'),
    }
}

/// Removes what [`is_reserved`].
pub(crate) fn strip_reserved(headers: &mut HeaderMap) {
    strip(headers, is_reserved);
}

/// Removes what of a request is the protocol's: what [`is_reserved`], and the mark that turns on tracing.
pub(crate) fn strip_protocol(headers: &mut HeaderMap) {
    strip(headers, |name| is_reserved(name) || *name == TRACE_ID);
}

/// Removes trailers that would change how the message is framed, routed or read (RFC 9110 section 6.5.1).
pub(crate) fn strip_forbidden_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 14] = [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::HOST,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::WWW_AUTHENTICATE,
    ];
    strip(trailers, |name| is_reserved(name) || FORBIDDEN.contains(name));
}

/// Removes what is unwanted.
pub(crate) fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // The common case has none and allocates nothing.
    while let Some(name) = headers.keys().find(|name| unwanted(name)).cloned() {
        headers.remove(name);
    }
}

/// Who made an answer (section 5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseMeta {
    /// The origin.
    Origin,
    /// The agent: the origin gave none.
    Fault(OriginError),
    /// The agent: too many flows at once (TCP streams only).
    FlowLimited,
}

impl ResponseMeta {
    const ORIGIN: &'static str = r#"{"src":"origin"}"#;
    const AGENT: &'static str = r#"{"src":"cloudflared"}"#;
    const FLOW_LIMITED: &'static str = r#"{"src":"cloudflared","flow_rate_limited":true}"#;

    /// The header's value; the fault is told only to an edge that asked for it ([`Extensions::faults`]).
    pub fn to_value(&self, extensions: Extensions) -> HeaderValue {
        match self {
            Self::Origin => HeaderValue::from_static(Self::ORIGIN),
            Self::Fault(error) if extensions.faults => {
                let text = Some(fault_text(&error.text)).filter(|text| !text.is_empty());
                let meta = Meta { src: AGENT.into(), fault: Some(error.fault.name().into()), text, ..Meta::default() };
                serde_json::to_string(&meta)
                    .ok()
                    .and_then(|json| HeaderValue::try_from(json).ok())
                    .expect("JSON of texts without control characters is legal in a value")
            }
            Self::Fault(_) => HeaderValue::from_static(Self::AGENT),
            Self::FlowLimited => HeaderValue::from_static(Self::FLOW_LIMITED),
        }
    }

    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Result<Self, HeaderError> {
        if value == Self::ORIGIN.as_bytes() {
            return Ok(Self::Origin);
        }
        let meta: Meta<'_> = serde_json::from_slice(value).map_err(|_| HeaderError::Meta)?;
        match &*meta.src {
            "origin" => Ok(Self::Origin),
            AGENT if meta.flow_rate_limited => Ok(Self::FlowLimited),
            AGENT => Ok(Self::Fault(OriginError {
                fault: meta.fault.as_deref().map_or(OriginFault::Unknown, OriginFault::from_name),
                text: meta.text.as_deref().map(fault_text).unwrap_or_default().into_owned(),
            })),
            _ => Err(HeaderError::Meta),
        }
    }
}

const AGENT: &str = "cloudflared";

#[derive(Default, Serialize, Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    src: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    flow_rate_limited: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    fault: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

/// A fault's text as it may travel and be shown: without control characters, at most [`MAX_FAULT_TEXT`] bytes.
pub(crate) fn fault_text(text: &str) -> Cow<'_, str> {
    let text = &text[..text.floor_char_boundary(MAX_FAULT_TEXT)];
    if text.contains(char::is_control) { text.replace(char::is_control, " ").into() } else { text.into() }
}

/// A header's name as HTTP/1 agents write it: `Set-Cookie`. Names of the `http` crate are lower case.
pub(crate) fn canonical(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut start = true;
    name.iter().map(move |byte| {
        let byte = if start { byte.to_ascii_uppercase() } else { *byte };
        start = byte == b'-';
        byte
    })
}

const fn encoded_length(length: usize) -> usize {
    (length * 4).div_ceil(3)
}

fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + encoded_length(bytes.len()), 0);
    STANDARD_NO_PAD.encode_slice(bytes, &mut out[start..]).expect("the room just made is the encoded length");
}

fn encode_name(out: &mut Vec<u8>, name: &[u8]) {
    // Pieces of a multiple of three bytes encode independently of each other, so no name needs an allocation.
    let mut piece = [0; 48];
    let mut letters = canonical(name);
    for length in name.chunks(piece.len()).map(<[u8]>::len) {
        for (to, letter) in piece[..length].iter_mut().zip(&mut letters) {
            *to = letter;
        }
        encode(out, &piece[..length]);
    }
}

/// Leaves what `text` means in `room`.
fn decode(room: &mut BytesMut, text: &[u8]) -> Result<(), HeaderError> {
    room.clear();
    room.resize(base64::decoded_len_estimate(text.len()), 0);
    let length = STANDARD_NO_PAD.decode_slice(text, room).map_err(|_| HeaderError::Base64)?;
    room.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &[u8])]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().expect("is a name");
                (name, HeaderValue::from_bytes(value).expect("is a value"))
            })
            .collect()
    }

    #[test]
    fn the_example_of_the_protocol_page() {
        let headers = map(&[("set-cookie", b"a=1"), ("set-cookie", b"b=2")]);
        let serialized = serialize(&headers);
        assert_eq!(serialized, "U2V0LUNvb2tpZQ:YT0x;U2V0LUNvb2tpZQ:Yj0y");
        assert_eq!(deserialize(serialized.as_bytes(), Limits::HEADERS), Ok(headers));
    }

    #[test]
    fn names_of_any_length_are_canonical() {
        let long = format!("x-{}", "long-name-".repeat(20));
        let serialized = serialize(&map(&[(&long, b"")]));
        let name = STANDARD_NO_PAD.decode(serialized.to_str().expect("is text").trim_end_matches(':')).expect("base64");
        assert_eq!(String::from_utf8(name).expect("is text"), format!("X-{}", "Long-Name-".repeat(20)));
    }

    #[test]
    fn empty_sets_and_empty_elements() {
        assert_eq!(serialize(&HeaderMap::new()), "");
        assert_eq!(deserialize(b"", Limits::HEADERS), Ok(HeaderMap::new()));
        assert_eq!(deserialize(b";;eA:eQ;", Limits::HEADERS), Ok(map(&[("x", b"y")])));
        assert_eq!(deserialize(b"eA:", Limits::HEADERS), Ok(map(&[("x", b"")])));
    }

    #[test]
    fn odd_values_survive() {
        let headers = map(&[("x", b"\xff\xe9\t \""), ("content-type", b"text/html; charset=latin1")]);
        assert_eq!(deserialize(serialize(&headers).as_bytes(), Limits::HEADERS), Ok(headers));
    }

    #[test]
    fn malformed_sets_are_refused() {
        let pair = |name: &str, value: &[u8]| {
            format!("{}:{}", STANDARD_NO_PAD.encode(name), STANDARD_NO_PAD.encode(value)).into_bytes()
        };
        let x = HeaderName::from_static("x");
        for (set, error) in [
            (b"eA".to_vec(), HeaderError::Pair),
            (b"eA:eA:eA".to_vec(), HeaderError::Pair),
            (b"eA:!".to_vec(), HeaderError::Base64),
            (b"eA:eA==".to_vec(), HeaderError::Base64),
            (b":eA".to_vec(), HeaderError::Name),
            (pair("a b", b""), HeaderError::Name),
            (pair("a\r\nb", b""), HeaderError::Name),
            (pair("x", b"a\r\nb: c"), HeaderError::Value(x.clone())),
            (pair("x", b"\0"), HeaderError::Value(x.clone())),
            (pair("x", b"\x7f"), HeaderError::Value(x)),
        ] {
            assert_eq!(deserialize(&set, Limits::HEADERS), Err(error), "{}", set.escape_ascii());
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let limits = Limits { count: 2, bytes: 6 };
        let within = map(&[("a", b"xx"), ("b", b"yy")]);
        assert_eq!(deserialize(serialize(&within).as_bytes(), limits), Ok(within));
        let longer = serialize(&map(&[("a", b"xx"), ("b", b"yyy")]));
        assert_eq!(deserialize(longer.as_bytes(), limits), Err(HeaderError::Bytes(6)));
        let more = serialize(&map(&[("a", b""), ("b", b""), ("c", b"")]));
        assert_eq!(deserialize(more.as_bytes(), limits), Err(HeaderError::Count(2)));
        assert_eq!(deserialize(&[b';'; 1 << 20], limits), Err(HeaderError::Bytes(6)));
    }

    #[test]
    fn reserved_names_pass_in_neither_direction() {
        let reserved = ["cf-int-x", "cf-cloudflared-response-meta", "cf-proxy-x", "cf-cloudflared-snicket"];
        let mut headers: HeaderMap =
            reserved.iter().map(|name| (name.parse().unwrap(), "x".parse().unwrap())).collect();
        assert_eq!(serialize(&headers), "");
        headers.insert("cf-ray", "y".parse().unwrap());
        strip_reserved(&mut headers);
        assert_eq!(headers, map(&[("cf-ray", b"y")]));
        let sent = format!("{}:eA", STANDARD_NO_PAD.encode("Cf-Int-X"));
        assert_eq!(deserialize(sent.as_bytes(), Limits::HEADERS), Ok(HeaderMap::new()));
    }

    #[test]
    fn trailers_that_would_reframe_the_message_go() {
        let mut trailers = map(&[("grpc-status", b"0"), ("content-length", b"1"), ("transfer-encoding", b"chunked")]);
        strip_forbidden_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-status", b"0")]));
    }

    #[test]
    fn meta_leads_back() {
        let fault = ResponseMeta::Fault(OriginError::new(OriginFault::Refused, "nobody listens at \"x\" – sorry"));
        for meta in [ResponseMeta::Origin, ResponseMeta::FlowLimited, fault.clone()] {
            assert_eq!(ResponseMeta::parse(meta.to_value(Extensions::ALL).as_bytes()), Ok(meta));
        }
        let told = fault.to_value(Extensions::default());
        assert_eq!(told, r#"{"src":"cloudflared"}"#);
        let unknown = ResponseMeta::Fault(OriginError::new(OriginFault::Unknown, ""));
        assert_eq!(ResponseMeta::parse(told.as_bytes()), Ok(unknown));
    }

    #[test]
    fn meta_from_outside() {
        assert_eq!(ResponseMeta::parse(br#"{ "later": [1], "src": "origin" }"#), Ok(ResponseMeta::Origin));
        for bad in ["", "{}", "[]", r#"{"src":"visitor"}"#, r#"{"src":7}"#] {
            assert_eq!(ResponseMeta::parse(bad.as_bytes()), Err(HeaderError::Meta), "{bad}");
        }
        let long = "\u{1}é".repeat(10_000);
        let value = ResponseMeta::Fault(OriginError::new(OriginFault::Closed, long)).to_value(Extensions::ALL);
        let Ok(ResponseMeta::Fault(error)) = ResponseMeta::parse(value.as_bytes()) else {
            panic!("not read: {value:?}")
        };
        assert!(error.text.len() <= MAX_FAULT_TEXT && error.text.starts_with(" é é"), "{}", error.text);
    }

    #[test]
    fn stream_kinds_in_the_protocols_order() {
        let kind = |pairs: &[(&str, &[u8])]| StreamKind::of(&map(pairs));
        let (upgrade, source) = (&*UPGRADE.to_string(), &*PROXY_SRC.to_string());
        assert_eq!(kind(&[]), StreamKind::Exchange(Kind::Http));
        assert_eq!(kind(&[(upgrade, b"update-configuration"), (source, b"x")]), StreamKind::Configuration);
        assert_eq!(kind(&[(upgrade, b"websocket"), (source, b"x")]), StreamKind::Exchange(Kind::WebSocket));
        assert_eq!(kind(&[(upgrade, b"control-stream"), (source, b"x")]), StreamKind::Stream);
        assert_eq!(kind(&[(upgrade, b"control-stream"), (source, b"")]), StreamKind::Control);
        assert_eq!(kind(&[(upgrade, b"Control-Stream")]), StreamKind::Exchange(Kind::Http));
    }
}

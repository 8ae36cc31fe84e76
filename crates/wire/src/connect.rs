//! Streams of the QUIC transport (sections 6 and 7): signatures and the first message in each direction.
//!
//! A data stream begins, in each direction, with [`DATA_SIGNATURE`], [`VERSION`] and one message: [`Head`] towards
//! the agent, [`ResponseHead`] towards the edge. Then come body bytes: bare, or by agreement as [`framing`] says.
//!
//! Extensions of ours are metadata keys that a stock peer passes over. An edge puts [`Extensions::HEADER`] only on
//! requests to agents that announced something; an agent uses only what that mark names:
//!
//! | key | on | meaning |
//! | --- | --- | --- |
//! | `cf-cloudflared-snicket` | request | the extensions in force; on a byte stream, that its destination is a service |
//! | `cf-cloudflared-snicket-framed` = `1` | either | extension `trailers`: the body behind this message is framed |
//! | `cf-cloudflared-snicket-fault` | failure | extension `faults`: the name of the fault beside the reason text |
//!
//! With the extension `interim` any number of whole heads with a status of 1xx may come before the answer's.

pub mod framing;
mod metadata;

use bytes::{Buf, Bytes, BytesMut};
use capnp::message::{Builder, HeapAllocator};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, StatusCode, request};

use crate::byte_stream::{Destination, StreamRequest, marks_service, stream_flow, stream_mark};
use crate::header::{Limits, fault_text, is_reserved};
use crate::schema::connect_capnp::{ConnectionType, connect_request, connect_response};
use crate::schema::stream;
use crate::{Extensions, Kind, OriginError, OriginFault};

use metadata::{Entries, Entry};

/// First bytes of a data stream, in each direction.
pub const DATA_SIGNATURE: [u8; 6] = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e];
/// First bytes of an RPC stream.
pub const RPC_SIGNATURE: [u8; 6] = [0x52, 0xbb, 0x82, 0x5c, 0xdb, 0x65];
/// Follows [`DATA_SIGNATURE`]. Written, never checked.
pub const VERSION: [u8; 2] = *b"01";

/// Bytes of the longest first message. Twice what its headers may have ([`Limits::HEADERS`]): names of keys and padding
/// come on top.
pub const MAX_MESSAGE: usize = 2 * Limits::HEADERS.bytes;

const PREAMBLE: [u8; 8] = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e, b'0', b'1'];

const METHOD: &str = "HttpMethod";
const HOST: &str = "HttpHost";
const STATUS: &str = "HttpStatus";
const FLOW_ID: &str = "FlowID";
const FLOW_LIMITED: &str = "FlowConnectRateLimited";
const FRAMED: &str = "cf-cloudflared-snicket-framed";
const FAULT: &str = "cf-cloudflared-snicket-fault";

/// What a stream other than the control stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamType {
    /// A request and its answer: the bytes, signature included, go to [`Head::decode`].
    Data,
    /// RPC: what follows the signature goes to [`crate::rpc`].
    Rpc,
}

impl StreamType {
    /// Reads the signature without consuming it; `None`: more bytes are needed.
    pub fn peek(buffer: &[u8]) -> Result<Option<Self>, HeadError> {
        for (signature, kind) in [(DATA_SIGNATURE, Self::Data), (RPC_SIGNATURE, Self::Rpc)] {
            if buffer.starts_with(&signature) {
                return Ok(Some(kind));
            }
            if signature.starts_with(buffer) {
                return Ok(None);
            }
        }
        Err(HeadError::Signature)
    }
}

/// Why the beginning of a stream was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not the signature that belongs here.
    #[error("the stream does not begin with a signature of the tunnel protocol")]
    Signature,
    /// More segments or bytes than this end accepts.
    #[error("the first message of the stream is too long: {0}")]
    TooLong(String),
    /// Not a message of the schema.
    #[error("the first message of the stream cannot be read: {0}")]
    Message(String),
    /// More header bytes than [`Limits::HEADERS`].
    #[error("the headers have more than {0} bytes")]
    HeaderBytes(usize),
    /// More entries than [`Limits::HEADERS`].
    #[error("there are more than {0} headers")]
    HeaderCount(usize),
    /// A part of a request or an answer that HTTP does not allow there.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A byte stream's destination is neither a literal address nor, from an edge of our own, a service's name.
    #[error("the destination is no literal address with a port")]
    Destination,
}

impl From<capnp::Error> for HeadError {
    fn from(error: capnp::Error) -> Self {
        Self::Message(error.to_string())
    }
}

/// How a request's body travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyForm {
    /// There is none.
    None,
    /// The stream carries its bytes as they are.
    Bare,
    /// The stream carries frames ([`framing`]), so that trailers can follow.
    Framed,
}

/// The first message towards the agent (section 7.1).
#[derive(Debug)]
pub enum Head {
    /// An HTTP request, or a WebSocket.
    Exchange(RequestHead),
    /// A byte stream.
    Stream(StreamRequest, Extensions),
}

impl Head {
    /// Takes a whole head off the front of `buffer`; `None`: more bytes are needed. What is left is body.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let Some(bytes) = take_message(buffer)? else { return Ok(None) };
        let message = stream::read(&bytes)?;
        let root: connect_request::Reader<'_> = message.get_root()?;
        let kind = match root.get_type() {
            Ok(ConnectionType::Http) => Some(Kind::Http),
            Ok(ConnectionType::Websocket) => Some(Kind::WebSocket),
            Ok(ConnectionType::Tcp) => None,
            Err(_) => return Err(HeadError::Malformed("the stream's type")),
        };
        let list = root.get_metadata()?;
        let mut metadata = RequestMetadata { headers: metadata::map_for(list), ..RequestMetadata::default() };
        metadata::read(&bytes, list, |key, value| metadata.take(key, value))?;
        let dest = bytes.slice_ref(root.get_dest()?.as_bytes());
        Ok(Some(match kind {
            Some(kind) => Self::Exchange(metadata.into_http(kind, dest)?),
            None => {
                let extensions = metadata.extensions;
                Self::Stream(metadata.into_stream(&dest)?, extensions)
            }
        }))
    }
}

/// Signature, version and message for a byte stream. Its bytes follow them on the stream.
pub fn encode_stream(request: &StreamRequest, extensions: Extensions) -> Bytes {
    let mut entries = Entries::with_capacity(2);
    if !request.flow.is_empty() {
        entries.push(Entry::plain(FLOW_ID, request.flow.as_bytes()));
    }
    let mark = stream_mark(&request.destination, extensions);
    if !mark.is_empty() {
        entries.push(Entry::plain(Extensions::HEADER, mark.as_bytes()));
    }
    encode_request(ConnectionType::Tcp, &request.destination.to_string(), &entries)
}

/// The head of an HTTP request (section 7.1).
#[derive(Debug)]
pub struct RequestHead {
    /// HTTP or a WebSocket.
    pub kind: Kind,
    /// Method, URI and headers. The URI is absolute wherever the edge named a host, a bare path otherwise; it is `*` with
    /// the header `host` for `OPTIONS *`. Protocol headers and `transfer-encoding` are gone.
    pub request: Request<()>,
    /// Set by an edge of our own, only for agents that announced them.
    pub extensions: Extensions,
    /// [`BodyForm::Bare`] for a WebSocket.
    pub body: BodyForm,
}

impl RequestHead {
    /// Signature, version and message. The body follows them on the stream.
    ///
    /// A body without `content-length` is announced as chunked, whatever the headers say, because a stock agent throws
    /// it away otherwise.
    pub fn encode(kind: Kind, request: &request::Parts, body: BodyForm, extensions: Extensions) -> Bytes {
        let authority = request.uri.authority().map(Authority::as_str);
        let mut entries = Entries::with_capacity(request.headers.len() + 4);
        let mut dest = String::new();
        let path = request.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if let Some(authority) = authority.filter(|_| path != "*") {
            let scheme = request.uri.scheme_str().unwrap_or("https");
            dest.reserve_exact(scheme.len() + "://".len() + authority.len() + path.len());
            for part in [scheme, "://", authority] {
                dest.push_str(part);
            }
        }
        dest.push_str(path);
        entries.push(Entry::plain(METHOD, request.method.as_str().as_bytes()));
        let host = authority.map(str::as_bytes);
        if let Some(host) = host.or_else(|| request.headers.get(header::HOST).map(HeaderValue::as_bytes)) {
            entries.push(Entry::plain(HOST, host));
        }
        for (name, value) in &request.headers {
            if name != header::HOST && name != header::TRANSFER_ENCODING && !is_reserved(name) {
                entries.push(Entry::header(name, value));
            }
        }
        if kind == Kind::Http && body != BodyForm::None && !request.headers.contains_key(header::CONTENT_LENGTH) {
            entries.push(Entry::CHUNKED);
        }
        if !extensions.mark().is_empty() {
            entries.push(Entry::plain(Extensions::HEADER, extensions.mark().as_bytes()));
        }
        if body == BodyForm::Framed {
            entries.push(Entry::plain(FRAMED, b"1"));
        }

        let carried = match kind {
            Kind::Http => ConnectionType::Http,
            Kind::WebSocket => ConnectionType::Websocket,
        };
        encode_request(carried, &dest, &entries)
    }
}

fn encode_request(carried: ConnectionType, dest: &str, entries: &Entries<'_>) -> Bytes {
    // Root pointer, the struct's own three words.
    let mut message = builder(4 + metadata::text_words(dest.len()) + entries.words());
    let mut root = message.init_root::<connect_request::Builder<'_>>();
    root.set_type(carried);
    root.set_dest(dest);
    if entries.count() > 0 {
        entries.write(root.init_metadata(entries.count()));
    }
    stream::write(&PREAMBLE, &message)
}

#[derive(Default)]
struct RequestMetadata {
    method: Option<Method>,
    host: Option<Bytes>,
    headers: HeaderMap,
    extensions: Extensions,
    framed: bool,
    flow: Option<Bytes>,
    service: bool,
}

impl RequestMetadata {
    fn take(&mut self, key: &[u8], value: Bytes) -> Result<(), HeadError> {
        if let Some(name) = metadata::header_name(key)? {
            if !is_reserved(&name) {
                metadata::append(&mut self.headers, name, value)?;
            }
        } else if key == METHOD.as_bytes() {
            self.method = Some(Method::from_bytes(&value).map_err(|_| HeadError::Malformed("the method"))?);
        } else if key == HOST.as_bytes() {
            self.host = Some(value).filter(|host| !host.is_empty());
        } else if key == Extensions::HEADER.as_bytes() {
            self.extensions = std::str::from_utf8(&value).map(Extensions::from_mark).unwrap_or_default();
            self.service = marks_service(&value);
        } else if key == FRAMED.as_bytes() {
            self.framed = &*value == b"1";
        } else if key == FLOW_ID.as_bytes() {
            self.flow = Some(value);
        }
        Ok(())
    }

    fn into_http(mut self, kind: Kind, dest: Bytes) -> Result<RequestHead, HeadError> {
        let dest = metadata::parse_uri(dest).ok_or(HeadError::Malformed("the destination"))?;
        let mut parts = dest.into_parts();
        let path = parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        let asterisk = path.as_str() == "*";
        let named =
            self.host.or_else(|| self.headers.get(header::HOST).map(|host| Bytes::copy_from_slice(host.as_bytes())));
        let host = match named {
            Some(host) => Some(Authority::from_maybe_shared(host).map_err(|_| HeadError::Malformed("the host"))?),
            None => parts.authority.take(),
        };
        self.headers.remove(header::HOST);
        if let Some(host) = host {
            // What is before an `@` is no part of a host, and must not be taken for one.
            if host.as_str().contains('@') {
                return Err(HeadError::Malformed("the host"));
            }
            if asterisk {
                // `OPTIONS *` has no other place for it.
                let host = HeaderValue::from_str(host.as_str()).map_err(|_| HeadError::Malformed("the host"))?;
                self.headers.insert(header::HOST, host);
            } else {
                parts.scheme.get_or_insert(Scheme::HTTPS);
                parts.authority = Some(host);
            }
        }
        let uri = Uri::from_parts(parts).map_err(|_| HeadError::Malformed("the destination"))?;

        let chunked = metadata::is_chunked(&self.headers);
        self.headers.remove(header::TRANSFER_ENCODING);
        let length = metadata::content_length(&mut self.headers, chunked)?;
        let body = match (kind, self.framed) {
            (Kind::Http, true) => BodyForm::Framed,
            (Kind::Http, false) if !chunked && length.unwrap_or(0) == 0 => BodyForm::None,
            _ => BodyForm::Bare,
        };
        let mut request = Request::new(());
        *request.method_mut() = self.method.unwrap_or(Method::GET);
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers;
        Ok(RequestHead { kind, request, extensions: self.extensions, body })
    }

    fn into_stream(self, dest: &[u8]) -> Result<StreamRequest, HeadError> {
        let destination = std::str::from_utf8(dest).ok().and_then(|dest| Destination::parse(dest, self.service));
        let destination = destination.ok_or(HeadError::Destination)?;
        // For the log only.
        let flow = self.flow.map(|flow| stream_flow(&flow)).unwrap_or_default();
        Ok(StreamRequest { destination, flow })
    }
}

/// The first message towards the edge (section 7.2).
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseHead {
    /// An interim answer (1xx other than 101); another head follows. Only with the extension `interim`.
    Interim {
        /// 1xx.
        status: StatusCode,
        /// The origin's headers.
        headers: HeaderMap,
    },
    /// The answer. 101: a WebSocket was accepted. To a byte stream always 200 without headers.
    Answer {
        /// The origin's status.
        status: StatusCode,
        /// The origin's headers; hop-by-hop ones are still there.
        headers: HeaderMap,
        /// The body is framed ([`framing`]), so that trailers can follow it.
        framed: bool,
    },
    /// No answer of the origin.
    Failed(OriginError),
    /// Too many flows at once, and how the agent puts it.
    FlowLimited(String),
}

impl ResponseHead {
    /// Signature, version and message for an answer, interim or not.
    pub fn encode_answer(status: StatusCode, headers: &HeaderMap, framed: bool) -> Bytes {
        let mut entries = Entries::with_capacity(headers.len() + 2);
        entries.push(Entry::plain(STATUS, status.as_str().as_bytes()));
        for (name, value) in headers {
            if !is_reserved(name) {
                entries.push(Entry::header(name, value));
            }
        }
        if framed {
            entries.push(Entry::plain(FRAMED, b"1"));
        }
        Self::encode("", &entries)
    }

    /// Signature, version and message for a byte stream that is connected.
    pub fn encode_connected() -> Bytes {
        Self::encode("", &Entries::with_capacity(0))
    }

    /// Signature, version and message for a failure; the kind of fault is told only to an edge that asked for it.
    pub fn encode_failure(error: &OriginError, extensions: Extensions) -> Bytes {
        let mut entries = Entries::with_capacity(1);
        if extensions.faults {
            entries.push(Entry::plain(FAULT, error.fault.name().as_bytes()));
        }
        // An empty text would read as success.
        let text = fault_text(&error.text);
        Self::encode(if text.is_empty() { error.fault.name() } else { &text }, &entries)
    }

    /// Signature, version and message for a byte stream refused because there are too many flows.
    pub fn encode_flow_limited(text: &str) -> Bytes {
        let mut entries = Entries::with_capacity(1);
        entries.push(Entry::plain(FLOW_LIMITED, b"true"));
        // An empty text would read as success.
        let text = fault_text(text);
        Self::encode(if text.is_empty() { "too many flows" } else { &text }, &entries)
    }

    fn encode(error: &str, entries: &Entries<'_>) -> Bytes {
        // Root pointer, the struct's own two words.
        let mut message = builder(3 + metadata::text_words(error.len()) + entries.words());
        let mut root = message.init_root::<connect_response::Builder<'_>>();
        if !error.is_empty() {
            root.set_error(error);
        }
        if entries.count() > 0 {
            entries.write(root.init_metadata(entries.count()));
        }
        stream::write(&PREAMBLE, &message)
    }

    /// Takes a whole head off the front of `buffer`; `None`: more bytes are needed. What is left is body, or the next head.
    ///
    /// `kind` is that of the request; `None`: it was a byte stream. Headers that are the protocol's own are left out.
    pub fn decode(kind: Option<Kind>, buffer: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let Some(bytes) = take_message(buffer)? else { return Ok(None) };
        let message = stream::read(&bytes)?;
        let root: connect_response::Reader<'_> = message.get_root()?;

        let list = root.get_metadata()?;
        let mut headers = metadata::map_for(list);
        let mut status = None;
        let (mut framed, mut flow_limited) = (false, false);
        let mut fault = OriginFault::Unknown;
        metadata::read(&bytes, list, |key, value| {
            if let Some(name) = metadata::header_name(key)? {
                if !is_reserved(&name) {
                    metadata::append(&mut headers, name, value)?;
                }
            } else if key == STATUS.as_bytes() {
                let code = StatusCode::from_bytes(&value).map_err(|_| HeadError::Malformed("the status"))?;
                status = Some(code);
            } else if key == FRAMED.as_bytes() {
                framed = &*value == b"1";
            } else if key == FLOW_LIMITED.as_bytes() {
                flow_limited = &*value == b"true";
            } else if key == FAULT.as_bytes() {
                fault = std::str::from_utf8(&value).map_or(OriginFault::Unknown, OriginFault::from_name);
            }
            Ok(())
        })?;

        let error = root.get_error()?.as_bytes();
        if !error.is_empty() {
            let text = fault_text(&String::from_utf8_lossy(error)).into_owned();
            return Ok(Some(if flow_limited {
                Self::FlowLimited(text)
            } else {
                Self::Failed(OriginError { fault, text })
            }));
        }
        if kind.is_none() {
            return Ok(Some(Self::Answer { status: StatusCode::OK, headers: HeaderMap::new(), framed: false }));
        }
        let status = status.ok_or(HeadError::Malformed("the status"))?;
        Ok(Some(match status {
            StatusCode::SWITCHING_PROTOCOLS if kind != Some(Kind::WebSocket) => {
                return Err(HeadError::Malformed("the status"));
            }
            StatusCode::SWITCHING_PROTOCOLS => Self::Answer { status, headers, framed },
            _ if status.is_informational() => Self::Interim { status, headers },
            _ => Self::Answer { status, headers, framed },
        }))
    }
}

fn builder(words: usize) -> Builder<HeapAllocator> {
    let words = u32::try_from(words).unwrap_or(capnp::message::SUGGESTED_FIRST_SEGMENT_WORDS);
    Builder::new(HeapAllocator::new().first_segment_words(words))
}

/// Cuts preamble and message off the front of `buffer` and gives the message.
fn take_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, HeadError> {
    if !buffer.starts_with(&DATA_SIGNATURE) {
        return if DATA_SIGNATURE.starts_with(buffer) { Ok(None) } else { Err(HeadError::Signature) };
    }
    let Some(rest) = buffer.get(PREAMBLE.len()..) else { return Ok(None) };
    match stream::message_length(rest, MAX_MESSAGE) {
        Ok(Some(length)) if length <= rest.len() => {
            buffer.advance(PREAMBLE.len());
            Ok(Some(buffer.split_to(length).freeze()))
        }
        Ok(_) => Ok(None),
        Err(refusal) => Err(HeadError::TooLong(refusal.to_string())),
    }
}

#[cfg(test)]
mod tests;

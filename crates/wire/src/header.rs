//! Headers of the HTTP/2 transport (sections 4.1 and 5): protocol names, the serialized set, who made an answer.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::{Extensions, OriginError};

/// Says what a stream is; one of the `UPGRADE_…` values (section 4.1).
pub const UPGRADE: HeaderName = HeaderName::from_static("cf-cloudflared-proxy-connection-upgrade");
/// Value of [`UPGRADE`]: the control stream.
pub const UPGRADE_CONTROL: HeaderValue = HeaderValue::from_static("control-stream");
/// Value of [`UPGRADE`]: a WebSocket.
pub const UPGRADE_WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Value of [`UPGRADE`]: a configuration push.
pub const UPGRADE_CONFIGURATION: HeaderValue = HeaderValue::from_static("update-configuration");
/// Present and not empty on TCP streams (section 5.5).
pub const PROXY_SRC: HeaderName = HeaderName::from_static("cf-cloudflared-proxy-src");
/// The origin's headers of an answer, serialized (section 5.3).
pub const RESPONSE_HEADERS: HeaderName = HeaderName::from_static("cf-cloudflared-response-headers");
/// Who made the answer, a [`ResponseMeta`].
pub const RESPONSE_META: HeaderName = HeaderName::from_static("cf-cloudflared-response-meta");
/// The agent's trace of an answer, base64.
pub const TRACING: HeaderName = HeaderName::from_static("cf-int-cloudflared-tracing");
/// Turns on tracing for a request.
pub const TRACE_ID: HeaderName = HeaderName::from_static("cf-trace-id");
/// [`Extensions::HEADER`] as a header name.
pub const EXTENSIONS: HeaderName = HeaderName::from_static(Extensions::HEADER);

/// What a stream towards the agent is (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Configuration push (section 11.2).
    Configuration,
    /// The control stream.
    Control,
    /// A request of this kind.
    Exchange(crate::Kind),
}

impl StreamKind {
    /// Looks at the two headers in the protocol's order.
    pub fn of(headers: &HeaderMap) -> Self {
        let _ = headers;
        todo!()
    }
}

/// How many and how long headers may be when a serialized set is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pairs.
    pub count: usize,
    /// Bytes of all names and values together.
    pub bytes: usize,
}

/// Why a serialized header set, or a meta header, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HeaderError(pub &'static str);

/// Packs an origin's headers into the value of [`RESPONSE_HEADERS`]; names that [`is_reserved`] are left out.
pub fn serialize(headers: &HeaderMap) -> HeaderValue {
    let _ = headers;
    todo!()
}

/// Unpacks the value of [`RESPONSE_HEADERS`]; names that [`is_reserved`] are left out.
pub fn deserialize(value: &[u8], limits: Limits) -> Result<HeaderMap, HeaderError> {
    let _ = (value, limits);
    todo!()
}

/// Names that an origin may not send through a tunnel (section 5.2).
pub fn is_reserved(name: &HeaderName) -> bool {
    let _ = name;
    todo!()
}

/// Removes what [`is_reserved`].
pub fn strip_reserved(headers: &mut HeaderMap) {
    let _ = headers;
    todo!()
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
    /// The header's value; the fault is told only to an edge that asked for it.
    pub fn to_value(&self, extensions: Extensions) -> HeaderValue {
        let _ = extensions;
        todo!()
    }

    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Result<Self, HeaderError> {
        let _ = value;
        todo!()
    }
}

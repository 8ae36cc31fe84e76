use http::HeaderMap;

/// What a stream towards the agent carries (sections 4.1 and 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An HTTP request and its answer.
    Http,
    /// A WebSocket: an HTTP request, and once it is accepted raw WebSocket bytes both ways in the two bodies.
    WebSocket,
    /// A raw byte stream to a literal `ip:port` (the request's authority).
    Tcp,
}

/// Why the agent has no answer of the origin to give, as far as it can tell.
///
/// A reference agent says nothing over HTTP/2 and free text over QUIC: that is [`OriginFault::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginFault {
    /// The origin's machine answered that nobody listens there.
    Refused,
    /// No answer to the attempt to connect within the connect time-out.
    ConnectTimeout,
    /// The name does not resolve, or there is no route to the address.
    Unreachable,
    /// The TLS handshake with the origin failed.
    TlsHandshake,
    /// The origin's certificate is not one that the rule trusts.
    TlsCertificate,
    /// Connected, but no response head within the time allowed.
    ResponseTimeout,
    /// The origin closed the connection, or reset it, before it answered.
    Closed,
    /// What the origin sent is not HTTP.
    Nonsense,
    /// The agent cannot serve such a request, for example a service kind it does not have.
    Unsupported,
    /// Anything else, and all that a reference agent says.
    Unknown,
}

/// The agent could not get an answer from the origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct OriginError {
    /// What went wrong, as a kind that decides the visitor's status code.
    pub fault: OriginFault,
    /// The same for people; empty when the peer gave none. Never holds a secret.
    pub text: String,
}

impl OriginError {
    /// An error of this kind with a sentence for people.
    pub fn new(fault: OriginFault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }
}

/// Why an exchange brought no response head.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection was lost, refused the stream or is draining, and the agent has certainly not seen the request.
    #[error("the connection was gone before the request left: {0}")]
    NotSent(String),
    /// The connection was lost after the request may have reached the agent.
    #[error("the connection was lost while the request was under way: {0}")]
    Lost(String),
    /// The agent answered that the origin gave no answer.
    #[error("the agent could not get an answer from the origin: {0}")]
    Origin(#[source] OriginError),
    /// The agent's answer breaks the protocol.
    #[error("the agent's answer breaks the tunnel protocol: {0}")]
    Protocol(String),
    /// The visitor's own body failed while it was being sent (the visitor left or broke the framing).
    #[error("the request's body ended early: {0}")]
    RequestBody(String),
}

/// Hop-by-hop headers, which describe one connection and never travel on (RFC 9110 section 7.6.1).
pub(crate) const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "upgrade"];

/// Removes hop-by-hop headers, among them those that `Connection` names. `transfer-encoding` goes as well.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(http::header::TRANSFER_ENCODING);
}

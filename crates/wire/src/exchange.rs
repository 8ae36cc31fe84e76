use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;

use crate::Body;
use crate::body::Promise;
use crate::header as wire_header;

/// What kind of HTTP a stream towards the agent carries (sections 4.1 and 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An HTTP request and its answer.
    Http,
    /// A WebSocket: an HTTP request, and once it is accepted raw WebSocket bytes both ways in the two bodies.
    WebSocket,
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
    /// The connection was lost, refused the stream, is draining or cannot carry such a thing, and the agent has certainly not
    /// seen the request.
    #[error("the connection did not take it: {0}")]
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
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRANSFER_ENCODING
        | header::UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

/// Removes hop-by-hop headers, among them those that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        // These name no header but say what becomes of the connection, and are nearly all there is.
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close"))
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    wire_header::strip(headers, is_hop_by_hop);
}

/// Removes hop-by-hop headers but for `te: trailers`, without which no origin sends trailers.
pub(crate) fn strip_hop_by_hop_of_request(headers: &mut HeaderMap) {
    let trailers = names_token(headers, &header::TE, "trailers");
    strip_hop_by_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes a request's head fit to travel: no hop-by-hop header but `te: trailers`, none of the protocol's own; a body's
/// length if it is known.
pub(crate) fn clean_request(kind: Kind, head: &mut Parts, body: &Body) {
    let headers = &mut head.headers;
    strip_hop_by_hop_of_request(headers);
    wire_header::strip_reserved(headers);
    match kind {
        Kind::Http => {
            let length = body.size_hint().exact().filter(|length| *length > 0);
            if let (Some(length), header::Entry::Vacant(entry)) = (length, headers.entry(header::CONTENT_LENGTH)) {
                entry.insert(HeaderValue::from(length));
            }
        }
        // Visitors over HTTP/2 and HTTP/3 ask for a WebSocket with CONNECT; agents speak HTTP/1.1 for it.
        Kind::WebSocket => {
            head.method = Method::GET;
            headers.remove(header::CONTENT_LENGTH);
        }
    }
}

/// Makes an answer's headers fit to travel. Those that make an accepted WebSocket recognisable stay.
pub(crate) fn clean_answer(status: StatusCode, headers: &mut HeaderMap) {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(headers);
        return;
    }
    let kept = [header::CONNECTION, header::UPGRADE].map(|name| (headers.remove(&name), name));
    strip_hop_by_hop(headers);
    for (value, name) in kept {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// The request waits for a 100 before its body is sent.
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    names_token(headers, &header::EXPECT, "100-continue")
}

/// `cookie` fields that HTTP/2 and HTTP/3 may have split go to the origin as one (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (fields.next(), fields.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for field in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(field.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).expect("header values joined by a semicolon are a header value");
    headers.insert(header::COOKIE, joined);
}

/// What an answer's head promises of its body.
pub(crate) fn answer_promise(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<Promise, BadLength> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Promise::Open);
    }
    if *method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok(Promise::Nothing);
    }
    length_promise(headers)
}

/// What `content-length` promises, without regard to method and status.
pub(crate) fn length_promise(headers: &HeaderMap) -> Result<Promise, BadLength> {
    let mut promise = Promise::Open;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        // Only digits: `u64::from_str` alone would take a leading plus sign.
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse().ok()).map(Promise::Bytes).ok_or(BadLength)?;
        if promise != Promise::Open && promise != length {
            return Err(BadLength);
        }
        promise = length;
    }
    Ok(promise)
}

/// `content-length` is not a number, or several different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("content-length is not one number")]
pub(crate) struct BadLength;

fn names_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn hop_by_hop_headers_go_and_te_trailers_stays() {
        let mut request = http::Request::new(()).into_parts().0;
        request.headers = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("cf-cloudflared-proxy-src", "visitor"),
            ("cf-cloudflared-snicket", "faults"),
            ("accept", "*/*"),
        ]);
        clean_request(Kind::Http, &mut request, &Body::full("hello"));
        assert_eq!(request.headers, headers(&[("te", "trailers"), ("accept", "*/*"), ("content-length", "5")]));
    }

    #[test]
    fn an_accepted_websocket_keeps_what_makes_it_one() {
        let pairs = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")];
        let mut answer = headers(&pairs);
        answer.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        clean_answer(StatusCode::SWITCHING_PROTOCOLS, &mut answer);
        assert_eq!(answer, headers(&pairs));
        clean_answer(StatusCode::OK, &mut answer);
        assert_eq!(answer, headers(&[("sec-websocket-accept", "x")]));
    }

    #[test]
    fn cookies_are_joined_in_order() {
        let mut request = HeaderMap::new();
        join_cookies(&mut request);
        assert!(request.is_empty());
        for cookie in ["a=1", "b=2; c=3", "d=4"] {
            request.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut request);
        assert_eq!(request.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn content_length_must_be_one_number() {
        assert_eq!(length_promise(&HeaderMap::new()), Ok(Promise::Open));
        assert_eq!(length_promise(&headers(&[("content-length", "12")])), Ok(Promise::Bytes(12)));
        for bad in ["", "+1", "-1", "0x1", "1, 1", "18446744073709551616"] {
            let mut map = HeaderMap::new();
            map.insert(header::CONTENT_LENGTH, HeaderValue::from_static(bad));
            assert_eq!(length_promise(&map), Err(BadLength), "{bad}");
        }
        let mut twice = headers(&[("content-length", "1")]);
        twice.append(header::CONTENT_LENGTH, HeaderValue::from_static("1"));
        assert_eq!(length_promise(&twice), Ok(Promise::Bytes(1)));
        twice.append(header::CONTENT_LENGTH, HeaderValue::from_static("2"));
        assert_eq!(length_promise(&twice), Err(BadLength));
    }

    #[test]
    fn answers_without_a_body_promise_nothing() {
        let long = headers(&[("content-length", "99")]);
        assert_eq!(answer_promise(&Method::HEAD, StatusCode::OK, &long), Ok(Promise::Nothing));
        assert_eq!(answer_promise(&Method::GET, StatusCode::NOT_MODIFIED, &long), Ok(Promise::Nothing));
        assert_eq!(answer_promise(&Method::GET, StatusCode::OK, &long), Ok(Promise::Bytes(99)));
        assert_eq!(answer_promise(&Method::GET, StatusCode::SWITCHING_PROTOCOLS, &long), Ok(Promise::Open));
    }
}

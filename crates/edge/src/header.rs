//! What becomes of the header on its way: a visitor is never believed, and hop-by-hop fields stay on their hop.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use wire::Kind;

/// Fields that describe one connection (RFC 9110 section 7.6.1). `te` is handled apart.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Fields that say who the visitor is or what the edge found out. An origin believes them, so only the edge may set
/// them.
const EDGE_ONLY: [&str; 14] = [
    "cf-access-jwt-assertion",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ipcountry",
    "cf-ray",
    "cf-trace-id",
    "cf-visitor",
    "forwarded",
    "true-client-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Families of such fields: the tunnel protocol's own, and the tags of connectors.
const EDGE_ONLY_PREFIXES: [&str; 4] = ["cf-cloudflared-", "cf-int-", "cf-proxy-", "cf-warp-tag-"];

/// Families of fields in an answer that are the tunnel protocol's business.
const TUNNEL_ONLY_PREFIXES: [&str; 3] = ["cf-cloudflared-", "cf-int-", "cf-proxy-"];

const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
const CF_VISITOR: HeaderName = HeaderName::from_static("cf-visitor");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who has passed the request on (RFC 8586).
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Our name in [`CDN_LOOP`].
const LOOP_TOKEN: &str = "snicket";

/// A request that has been through an edge of ours this often goes in circles. Two or three times happens to origins
/// that ask each other through their public names.
const MAX_LOOPS: usize = 4;

/// What the edge tells the origin about a request.
pub(crate) struct Facts<'a> {
    pub(crate) kind: Kind,
    /// The visitor's address.
    pub(crate) visitor: &'a HeaderValue,
    pub(crate) secure: bool,
    pub(crate) ray: &'a HeaderValue,
}

/// The request has been through this edge too often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Looped;

/// Turns a visitor's header into the one that the origin is to see.
pub(crate) fn towards_origin(headers: &mut HeaderMap, facts: &Facts<'_>) -> Result<(), Looped> {
    check_passes(headers)?;
    let takes_trailers = wants_trailers(headers);
    strip_named(headers);
    strip(headers, |name| is_hop_by_hop(name) || is_forgery(name));
    // The host travels in the URI.
    headers.remove(header::HOST);
    join_cookies(headers);

    // Only now, since a visitor's `connection` could have named the field.
    headers.append(CDN_LOOP, HeaderValue::from_static(LOOP_TOKEN));
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // Without the field a reference agent asks for gzip by itself and unpacks the answer, which loses the length and
    // changes the bytes that the visitor sees.
    headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    headers.insert(CF_CONNECTING_IP, facts.visitor.clone());
    headers.insert(X_FORWARDED_FOR, facts.visitor.clone());
    let (scheme, told) =
        if facts.secure { ("https", r#"{"scheme":"https"}"#) } else { ("http", r#"{"scheme":"http"}"#) };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(CF_VISITOR, HeaderValue::from_static(told));
    headers.insert(CF_RAY, facts.ray.clone());
    if facts.kind == Kind::WebSocket {
        complete_websocket(headers);
    }
    Ok(())
}

/// Takes out of a visitor's trailers what many origins would add to the header.
pub(crate) fn trailers_towards_origin(trailers: &mut HeaderMap) {
    strip(trailers, is_forgery);
}

/// Turns an origin's header into the one that the visitor is to see.
pub(crate) fn towards_visitor(headers: &mut HeaderMap, ray: &HeaderValue) {
    strip_named(headers);
    strip(headers, |name| is_hop_by_hop(name) || is_of_the_tunnel(name));
    // An alternative service of the origin is not one of this edge.
    headers.remove(header::ALT_SVC);
    headers.insert(CF_RAY, ray.clone());
}

/// Holds a field that only HTTP/1.1 has, and that a request of any other version must not have (RFC 9113 section 8.2.2,
/// RFC 9114 section 4.2).
pub(crate) fn is_of_a_connection(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
    })
}

/// Removes what `connection` names.
fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, header::CONNECTION).filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok()).collect();
    for name in named {
        headers.remove(name);
    }
}

/// The tunnel protocol's business.
fn is_of_the_tunnel(name: &str) -> bool {
    name.starts_with("cf-") && TUNNEL_ONLY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Describes one connection.
fn is_hop_by_hop(name: &str) -> bool {
    name == "te" || HOP_BY_HOP.contains(&name)
}

fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// An origin could take the field for one that the edge has set, or that frames the request.
fn is_forgery(name: &str) -> bool {
    // Most fields are told by their first two letters.
    if !matches!(name.as_bytes(), [b'c', b'f', ..] | [b'f', b'o', ..] | [b't', b'r', ..] | [b'x', b'-' | b'_', ..])
        && !name.contains('_')
    {
        return false;
    }
    let reads_as = |other: &&str| name.len() == other.len() && begins_like(name, other);
    EDGE_ONLY.iter().any(reads_as)
        || EDGE_ONLY_PREFIXES.iter().any(|prefix| begins_like(name, prefix))
        || name.contains('_') && HOP_BY_HOP.iter().chain(&["content-length"]).any(reads_as)
}

/// Many origins keep the header in variables, whose names have `_` for `-`, so that two spellings become one field.
fn begins_like(name: &str, beginning: &str) -> bool {
    name.len() >= beginning.len()
        && name.bytes().zip(beginning.bytes()).all(|(byte, wanted)| byte == wanted || (byte == b'_' && wanted == b'-'))
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, header::TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Counts our earlier passes in `cdn-loop`.
fn check_passes(headers: &HeaderMap) -> Result<(), Looped> {
    let passes = tokens(headers, CDN_LOOP)
        .filter(|token| token.split(';').next().is_some_and(|own| own.trim().eq_ignore_ascii_case(LOOP_TOKEN)))
        .count();
    if passes < MAX_LOOPS { Ok(()) } else { Err(Looped) }
}

/// HTTP/2 and HTTP/3 may cut cookies into several fields; nothing else may see them like that (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (all.next(), all.next()) else { return };
    let mut joined = [first.as_bytes(), b"; ", second.as_bytes()].concat();
    for value in all {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

/// A WebSocket that did not come over HTTP/1.1 has no key (RFC 8441 section 5), but the origin's handshake needs one.
fn complete_websocket(headers: &mut HeaderMap) {
    headers.entry(header::SEC_WEBSOCKET_KEY).or_insert_with(|| text(random_key()));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
}

/// Base64 of 16 random bytes (RFC 6455 section 4.1).
fn random_key() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>())
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("made of printable ASCII by the caller")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn sent(fields: &[(&str, &str)], kind: Kind) -> HeaderMap {
        let mut headers = map(fields);
        let facts = Facts {
            kind,
            visitor: &HeaderValue::from_static("192.0.2.7"),
            secure: true,
            ray: &HeaderValue::from_static("00ff-LAB01"),
        };
        towards_origin(&mut headers, &facts).unwrap();
        headers
    }

    #[test]
    fn a_visitor_is_not_believed() {
        let forged: Vec<(&str, &str)> = EDGE_ONLY.into_iter().map(|name| (name, "forged")).collect();
        let headers = sent(&forged, Kind::Http);
        assert!(headers.values().all(|value| value != "forged"), "{headers:?}");
        assert_eq!(headers["cf-connecting-ip"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["cf-visitor"], r#"{"scheme":"https"}"#);
        assert_eq!(headers["cf-ray"], "00ff-LAB01");
    }

    #[test]
    fn an_odd_spelling_is_not_believed_either() {
        let forged = [
            "cf_connecting_ip",
            "x_forwarded-for",
            "X-Forwarded_Proto",
            "true_client_ip",
            "cf_warp_tag_id",
            "transfer_encoding",
            "content_length",
        ];
        let headers = sent(&forged.map(|name| (name, "forged")), Kind::Http);
        assert!(headers.values().all(|value| value != "forged"), "{headers:?}");
        let harmless = [("x_custom", "1"), ("content-length", "1"), ("x-forwarded-forest", "1")];
        let headers = sent(&harmless, Kind::Http);
        assert!(harmless.iter().all(|(name, value)| headers[*name] == value), "{headers:?}");
    }

    #[test]
    fn what_the_edge_says_cannot_be_named_away() {
        let headers = sent(&[("connection", "cdn-loop, cf-connecting-ip, cf-ray, x-forwarded-for")], Kind::Http);
        for name in ["cdn-loop", "cf-connecting-ip", "cf-ray", "x-forwarded-for"] {
            assert!(headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn trailers_are_not_believed_either() {
        let mut trailers = map(&[("cf-connecting-ip", "forged"), ("x_real_ip", "forged"), ("x-checksum", "1")]);
        trailers_towards_origin(&mut trailers);
        assert_eq!(trailers, map(&[("x-checksum", "1")]));
    }

    #[test]
    fn fields_of_the_tunnel_cannot_be_sent_by_visitors() {
        let forged = [
            "cf-cloudflared-proxy-connection-upgrade",
            "cf-cloudflared-proxy-src",
            "cf-cloudflared-snicket",
            "cf-warp-tag-id",
            "cf-int-x",
        ];
        let headers = sent(&forged.map(|name| (name, "forged")), Kind::Http);
        assert!(headers.values().all(|value| value != "forged"), "{headers:?}");
    }

    #[test]
    fn hop_by_hop_fields_stay() {
        let headers = sent(
            &[
                ("connection", "close, X-Private"),
                ("x-private", "1"),
                ("keep-alive", "1"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
                ("transfer-encoding", "chunked"),
                ("host", "a.example"),
            ],
            Kind::Http,
        );
        for gone in ["connection", "x-private", "keep-alive", "upgrade", "transfer-encoding", "host"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn the_agent_never_chooses_an_encoding() {
        assert_eq!(sent(&[], Kind::Http)["accept-encoding"], "identity");
        assert_eq!(sent(&[("accept-encoding", "br")], Kind::Http)["accept-encoding"], "br");
    }

    #[test]
    fn cookies_become_one_field() {
        let headers = sent(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], Kind::Http);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn a_websocket_gets_what_its_handshake_needs() {
        let made = sent(&[], Kind::WebSocket);
        assert_eq!(made["sec-websocket-version"], "13");
        assert_eq!(made["sec-websocket-key"].len(), 24);
        let kept = sent(&[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], Kind::WebSocket);
        assert_eq!(kept["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn circles_end() {
        let mut headers = HeaderMap::new();
        headers.insert("cdn-loop", HeaderValue::from_static("other, snickety"));
        for _ in 0..MAX_LOOPS {
            let facts = Facts {
                kind: Kind::Http,
                visitor: &HeaderValue::from_static("192.0.2.7"),
                secure: true,
                ray: &HeaderValue::from_static("0-A"),
            };
            assert_eq!(towards_origin(&mut headers, &facts), Ok(()));
        }
        let facts = Facts {
            kind: Kind::Http,
            visitor: &HeaderValue::from_static("192.0.2.7"),
            secure: true,
            ray: &HeaderValue::from_static("0-A"),
        };
        assert_eq!(towards_origin(&mut headers, &facts), Err(Looped));
    }

    #[test]
    fn answers_lose_what_is_not_the_visitors() {
        let mut headers = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("cf-cloudflared-response-meta", "{}"),
            ("alt-svc", "h3=\":1\""),
            ("cf-ray", "forged"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        towards_visitor(&mut headers, &HeaderValue::from_static("00ff-LAB01"));
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["cf-ray"], "00ff-LAB01");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }
}

//! What every host answers at [`PATH`]: how the visitor is seen from here. Programs that keep a name at their own
//! address read `ip` from it. Pure.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use geo::Country;
use http::{HeaderMap, HeaderValue, Method, Response, Version, header};
use registry::NodeId;
use wire::Body;

use crate::refusal::{self, Refusal};
use crate::visit::{Caller, KeyExchange, Tls};

/// Where visitors ask; no origin is asked for it.
pub(crate) const PATH: &str = "/cdn-cgi/trace";

/// Hexadecimal digits of the node's id that are shown: enough to tell some nodes from each other.
const NODE_DIGITS: usize = 8;

/// The country of whom nobody knows where they are.
const UNKNOWN: &str = "XX";

/// What is known of a visitor and this place.
pub(crate) struct Facts<'a> {
    pub(crate) node: NodeId,
    pub(crate) location: &'a str,
    /// The visitor's.
    pub(crate) country: Option<Country>,
    pub(crate) host: &'a str,
    pub(crate) caller: Caller,
    /// The visitor's address as it is told to origins.
    pub(crate) address: &'a HeaderValue,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) now: SystemTime,
}

/// The answer to who asks with this method.
///
/// # Errors
/// There is nothing to be done here but to look.
pub(crate) fn answer(method: &Method, facts: &Facts<'_>) -> Result<Response<Body>, &'static Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(&refusal::METHOD);
    }
    let text = text(facts);
    let length = HeaderValue::from(text.len());
    let mut answer = Response::new(if *method == Method::HEAD { Body::empty() } else { Body::full(text) });
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    fields.insert(header::CONTENT_LENGTH, length);
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::SERVER, HeaderValue::from_static("snicket"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(answer)
}

fn text(facts: &Facts<'_>) -> String {
    let node = facts.node.to_string();
    let address = facts.address.to_str().unwrap_or_default();
    let since = facts.now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = format!("{}.{:03}", since.as_secs(), since.subsec_millis());
    // A field has no line breaks, so that nobody can add a line.
    let program = facts.headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let tls = facts.caller.tls;
    let lines: [(&str, &str); 16] = [
        ("fl", node.get(..NODE_DIGITS).unwrap_or(&node)),
        ("h", facts.host),
        ("ip", address),
        ("ts", &time),
        ("visit_scheme", if tls.is_some() { "https" } else { "http" }),
        ("uag", program.as_deref().unwrap_or_default()),
        ("colo", &facts.location.to_ascii_uppercase()),
        ("sliver", "none"),
        ("http", protocol(facts.version)),
        ("loc", facts.country.as_ref().map_or(UNKNOWN, Country::as_str)),
        ("tls", tls.map_or("off", Tls::version)),
        ("sni", if tls.is_some_and(|tls| tls.has_name) { "plaintext" } else { "off" }),
        // There are no devices of ours yet.
        ("warp", "off"),
        ("gateway", "off"),
        ("rbi", "off"),
        ("kex", tls.map_or("none", |tls| key_exchange(tls.key_exchange))),
    ];
    let mut text = String::with_capacity(512);
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "http/1.0",
        Version::HTTP_2 => "http/2",
        Version::HTTP_3 => "http/3",
        _ => "http/1.1",
    }
}

fn key_exchange(exchange: KeyExchange) -> &'static str {
    match exchange {
        // As people know them, which is not in capitals throughout.
        KeyExchange::Group(rustls::NamedGroup::secp256r1) => "P-256",
        KeyExchange::Group(rustls::NamedGroup::secp384r1) => "P-384",
        KeyExchange::Group(group) => group.as_str().unwrap_or("unknown"),
        KeyExchange::Untold => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tls: Option<Tls>, version: Version, program: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_bytes(program).unwrap());
        text(&Facts {
            node: NodeId::from_bytes([0xab; 16]),
            location: "lab01",
            country: program.starts_with(b"curl").then(|| Country::new("is")).flatten(),
            host: "app.example.test",
            caller: Caller { remote: "192.0.2.7:1".parse().unwrap(), tls },
            address: &HeaderValue::from_static("192.0.2.7"),
            version,
            headers: &headers,
            now: UNIX_EPOCH + Duration::from_millis(1_800_000_000_042),
        })
    }

    #[test]
    fn says_what_is_known_in_the_order_that_programs_know() {
        assert_eq!(
            told(None, Version::HTTP_11, b"curl/8"),
            "fl=abababab\nh=app.example.test\nip=192.0.2.7\nts=1800000000.042\nvisit_scheme=http\nuag=curl/8\n\
             colo=LAB01\nsliver=none\nhttp=http/1.1\nloc=IS\ntls=off\nsni=off\nwarp=off\ngateway=off\nrbi=off\nkex=none\n"
        );
        let group = KeyExchange::Group(rustls::NamedGroup::X25519MLKEM768);
        let tls = Tls { version: rustls::ProtocolVersion::TLSv1_3, has_name: true, key_exchange: group };
        let text = told(Some(tls), Version::HTTP_3, b"\xff=\tx");
        for line in
            ["visit_scheme=https", "http=http/3", "tls=TLSv1.3", "sni=plaintext", "kex=X25519MLKEM768", "loc=XX"]
        {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
        assert_eq!(text.lines().count(), 16);
    }
}

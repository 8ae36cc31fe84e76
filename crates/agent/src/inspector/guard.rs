use std::net::SocketAddr;

use http::header::{CONTENT_TYPE, FORWARDED, HOST, HeaderName, ORIGIN, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Shows that a call was made on purpose: no form, link or picture of a page can send it, and no script of another
/// origin without being allowed to, which nobody is.
pub(super) const ON_PURPOSE: HeaderName = HeaderName::from_static("x-snicket-inspector");

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What relays add. Somebody who comes through one is not on this machine: the inspector was made the origin of a
/// tunnel, or stands behind a proxy.
const RELAYED: [HeaderName; 7] = [
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("cf-ray"),
    HeaderName::from_static("cf-warp-tag-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    FORWARDED,
    VIA,
];

/// Why a request to the inspector is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the inspector answers to its own address only; open it as http://localhost:PORT")]
    Host,
    #[error("the inspector is not reached through tunnels and proxies; open it on the machine of the agent")]
    Relayed,
    #[error("other pages may not read or call the inspector; open its own page")]
    Foreign,
    #[error("send the header x-snicket-inspector: 1 with calls that change something or show secrets")]
    NotOnPurpose,
    #[error("send the body as content-type: application/json")]
    NotJson,
}

impl Refused {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Relayed | Self::Foreign | Self::NotOnPurpose => StatusCode::FORBIDDEN,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// What a request asks for, as far as that decides who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// The page, which holds nothing yet.
    Page,
    /// What was recorded, secrets masked.
    Read,
    /// Secrets, or a change.
    Act,
}

/// Whether a request may have what it asks for. `address` is that of the inspector.
///
/// A name that somebody else's name server leads to this machine shows in `Host`, and a page of another origin (one on
/// another port of this machine too) in `Sec-Fetch-Site` and `Origin`.
pub(super) fn check(head: &Parts, right: Right, address: SocketAddr) -> Result<(), Refused> {
    let host = single(&head.headers, &HOST).ok_or(Refused::Host)?;
    let named = head.uri.authority().is_none_or(|authority| authority.as_str().as_bytes() == host);
    if !named || !is_own(host, address.port()) {
        return Err(Refused::Host);
    }
    if RELAYED.iter().any(|name| head.headers.contains_key(name)) {
        return Err(Refused::Relayed);
    }
    if right == Right::Page {
        return Ok(());
    }
    let trusted = match head.headers.get(FETCH_SITE).map(HeaderValue::as_bytes) {
        // Programs and old browsers do not send it.
        None | Some(b"same-origin") => true,
        // An address that was typed.
        Some(b"none") => right == Right::Read,
        Some(_) => false,
    };
    if !trusted {
        return Err(Refused::Foreign);
    }
    if let Some(origin) = head.headers.get(ORIGIN)
        && origin.as_bytes().strip_prefix(b"http://") != Some(host)
    {
        return Err(Refused::Foreign);
    }
    if right == Right::Act && !head.headers.contains_key(ON_PURPOSE) {
        return Err(Refused::NotOnPurpose);
    }
    let kind = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let json = kind.to_ascii_lowercase().starts_with(b"application/json");
    if head.method == Method::POST && !json {
        return Err(Refused::NotJson);
    }
    Ok(())
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().map(HeaderValue::as_bytes).filter(|_| values.next().is_none())
}

/// A name that no name server can lead here: `localhost`, or a loopback address, with the port.
fn is_own(host: &[u8], port: u16) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, given) = match host.rsplit_once(':') {
        Some((name, given)) if !given.ends_with(']') => (name, given.parse() == Ok(port)),
        _ => (host, port == 80),
    };
    given && matches!(name.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check_with(method: &str, right: Right, headers: &[(&str, &str)]) -> Result<(), Refused> {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, right, "127.0.0.1:4040".parse().unwrap())
    }

    #[test]
    fn only_the_own_host_is_answered() {
        for host in ["localhost:4040", "LOCALHOST:4040", "127.0.0.1:4040", "[::1]:4040"] {
            assert_eq!(check_with("GET", Right::Page, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "rebound.example:4040",
            "localhost:4041",
            "localhost",
            "127.0.0.1",
            "localhost.evil.example:4040",
            "evil.example#localhost:4040",
            "0.0.0.0:4040",
            "",
        ] {
            assert_eq!(check_with("GET", Right::Page, &[("host", host)]), Err(Refused::Host), "{host}");
        }
        assert_eq!(check_with("GET", Right::Page, &[]), Err(Refused::Host));
        let twice = [("host", "localhost:4040"), ("host", "evil.example")];
        assert_eq!(check_with("GET", Right::Page, &twice), Err(Refused::Host));
        let absolute = Request::get("http://evil.example/").header("host", "localhost:4040").body(()).unwrap();
        let address = "127.0.0.1:4040".parse().unwrap();
        assert_eq!(check(&absolute.into_parts().0, Right::Page, address), Err(Refused::Host));
    }

    #[test]
    fn what_came_through_a_tunnel_is_refused() {
        for name in ["cf-ray", "X-Forwarded-For", "forwarded", "via", "cf-warp-tag-id"] {
            let headers = [("host", "localhost:4040"), (name, "x")];
            assert_eq!(check_with("GET", Right::Page, &headers), Err(Refused::Relayed), "{name}");
        }
    }

    #[test]
    fn other_pages_may_neither_read_nor_call() {
        let host = ("host", "localhost:4040");
        for site in ["cross-site", "same-site", "odd"] {
            for right in [Right::Read, Right::Act] {
                let headers = [host, ("sec-fetch-site", site), ("x-snicket-inspector", "1")];
                assert_eq!(check_with("GET", right, &headers), Err(Refused::Foreign), "{site}");
            }
        }
        for origin in ["null", "http://localhost:3000", "https://localhost:4040", "http://127.0.0.1:4040"] {
            let headers = [host, ("origin", origin), ("x-snicket-inspector", "1")];
            assert_eq!(check_with("GET", Right::Read, &headers), Err(Refused::Foreign), "{origin}");
        }
        // A link from elsewhere opens the page, but an address of the JSON only if it is typed.
        assert_eq!(check_with("GET", Right::Page, &[host, ("sec-fetch-site", "cross-site")]), Ok(()));
        assert_eq!(check_with("GET", Right::Read, &[host, ("sec-fetch-site", "none")]), Ok(()));
        let typed = [host, ("sec-fetch-site", "none"), ("x-snicket-inspector", "1")];
        assert_eq!(check_with("GET", Right::Act, &typed), Err(Refused::Foreign));
    }

    #[test]
    fn changes_are_made_on_purpose_and_in_json() {
        let host = ("host", "localhost:4040");
        let json = ("content-type", "application/json; charset=utf-8");
        let own = [host, json, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:4040")];
        assert_eq!(check_with("POST", Right::Act, &own), Err(Refused::NotOnPurpose));
        assert_eq!(check_with("POST", Right::Act, &[&own[..], &[("x-snicket-inspector", "1")]].concat()), Ok(()));
        let curl = [host, ("x-snicket-inspector", "1")];
        assert_eq!(check_with("POST", Right::Act, &curl), Err(Refused::NotJson));
        let form = [&curl[..], &[("content-type", "text/plain")]].concat();
        assert_eq!(check_with("POST", Right::Act, &form), Err(Refused::NotJson));
        assert_eq!(check_with("DELETE", Right::Act, &curl), Ok(()));
    }
}

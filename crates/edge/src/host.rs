//! Which site a visitor asks for.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, Uri, header};

/// The longest name that DNS knows.
const MAX_NAME: usize = 253;

/// The host of a request: lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Name and port.
    authority: Authority,
    /// Bytes of the name.
    name: usize,
}

/// Why a request names no host that could be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request names more than one host")]
    Conflicting,
    #[error("the host is not a name")]
    Malformed,
}

impl Host {
    /// Reads the one host that the request line (or `:authority`) and `Host` agree on.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, HostError> {
        let mut named = headers.get_all(header::HOST).iter();
        let header = named.next().map(|value| value.to_str().map_err(|_| HostError::Malformed)).transpose()?;
        if named.next().is_some() {
            return Err(HostError::Conflicting);
        }
        let header = header.map(Self::parse).transpose()?;
        let authority = uri.authority().map(Authority::as_str).map(Self::parse).transpose()?;
        match (authority, header) {
            (Some(authority), Some(header)) if authority != header => Err(HostError::Conflicting),
            (Some(host), _) | (None, Some(host)) => Ok(host),
            (None, None) => Err(HostError::Missing),
        }
    }

    fn parse(text: &str) -> Result<Self, HostError> {
        // A bracketed address holds colons of its own.
        let (name, port) = match text.rfind(':') {
            Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
            _ => (text, None),
        };
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse::<u16>().map_err(|_| HostError::Malformed)?)
            }
            Some(_) => return Err(HostError::Malformed),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if !is_name(name) && !is_bracketed_address(name) {
            return Err(HostError::Malformed);
        }
        let mut authority = String::with_capacity(text.len());
        authority.push_str(name);
        authority.make_ascii_lowercase();
        if let Some(port) = port {
            // Writing to a string cannot fail.
            let _ = write!(authority, ":{port}");
        }
        let authority = Authority::from_maybe_shared(Bytes::from(authority)).map_err(|_| HostError::Malformed)?;
        Ok(Self { authority, name: name.len() })
    }

    /// The name alone, which chooses the tunnel.
    pub(crate) fn name(&self) -> &str {
        &self.authority.as_str()[..self.name]
    }

    /// The host is a bare address, which no tunnel can have.
    pub(crate) fn is_address(&self) -> bool {
        // One of version 6 stands in brackets.
        self.name().starts_with('[') || self.name().parse::<Ipv4Addr>().is_ok()
    }

    /// Name and port as the origin is to see them.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// Letters, digits, hyphens and, because such names are in use, underscores; no empty label.
fn is_name(name: &str) -> bool {
    let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    name.len() <= MAX_NAME && name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_label_byte))
}

fn is_bracketed_address(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(uri: &str, hosts: &[&str]) -> Result<String, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        Host::of(&uri.parse().unwrap(), &headers).map(|host| host.authority().to_string())
    }

    #[test]
    fn one_host_wherever_it_stands() {
        assert_eq!(of("/a", &["App.Example"]), Ok("app.example".into()));
        assert_eq!(of("https://App.Example/a", &[]), Ok("app.example".into()));
        assert_eq!(of("http://app.example:8080/a", &["APP.example:8080"]), Ok("app.example:8080".into()));
        assert_eq!(of("/", &["app.example."]), Ok("app.example".into()));
        assert_eq!(of("/", &["app_1.example.:443"]), Ok("app_1.example:443".into()));
        assert_eq!(of("/", &["[::1]:8080"]), Ok("[::1]:8080".into()));
        assert_eq!(of("/", &["127.0.0.1"]), Ok("127.0.0.1".into()));
        assert_eq!(of("/", &["app.example:"]), Ok("app.example".into()));
    }

    #[test]
    fn none_or_more_than_one_is_refused() {
        assert_eq!(of("/", &[]), Err(HostError::Missing));
        assert_eq!(of("/", &["a.example", "a.example"]), Err(HostError::Conflicting));
        assert_eq!(of("http://a.example/", &["b.example"]), Err(HostError::Conflicting));
        assert_eq!(of("http://a.example/", &["a.example:81"]), Err(HostError::Conflicting));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(254);
        for host in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "user@a.example",
            "a.example:80:80",
            "a.example:x",
            "a:99999",
            "[::1",
            "[x]",
            &long,
        ] {
            assert_eq!(of("/", &[host]), Err(HostError::Malformed), "{host}");
        }
    }

    #[test]
    fn addresses_are_told_from_names() {
        let is_address = |host: &str| Host::parse(host).unwrap().is_address();
        assert!(is_address("127.0.0.1:80"));
        assert!(is_address("[::1]"));
        assert!(!is_address("1.example"));
    }
}

//! The ORIGIN argument: what a person means by `3000`, `host:port` or a URL.

use std::fmt;
use std::str::FromStr;

/// A service as an ingress rule writes it (section 14.2 of the protocol page).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(String);

/// The argument is none of the forms that we know.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an origin: {why}; write a port (3000), host:port, or a URL such as http://localhost:3000")]
pub(crate) struct NotAnOrigin {
    text: String,
    why: &'static str,
}

impl Origin {
    /// The page that the agent itself serves.
    pub(crate) fn hello() -> Self {
        Self("hello_world".to_owned())
    }

    /// The text of the service in an ingress rule.
    pub(crate) fn service(&self) -> &str {
        &self.0
    }

    /// Whether this is the built-in page.
    pub(crate) fn is_hello(&self) -> bool {
        self.0 == "hello_world"
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_hello() { "the built-in hello page" } else { &self.0 })
    }
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let refuse = |why| NotAnOrigin { text: text.to_owned(), why };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            return port
                .map(|port| Self(format!("http://localhost:{port}")))
                .ok_or_else(|| refuse("a port is 1 to 65535"));
        }
        if matches!(text, "hello_world" | "hello-world" | "hello") {
            return Ok(Self::hello());
        }
        if text.starts_with("unix:") || text.starts_with("unix+tls:") || text.starts_with("http_status:") {
            return Ok(Self(text.to_owned()));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if !matches!(scheme, "http" | "https" | "ws" | "wss") {
            return Err(refuse("only http and https services are carried"));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(refuse("an origin has no path; the visitor's path is used"));
        }
        if authority.contains('@') {
            return Err(refuse("an origin has no user name or password"));
        }
        let parsed = url::Url::parse(&format!("{scheme}://{authority}"))
            .map_err(|_| refuse("the host or the port is malformed"))?;
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(refuse("the host is missing"));
        }
        if parsed.port() == Some(0) {
            return Err(refuse("a port is 1 to 65535"));
        }
        Ok(Self(format!("{scheme}://{authority}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_a_service() {
        for (text, service) in [
            ("3000", "http://localhost:3000"),
            ("localhost:3000", "http://localhost:3000"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("web", "http://web"),
            ("http://localhost:3000/", "http://localhost:3000"),
            ("https://localhost", "https://localhost"),
            ("unix:/run/web.sock", "unix:/run/web.sock"),
            ("hello-world", "hello_world"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().service(), service, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "empty"),
            ("0", "1 to 65535"),
            ("65536", "1 to 65535"),
            ("localhost:0", "1 to 65535"),
            ("localhost:abc", "malformed"),
            ("ftp://localhost", "only http and https"),
            ("http://localhost/app", "no path"),
            ("http://me:secret@localhost", "user name"),
            ("http://", "malformed"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

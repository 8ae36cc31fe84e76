use std::fmt;

/// Which hostnames a rule serves: one name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// As written.
    text: String,
    /// Lower case, in the ASCII form of international names; with the leading dot when `wildcard`.
    name: String,
    wildcard: bool,
}

impl HostPattern {
    /// Reads `app.example.test` or `*.example.test`. An empty text and `*` mean every host: `Ok(None)`.
    ///
    /// # Errors
    /// The reason.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() || text == "*" {
            return Ok(None);
        }
        let (wildcard, rest) = match text.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') && rest.len() > 1 => (true, &rest[1..]),
            Some(_) => {
                return Err(format!("{text:?}: after the star must come a dot and a name, as in *.example.test"));
            }
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(format!("{text:?}: a star may only be the first character, as in *.example.test"));
        }
        if without_port(rest) != rest {
            return Err(format!("{text:?}: a hostname has no port; write {:?}", without_port(text)));
        }
        let ascii = ascii_form(rest);
        let name = if wildcard { format!(".{ascii}") } else { ascii };
        Ok(Some(Self { text: text.to_owned(), name, wildcard }))
    }

    /// Whether the pattern covers this host (lower case, no port). `*.example.test` covers names of any depth, not
    /// `example.test` itself.
    pub fn matches(&self, host: &str) -> bool {
        if self.wildcard { host.len() > self.name.len() && host.ends_with(&self.name) } else { host == self.name }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The host of `host:port` or `[v6]:port`; a host without port is left as it is.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|digit| digit.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// The form in which a name travels. What is no domain name is compared as it is.
fn ascii_form(name: &str) -> String {
    match url::Host::parse(name) {
        Ok(url::Host::Domain(domain)) => domain,
        Ok(url::Host::Ipv4(_) | url::Host::Ipv6(_)) | Err(_) => name.to_lowercase(),
    }
}

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a name of the kind wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(Cow<'static, str>);

impl BadName {
    fn new(problem: &'static str) -> Self {
        Self(Cow::Borrowed(problem))
    }
}

/// A host name in the one form in which we keep and compare it: lower case, punycode, no trailing dot.
///
/// The first label may be `*`, which stands for one or more labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(Box<str>);

impl Hostname {
    /// RFC 1035 section 2.3.4, without the root's dot.
    pub const MAX_BYTES: usize = 253;
    /// RFC 1035 section 2.3.4.
    pub const MAX_LABEL_BYTES: usize = 63;

    /// Reads a name as people write it: any case, Unicode, one trailing dot, `*` as the first label.
    ///
    /// # Errors
    /// Empty, too long, a label that is empty, too long or of other characters than letters, digits, `-` and `_`, a `*`
    /// elsewhere, or an IP address.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // A name in Unicode is never shorter in bytes than a quarter of its punycode; this bounds the work below.
        if rest.len() > 4 * Self::MAX_BYTES {
            return Err(BadName::new("a host name is at most 253 characters long"));
        }
        let ascii = if rest.is_ascii() && !rest.to_ascii_lowercase().contains("xn--") {
            rest.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(rest)
                .map_err(|_| BadName::new("not a host name: its international letters have no valid ASCII form"))?
        };
        check_labels(&ascii)?;
        let name = if wildcard { format!("*.{ascii}") } else { ascii };
        if name.len() > Self::MAX_BYTES {
            return Err(BadName::new("a host name is at most 253 characters long"));
        }
        Ok(Self(name.into()))
    }

    /// A value in front of every name, to begin a range with. Not a name itself.
    pub(crate) fn lowest() -> Self {
        Self(Box::from(""))
    }

    /// A name that was within a zone when it was written, in full again.
    pub(crate) fn joined(host: &str, zone: &Self) -> Self {
        Self(format!("{host}.{zone}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a wildcard's `*` stands before; `None` for an ordinary name.
    pub fn wildcard_parent(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// Whether this name is the other one or lies under it.
    pub fn is_within(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// This name with one more label, which is not `*`, in front.
    ///
    /// # Errors
    /// The label has a dot or is not one, or the whole is too long.
    pub fn child(&self, label: &str) -> Result<Self, BadName> {
        let child = Self::parse(&format!("{label}.{self}"))?;
        // Counted only now, since dots have more forms in Unicode than the one.
        if child.wildcard_parent().is_some() || child.0.matches('.').count() != self.0.matches('.').count() + 1 {
            return Err(BadName::new("one label is wanted: letters, digits and hyphens, without a dot"));
        }
        Ok(child)
    }
}

fn check_labels(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::new("a host name must not be empty"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(BadName::new("a host name must not have an empty label (two dots, or a dot in front)"));
        }
        if label.len() > Hostname::MAX_LABEL_BYTES {
            return Err(BadName::new("a label of a host name is at most 63 characters long"));
        }
        if !label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
            return Err(BadName::new(
                "a host name has letters, digits, hyphens and dots only, and `*` only as its whole first label",
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(BadName::new("a label of a host name must not begin or end with a hyphen"));
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadName::new("an IP address is not a host name"));
    }
    Ok(())
}

impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Hostname {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0.into()
    }
}

/// What people call a tunnel: 1 to 255 characters, none of them a control character, no space at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TunnelName(Box<str>);

impl TunnelName {
    /// Long enough for a whole host name, which is what a quick tunnel is called.
    pub const MAX_CHARS: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    /// Empty, too long, with a control character, with a space at either end, or of the form of a UUID: commands take
    /// either a name or an id, and must be able to tell them apart.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if text.is_empty() {
            return Err(BadName::new("a tunnel's name must not be empty"));
        }
        if text.len() > 4 * Self::MAX_CHARS || text.chars().count() > Self::MAX_CHARS {
            return Err(BadName::new("a tunnel's name is at most 255 characters long"));
        }
        if text.chars().any(char::is_control) {
            return Err(BadName::new("a tunnel's name must not have control characters"));
        }
        if text.trim() != text {
            return Err(BadName::new("a tunnel's name must not begin or end with a space"));
        }
        if Uuid::try_parse(text).is_ok() {
            return Err(BadName::new("a tunnel's name must not look like a tunnel's id (a UUID)"));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TunnelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TunnelName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::parse(text)
    }
}

impl TryFrom<String> for TunnelName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}

impl From<TunnelName> for String {
    fn from(name: TunnelName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    #[test]
    fn a_host_name_has_one_form() {
        assert_eq!(host("App.Example.TEST.").as_str(), "app.example.test");
        assert_eq!(host("bücher.example").as_str(), "xn--bcher-kva.example");
        assert_eq!(host("*.EXAMPLE.test").as_str(), "*.example.test");
        assert_eq!(host("_acme.localhost").as_str(), "_acme.localhost");
        assert_eq!(host("XN--bcher-kva.example"), host("bücher.example"));
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(60).as_str(); 5].join(".");
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a:80",
            "*",
            "a.*.b",
            "*a.b",
            "*.*.b",
            "-a.b",
            "a-.b",
            "127.0.0.1",
            "[::1]",
            "a\0b",
            "a%2fb",
            "xn--a",
            &long_label,
            &long_name,
        ] {
            assert!(Hostname::parse(text).is_err(), "{text:?}");
        }
        assert!(Hostname::parse(&"ü".repeat(100_000)).is_err());
    }

    #[test]
    fn names_know_what_lies_under_them() {
        assert!(host("a.b.test").is_within(&host("b.test")));
        assert!(host("*.b.test").is_within(&host("b.test")));
        assert!(host("b.test").is_within(&host("b.test")));
        assert!(!host("ab.test").is_within(&host("b.test")));
        assert_eq!(host("b.test").child("a"), Ok(host("a.b.test")));
        for label in ["a.c", "a\u{3002}c", "a\u{ff0e}c", "*", "\u{ff0a}", ""] {
            assert!(host("b.test").child(label).is_err(), "{label}");
        }
    }

    #[test]
    fn tunnel_names_are_for_people() {
        assert_eq!(TunnelName::parse("Büro 2").unwrap().as_str(), "Büro 2");
        for text in ["", " a", "a ", "a\nb", "a\0", "11111111-2222-4333-8444-555555555555", &"x".repeat(256)] {
            assert!(TunnelName::parse(text).is_err(), "{text:?}");
        }
    }
}

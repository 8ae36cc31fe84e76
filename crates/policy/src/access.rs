use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::{Hashed, HeaderChange, Network, Rewrite};

/// The version of the document that this program writes; it reads no other.
const VERSION: u32 = 1;

/// Entries of each list of a document: more than anybody writes on a command line, and little to look through for each
/// request.
pub const MAX_LIST: usize = 64;

/// Who may visit a tunnel, and what the edge changes in their requests. Empty, it lets everybody in and changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct Access {
    /// Visitors come from one of these networks; from anywhere if there are none.
    pub allow: Vec<Network>,
    /// Visitors know this PIN.
    pub pin: Option<Hashed>,
    /// Visitors are one of these (RFC 7617), if there are any.
    pub basic: Vec<Basic>,
    /// What is set or removed in the header that the origin sees, in this order.
    pub headers: Vec<HeaderChange>,
    /// The first that fits changes the path that the origin sees.
    pub rewrite: Vec<Rewrite>,
}

/// A name and its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The name; it has no colon.
    pub user: String,
    /// The password.
    pub password: Hashed,
}

/// The same as JSON. An unknown key is a rule that would not be kept, so it is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<Network>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<Hashed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    basic: Vec<Basic>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rewrite: Vec<Rewrite>,
}

impl Access {
    /// Whether there is any rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether visitors may come from this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(address))
    }

    /// The path that the origin is to see, if a rule changes it.
    pub fn path(&self, path: &str) -> Option<String> {
        self.rewrite.iter().find_map(|rewrite| rewrite.apply(path))
    }

    /// Changes the header that the origin is to see.
    pub fn change(&self, headers: &mut HeaderMap) {
        self.headers.iter().for_each(|change| change.apply(headers));
    }
}

impl TryFrom<Document> for Access {
    type Error = String;

    fn try_from(document: Document) -> Result<Self, String> {
        let Document { version, allow, pin, basic, headers, rewrite } = document;
        if version != VERSION {
            return Err(format!("version {version} of access rules is not known here, only {VERSION}"));
        }
        if [allow.len(), basic.len(), headers.len(), rewrite.len()].into_iter().any(|length| length > MAX_LIST) {
            return Err(format!("a list of access rules has at most {MAX_LIST} entries"));
        }
        if let Some(bad) = basic.iter().find(|basic| !is_user(&basic.user)) {
            return Err(format!("{:?} is no user name: 1 to 128 letters, without a colon", bad.user));
        }
        Ok(Self { allow, pin, basic, headers, rewrite })
    }
}

impl From<Access> for Document {
    fn from(access: Access) -> Self {
        let Access { allow, pin, basic, headers, rewrite } = access;
        Self { version: VERSION, allow, pin, basic, headers, rewrite }
    }
}

impl Basic {
    /// Whether this may be a name (RFC 7617 section 2).
    pub fn is_user(name: &str) -> bool {
        is_user(name)
    }

    /// The name and password that a header shows, if it shows any.
    pub fn shown(headers: &HeaderMap) -> Option<(String, String)> {
        let text = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }
}

fn is_user(name: &str) -> bool {
    (1..=128).contains(&name.len()) && !name.contains(':') && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: serde_json::Value) -> Result<Access, String> {
        serde_json::from_value(document).map_err(|error| error.to_string())
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let access = Access {
            allow: vec!["192.0.2.0/24".parse().unwrap()],
            pin: Some(Hashed::with_iterations(b"1234", [7; 16], Hashed::MIN_ITERATIONS)),
            basic: vec![Basic {
                user: "ann".into(),
                password: Hashed::with_iterations(b"x", [8; 16], Hashed::MIN_ITERATIONS),
            }],
            headers: vec!["x-env: demo".parse().unwrap(), "-Cookie".parse().unwrap()],
            rewrite: vec!["/api=/v1".parse().unwrap()],
        };
        let text = serde_json::to_string(&access).unwrap();
        assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
        assert!(!text.contains("1234"));
        assert!(!format!("{access:?}").contains("pbkdf2"), "hashes are not printed");
        assert_eq!(read(json!({ "version": 1 })).unwrap(), Access::default());
    }

    #[test]
    fn what_would_not_be_kept_is_refused() {
        for document in [
            json!({}),
            json!({ "version": 2 }),
            json!({ "version": 1, "deny": [] }),
            json!({ "version": 1, "pin": "1234" }),
            json!({ "version": 1, "allow": ["10.0.0.0/8", "x"] }),
            json!({ "version": 1, "allow": vec!["10.0.0.0/8"; MAX_LIST + 1] }),
            json!({ "version": 1, "headers": ["host: x"] }),
            json!({ "version": 1, "rewrite": ["api=v1"] }),
        ] {
            assert!(read(document.clone()).is_err(), "{document}");
        }
    }

    #[test]
    fn credentials_are_read_as_they_are_shown() {
        let shown = |value: &str| {
            let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value.parse().unwrap())]);
            Basic::shown(&headers)
        };
        assert_eq!(shown("basic YW5uOnB3OjE="), Some(("ann".into(), "pw:1".into())));
        for none in ["Bearer YW5uOnB3", "Basic", "Basic YW5u", "Basic !", "Basic /w=="] {
            assert_eq!(shown(none), None, "{none}");
        }
    }
}

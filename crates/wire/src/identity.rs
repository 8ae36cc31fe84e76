//! Who serves a tunnel: secrets, tokens, credentials files and `cert.pem` (section 16.1).
//!
//! Nothing in here prints a secret: `Debug` leaves secrets out, errors never quote what they refuse, and only methods
//! named for it (`to_token`, `to_json`, `to_pem`) hand one out.

mod origin_cert;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rand::RngCore as _;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use origin_cert::OriginCert;

/// Bytes of the longest text that is read as a token, a credentials file or a `cert.pem`. A token has some 200, a
/// `cert.pem` of old with its certificates some 6,000.
pub const MAX_LENGTH: usize = 64 * 1024;

/// Why a token, a credentials file or a `cert.pem` was refused. Never quotes the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// More than [`MAX_LENGTH`] bytes.
    #[error("it has more than {MAX_LENGTH} bytes, so it is not a {0}")]
    TooLong(&'static str),
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Not base64 where base64 must be.
    #[error("{0} is not base64: copy it whole, without quotes or dots")]
    Base64(&'static str),
    /// Not a JSON object where one must be.
    #[error("{0} is not a JSON object")]
    Json(&'static str),
    /// A key is not there, or empty.
    #[error("the key `{0}` is missing or empty")]
    Missing(&'static str),
    /// A key holds something of another type.
    #[error("the key `{0}` is not a text")]
    NotText(&'static str),
    /// The tunnel's id is not one.
    #[error("the key `{0}` is not a tunnel id (a UUID)")]
    NotUuid(&'static str),
    /// No block of the right kind.
    #[error("there is no PEM block `ARGO TUNNEL TOKEN`: fetch a new file with the login command")]
    NoBlock,
    /// A block of a kind that does not belong here.
    #[error("there is a PEM block of an unknown kind: fetch a new file with the login command")]
    UnknownBlock,
    /// A block begins but does not end.
    #[error("a PEM block is cut short: fetch a new file with the login command")]
    CutShort,
}

/// The secret of a tunnel. Never printed; compared in constant time.
#[derive(Clone)]
pub struct TunnelSecret(Vec<u8>);

impl TunnelSecret {
    /// Bytes of a secret made here.
    pub const LENGTH: usize = 32;

    /// Wraps the raw bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A new secret of [`TunnelSecret::LENGTH`] bytes from the system's random source.
    pub fn generate() -> Self {
        let mut bytes = vec![0; Self::LENGTH];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Reads base64, as in tokens and files.
    pub fn from_base64(text: &str) -> Result<Self, IdentityError> {
        decode_base64(text.as_bytes(), "the secret").map(Self)
    }

    /// Base64, as in tokens and files.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// The raw bytes, for the wire and for hashing.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for TunnelSecret {
    fn eq(&self, other: &Self) -> bool {
        // Every byte is looked at whatever the first difference, so that time says nothing about it.
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

impl Eq for TunnelSecret {}

impl fmt::Debug for TunnelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelSecret(…)")
    }
}

/// What an agent needs to serve a tunnel: the content of a tunnel token, and of a credentials file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Owner of the tunnel.
    pub account_tag: String,
    /// The tunnel.
    pub tunnel: Uuid,
    /// Proves the right to serve it.
    pub secret: TunnelSecret,
    /// Acts as the region; absent at most edges.
    pub endpoint: Option<String>,
}

impl Credentials {
    /// Reads a credentials file. Keys that are not known are passed over.
    pub fn from_json(text: &[u8]) -> Result<Self, IdentityError> {
        Self::from_object(text, "a credentials file", ["AccountTag", "TunnelID", "TunnelSecret", "Endpoint"])
    }

    /// The content of a credentials file, secret included.
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "AccountTag": self.account_tag,
            "TunnelSecret": self.secret.to_base64(),
            "TunnelID": self.tunnel,
            "Endpoint": self.endpoint.as_deref().unwrap_or_default(),
        })
        .to_string()
    }

    /// Reads a tunnel token: either alphabet of base64, with or without padding, white space anywhere.
    pub fn from_token(text: &str) -> Result<Self, IdentityError> {
        let json = decode_base64(text.as_bytes(), "the token")?;
        if json.is_empty() {
            return Err(IdentityError::Empty);
        }
        Self::from_object(&json, "the token", ["a", "t", "s", "e"])
    }

    /// The tunnel token, secret included.
    pub fn to_token(&self) -> String {
        let mut object = serde_json::json!({ "a": self.account_tag, "t": self.tunnel, "s": self.secret.to_base64() });
        if let Some(endpoint) = &self.endpoint {
            object["e"] = endpoint.as_str().into();
        }
        STANDARD.encode(object.to_string())
    }

    fn from_object(text: &[u8], what: &'static str, keys: [&'static str; 4]) -> Result<Self, IdentityError> {
        let object = Object::parse(text, what)?;
        let [account_tag, tunnel, secret, endpoint] = keys;
        Ok(Self {
            account_tag: object.required(account_tag)?.to_owned(),
            tunnel: object.required(tunnel)?.parse().map_err(|_| IdentityError::NotUuid(tunnel))?,
            secret: TunnelSecret::from_base64(object.required(secret)?)?,
            endpoint: object.optional(endpoint)?.map(str::to_owned),
        })
    }
}

/// A tunnel token, see [`Credentials::from_token`].
impl FromStr for Credentials {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::from_token(text)
    }
}

/// A JSON object whose values are texts. The keys' case does not matter, as it does not to the reference agent.
struct Object(Map<String, Value>);

impl Object {
    fn parse(text: &[u8], what: &'static str) -> Result<Self, IdentityError> {
        if text.len() > MAX_LENGTH {
            return Err(IdentityError::TooLong(what));
        }
        // The parser's own message is dropped because it may quote the text.
        serde_json::from_slice(text).map(Self).map_err(|_| IdentityError::Json(what))
    }

    fn required(&self, key: &'static str) -> Result<&str, IdentityError> {
        self.optional(key)?.ok_or(IdentityError::Missing(key))
    }

    fn optional(&self, key: &'static str) -> Result<Option<&str>, IdentityError> {
        let folded = || self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        match self.0.get(key).or_else(folded) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(IdentityError::NotText(key)),
        }
    }
}

/// The standard alphabet, with or without padding and whatever the last bits are, as people paste it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn decode_base64(text: &[u8], what: &'static str) -> Result<Vec<u8>, IdentityError> {
    if text.len() > MAX_LENGTH {
        return Err(IdentityError::TooLong(what));
    }
    let standard: Vec<u8> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    LENIENT.decode(standard).map_err(|_| IdentityError::Base64(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            account_tag: "acc0123456789abcdef".into(),
            tunnel: Uuid::from_u128(0x11111111_2222_4333_8444_555555555555),
            // Bytes whose base64 has the letters that differ between the alphabets.
            secret: TunnelSecret::new(vec![0xfb, 0xff, 0xfe, 0x3e, 0x3f, 0xff, 0xf0]),
            endpoint: None,
        }
    }

    #[test]
    fn tokens_lead_back() {
        for endpoint in [None, Some("fed".to_owned())] {
            let credentials = Credentials { endpoint, ..credentials() };
            assert_eq!(Credentials::from_token(&credentials.to_token()), Ok(credentials.clone()));
            assert_eq!(Credentials::from_json(credentials.to_json().as_bytes()), Ok(credentials));
        }
    }

    #[test]
    fn tokens_may_be_pasted_carelessly() {
        let token = credentials().to_token();
        for careless in [
            format!("  {token}\r\n"),
            token.trim_end_matches('=').to_owned(),
            token.replace('+', "-").replace('/', "_"),
            format!("{}\n{}", &token[..64], &token[64..]),
        ] {
            assert_eq!(Credentials::from_token(&careless), Ok(credentials()), "{careless:?}");
        }
    }

    #[test]
    fn files_may_hold_more_and_other_case() {
        let text = br#"{"TunnelName":"x","accounttag":"a","TunnelSecret":"AAA=","TunnelID":"11111111-2222-4333-8444-555555555555"}"#;
        let read = Credentials::from_json(text).expect("is readable");
        assert_eq!((read.account_tag.as_str(), read.secret.as_bytes(), read.endpoint), ("a", &[0, 0][..], None));
    }

    #[test]
    fn refusals_say_what_is_wrong_and_nothing_secret() {
        let b64 = |json: &str| STANDARD.encode(json);
        for (token, error) in [
            (String::new(), IdentityError::Empty),
            ("a.b.c".into(), IdentityError::Base64("the token")),
            (b64("[]"), IdentityError::Json("the token")),
            (b64(r#"{"a":"x","t":"y"}"#), IdentityError::NotUuid("t")),
            (b64(r#"{"a":"","t":"y","s":""}"#), IdentityError::Missing("a")),
            (b64(r#"{"a":1}"#), IdentityError::NotText("a")),
            (
                b64(r#"{"a":"x","t":"11111111-2222-4333-8444-555555555555","s":"?hidden?"}"#),
                IdentityError::Base64("the secret"),
            ),
            ("A".repeat(MAX_LENGTH + 1), IdentityError::TooLong("the token")),
        ] {
            let refused = Credentials::from_token(&token).expect_err("is refused");
            assert_eq!(refused, error);
            assert!(!refused.to_string().contains("hidden"));
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", credentials());
        assert!(printed.contains("TunnelSecret(…)"), "{printed}");
    }

    #[test]
    fn secrets_are_random_and_long_enough() {
        let (one, other) = (TunnelSecret::generate(), TunnelSecret::generate());
        assert_eq!(one.as_bytes().len(), 32);
        assert_ne!(one, other);
        assert_eq!(TunnelSecret::from_base64(&one.to_base64()), Ok(one));
    }
}

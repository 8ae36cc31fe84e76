use std::ops::RangeInclusive;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Denial;

/// Keys in one set. A token that names none is tried with each, so their number bounds the work.
const MAX_KEYS: usize = 32;

/// What the verification takes, in bytes.
const MODULUS: RangeInclusive<usize> = 2048 / 8..=8192 / 8;

/// The keys that an issuer publishes for RS256: a JSON Web Key Set (RFC 7517).
#[derive(Debug)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    public: ParsedPublicKey,
}

/// Why a text holds no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It is something else.
    #[error("what is there is no JSON Web Key Set: {0}")]
    Json(#[from] serde_json::Error),
    /// There are too many.
    #[error("there are {0} keys, more than {MAX_KEYS}")]
    Many(usize),
    /// There are others at most.
    #[error("it holds no RSA key of 2048 to 8192 bits for signatures with RS256")]
    None,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Published>,
}

#[derive(Deserialize)]
struct Published {
    #[serde(default)]
    kid: Option<String>,
    kty: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl Keys {
    /// Reads a set. Keys of other kinds and for other purposes are passed over.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn from_json(json: &[u8]) -> Result<Self, KeysError> {
        let set: Set = serde_json::from_slice(json)?;
        if set.keys.len() > MAX_KEYS {
            return Err(KeysError::Many(set.keys.len()));
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Published::usable).collect();
        if keys.is_empty() { Err(KeysError::None) } else { Ok(Self(keys)) }
    }

    /// Whether there is a key for a token that names this one, or none.
    pub fn has(&self, id: Option<&str>) -> bool {
        self.named(id).next().is_some()
    }

    pub(super) fn verify(&self, id: Option<&str>, message: &[u8], signature: &[u8]) -> Result<(), Denial> {
        let mut outcome = Err(Denial::UnknownKey);
        for key in self.named(id) {
            if key.public.verify_sig(message, signature).is_ok() {
                return Ok(());
            }
            outcome = Err(Denial::Signature);
        }
        outcome
    }

    fn named<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }
}

impl Published {
    fn usable(self) -> Option<Key> {
        let other = |stated: &Option<String>, ours| stated.as_deref().is_some_and(|stated| stated != ours);
        if self.kty != "RSA" || other(&self.alg, "RS256") || other(&self.purpose, "sig") {
            return None;
        }
        let [n, e] = [&self.n, &self.e].map(|number| URL_SAFE_NO_PAD.decode(number).ok());
        let (n, e) = (n?, e?);
        let components = RsaPublicKeyComponents { n: significant(&n), e: significant(&e) };
        if !MODULUS.contains(&components.n.len()) {
            return None;
        }
        let public = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
        Some(Key { id: self.kid, public })
    }
}

/// Without the zeros that some issuers write in front.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

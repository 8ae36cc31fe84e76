use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;

use super::Keys;

/// The header that carries the assertion.
pub const HEADER: HeaderName = HeaderName::from_static("cf-access-jwt-assertion");

/// The longest assertion that is looked at, in bytes. Issuers keep theirs below the 4 KiB of a cookie.
pub const MAX_ASSERTION: usize = 16 << 10;

/// How far the issuer's clock may be ahead of ours for `nbf`; the reference takes the same. There is none for `exp`.
const AHEAD: Duration = Duration::from_secs(300);

/// An assertion as it came: a JSON Web Token (RFC 7519), taken apart and not believed yet.
#[derive(Debug)]
pub struct Assertion<'a> {
    signed: &'a [u8],
    signature: Vec<u8>,
    claims: Vec<u8>,
    key_id: Option<String>,
}

/// What an assertion has to say.
#[derive(Debug, Clone, Copy)]
pub struct Demands<'a> {
    /// Who must have made it out: `iss`, to the letter.
    pub issuer: &'a str,
    /// For whom, one of them at least: `aud`.
    pub audiences: &'a [String],
}

/// Why a request may not pass. The sentences are for the visitor and give nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no assertion.
    #[error("the request carries no identity assertion")]
    Missing,
    /// There are several, and nobody knows which one counts.
    #[error("the request carries more than one identity assertion")]
    Several,
    /// It is no JSON Web Token, or larger than [`MAX_ASSERTION`].
    #[error("the identity assertion cannot be read")]
    Malformed,
    /// It is signed in another way than RS256, or in a way that demands more than is known here.
    #[error("the identity assertion is not signed with RS256")]
    Algorithm,
    /// Its issuer publishes no such key.
    #[error("the identity assertion is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signature is not of that key.
    #[error("the signature of the identity assertion is wrong")]
    Signature,
    /// Somebody else made it out.
    #[error("the identity assertion is of another issuer")]
    Issuer,
    /// It is made out for something else.
    #[error("the identity assertion is made out for another application")]
    Audience,
    /// It is over.
    #[error("the identity assertion has expired; log in again")]
    Expired,
    /// It is not valid yet.
    #[error("the identity assertion is not valid yet")]
    Early,
    /// The rule names no issuer or no audience, so that nobody can pass.
    #[error("nobody may pass here")]
    Nobody,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11); none is.
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    /// Seconds since 1970, possibly with a fraction.
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl<'a> Assertion<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is malformed, or not signed with RS256.
    pub fn decode(text: &'a str) -> Result<Self, Denial> {
        if text.len() > MAX_ASSERTION {
            return Err(Denial::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Denial::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Denial::Malformed)?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::Malformed);
        let header: Header = object(&decoded(header)?)?;
        if header.alg != "RS256" || header.crit.is_some() {
            return Err(Denial::Algorithm);
        }
        Ok(Self {
            signed: signed.as_bytes(),
            signature: decoded(signature)?,
            claims: decoded(claims)?,
            key_id: header.kid,
        })
    }

    /// Which key it says it is signed with.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Whether it is signed with one of the keys and says what is demanded.
    ///
    /// # Errors
    /// Why not. Nothing of it is believed before the signature.
    pub fn verify(&self, keys: &Keys, demands: &Demands<'_>, now: SystemTime) -> Result<(), Denial> {
        keys.verify(self.key_id(), self.signed, &self.signature)?;
        let claims: Claims = object(&self.claims)?;
        if claims.iss != demands.issuer {
            return Err(Denial::Issuer);
        }
        let wanted = |audience: &String| demands.audiences.contains(audience);
        let fits = match &claims.aud {
            Audience::One(audience) => wanted(audience),
            Audience::Several(audiences) => audiences.iter().any(wanted),
        };
        if !fits {
            return Err(Denial::Audience);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if claims.exp <= now {
            return Err(Denial::Expired);
        }
        if claims.nbf.is_some_and(|from| from > now + AHEAD.as_secs_f64()) {
            return Err(Denial::Early);
        }
        Ok(())
    }
}

/// Reads a JSON object; a list would be read as the fields in order.
fn object<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, Denial> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Denial::Malformed);
    }
    serde_json::from_slice(json).map_err(|_| Denial::Malformed)
}

#[cfg(test)]
mod tests;

//! The key by which a zone's answers are signed (RFC 4034): one for each zone, for its keys as for all else.

mod rollover;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ZoneError;
use crate::resource::{Key, Resource};
use crate::{Hostname, PrivateText, Registry, Zone, ZoneId};

pub use rollover::{KeyChange, KeyStep};

/// A zone's key. Its private half is one of the secrets that engines get encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneKey {
    /// Whose answers it signs.
    pub zone: ZoneId,
    /// Signs: PKCS#8 in base64.
    private: PrivateText,
    /// As DNSKEY records have it, in base64.
    public: Box<str>,
    /// When.
    pub created_at: Timestamp,
    /// A change of it that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<KeyChange>,
}

impl ZoneKey {
    /// A key of a zone, and one that delegations name (RFC 4034, section 2.1.1).
    pub const FLAGS: u16 = 257;
    /// ECDSA over P-256 with SHA-256 (RFC 6605).
    pub const ALGORITHM: u8 = 13;
    /// SHA-256 (RFC 4509).
    pub const DIGEST_TYPE: u8 = 2;

    fn generate(zone: ZoneId, now: Timestamp) -> Self {
        let scheme = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(scheme, &SystemRandom::new());
        let private = private.expect("the system gives random numbers, as everything else here needs them, too");
        let pair = EcdsaKeyPair::from_pkcs8(scheme, private.as_ref()).expect("it was just written in this form");
        // Behind the byte that says that the point is not compressed.
        let point = &pair.public_key().as_ref()[1..];
        let private = PrivateText::new(STANDARD.encode(private.as_ref()));
        Self { zone, private, public: STANDARD.encode(point).into(), created_at: now, change: None }
    }

    /// What signs, for whoever does.
    ///
    /// # Errors
    /// The entry is damaged.
    pub fn pair(&self) -> Result<EcdsaKeyPair, &'static str> {
        let private = STANDARD.decode(self.private.reveal()).map_err(|_| "the zone's key is no base64")?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).map_err(|_| "the zone's key is none")
    }

    /// The public half, in base64.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The data of its DNSKEY record.
    pub fn dnskey(&self) -> Vec<u8> {
        let [f1, f2] = Self::FLAGS.to_be_bytes();
        let mut data = vec![f1, f2, 3, Self::ALGORITHM];
        data.extend(STANDARD.decode(&*self.public).unwrap_or_default());
        data
    }

    /// What signatures and delegations tell keys apart by (RFC 4034, appendix B).
    pub fn tag(&self) -> u16 {
        let pairs = self.dnskey();
        let sum = pairs.chunks(2).map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        });
        let sum: u32 = sum.sum();
        (sum.wrapping_add(sum >> 16) & 0xffff) as u16
    }

    /// What a delegation of this zone has of it.
    pub fn digest(&self, zone: &Hostname) -> [u8; 32] {
        let mut digest = Sha256::new();
        for label in zone.as_str().split('.') {
            digest.update([u8::try_from(label.len()).unwrap_or_default()]);
            digest.update(label);
        }
        digest.update([0]);
        digest.update(self.dnskey());
        digest.finalize().into()
    }
}

impl Resource for ZoneKey {
    const KIND: &'static str = "zone-keys";

    fn key(&self) -> Key {
        Self::key_of(self.zone)
    }
}

impl ZoneKey {
    pub(crate) fn key_of(zone: ZoneId) -> Key {
        Key::new(Self::KIND, &zone)
    }
}

impl Registry {
    /// Says whether a zone's answers are to be signed, and makes its key if it has none. A zone that is not to be signed any
    /// more keeps its key, since others may know it for days.
    ///
    /// # Errors
    /// No such zone, it is transferred to others, or the engine fails.
    pub async fn sign_zone(&self, now: Timestamp, id: ZoneId, signed: bool) -> Result<Zone, ZoneError> {
        self.in_zone(id, |snapshot, transaction| {
            let old = snapshot.zone(id).ok_or(ZoneError::NotFound(id))?;
            let mut new = old.value.clone();
            new.traits.signed = signed;
            if signed && !old.traits.signed && snapshot.transfer_out(id).is_some() {
                return Err(ZoneError::Transferred(old.name.clone()));
            }
            let is_wanted = signed && snapshot.zone_key(id).is_none();
            let key = is_wanted.then(|| ZoneKey::generate(id, now));
            if new == old.value && key.is_none() {
                return Ok(new);
            }
            new.modified_at = Some(now);
            // Also for its key alone: who follows zones hears of it.
            transaction.expect(old).put(&new);
            if let Some(key) = key {
                transaction.expect_absent(&key.key()).put(&key);
            }
            Ok(new)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_are_those_of_the_rfc() {
        // RFC 6605, section 6.1.
        let public = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
        let zone = Hostname::parse("example.net").unwrap();
        let key = ZoneKey {
            zone: ZoneId::from_bytes([0; 16]),
            private: PrivateText::new(""),
            public: public.into(),
            created_at: Timestamp::UNIX_EPOCH,
            change: None,
        };
        assert_eq!(key.tag(), 55_648);
        let digest: String = key.digest(&zone).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "b4c8c1fe2e7477127b27115656ad6256f424625bf5c1e2770ce6d6e37df61d17");
    }

    #[test]
    fn keys_that_are_made_can_sign() {
        let key = ZoneKey::generate(ZoneId::from_bytes([0; 16]), Timestamp::UNIX_EPOCH);
        assert_eq!(key.dnskey().len(), 68);
        let pair = key.pair().unwrap();
        assert_eq!(pair.public_key().as_ref()[1..], key.dnskey()[4..]);
        assert!(!format!("{key:?}").contains(key.private.reveal()));
    }
}

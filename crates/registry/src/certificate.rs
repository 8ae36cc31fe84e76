//! Authorities that all nodes of an edge have in common, and the certificates of origins that one of them signed. What
//! a certificate is made of, others know: here it is text.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::resource::{Key, Resource, Versioned};
use crate::{CommitError, FormerAuthority, Hostname, PrivateText, Registry, Snapshot};

/// Certificates that are removed when a new one is kept, at most: etcd takes 128 operations at once.
const SWEPT_AT_ONCE: usize = 50;
/// A revoked certificate is shown for this long. Agents do not hear of it, so that nothing depends on it after that.
const REVOKED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What an authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityPurpose {
    /// Certificates of origins, for agents to verify.
    Origin,
    /// Certificates of nodes, for each other.
    Node,
}

impl AuthorityPurpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Node => "node",
        }
    }

    /// As commands and paths of the API have it: whose authority it is.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Origin => "origins",
            Self::Node => "nodes",
        }
    }
}

impl fmt::Display for AuthorityPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthorityPurpose {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::Origin, Self::Node].into_iter().find(|purpose| purpose.as_str() == text);
        known.ok_or("an authority is origin or node")
    }
}

/// An authority, made once for all nodes. Its key is one of the secrets that engines get encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAuthority {
    /// What it signs.
    pub purpose: AuthorityPurpose,
    /// Its own certificate, PEM.
    pub certificate: String,
    /// Signs.
    pub key: PrivateText,
    /// When.
    pub created_at: Timestamp,
    /// The one before, if it is trusted still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<FormerAuthority>,
}

impl Resource for CertificateAuthority {
    const KIND: &'static str = "authorities";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.purpose)
    }
}

/// The serial number of a certificate of an origin; in text as decimal digits, which is how the API has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateId(u128);

/// The text is no serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a certificate: its serial number in decimal digits is wanted")]
pub struct BadCertificateId;

impl CertificateId {
    /// One that nobody can guess. RFC 5280 section 4.1.2.2: positive.
    pub fn random() -> Self {
        Self(rand::random::<u128>() >> 1 | 1)
    }

    /// The number.
    pub fn serial(self) -> u128 {
        self.0
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CertificateId {
    type Err = BadCertificateId;

    fn from_str(text: &str) -> Result<Self, BadCertificateId> {
        // One form only, since it is part of a key.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        text.parse().ok().filter(|_| is_plain).map(Self).ok_or(BadCertificateId)
    }
}

impl TryFrom<String> for CertificateId {
    type Error = BadCertificateId;

    fn try_from(text: String) -> Result<Self, BadCertificateId> {
        text.parse()
    }
}

impl From<CertificateId> for String {
    fn from(id: CertificateId) -> Self {
        id.to_string()
    }
}

/// What kind of certificate somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginRequestType {
    /// For an RSA key.
    OriginRsa,
    /// For an ECDSA key.
    OriginEcc,
    /// For either; the original has it for servers of keys.
    KeylessCertificate,
}

/// A certificate of an origin. It holds no secret: the key is with whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginCertificate {
    /// Its serial number.
    pub id: CertificateId,
    /// Itself, PEM.
    pub certificate: String,
    /// What somebody asked for it with, PEM.
    pub csr: String,
    /// The names in it.
    pub hostnames: Vec<Hostname>,
    /// What kind.
    pub request_type: OriginRequestType,
    /// Days that were asked for.
    pub requested_validity: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// It holds until then.
    pub expires_on: Timestamp,
    /// When somebody said that it is not to hold any more; agents do not hear of it, and it is soon forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Resource for OriginCertificate {
    const KIND: &'static str = "origin-certificates";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

impl OriginCertificate {
    /// Kept at once: all are in the memory of each node.
    pub const MOST: usize = 10_000;
    /// Of text that comes from outside, in all of them together. A usual one has 2.5 KiB.
    pub const MOST_BYTES: usize = 32 << 20;

    /// Of text that comes from outside.
    pub(crate) fn bytes(&self) -> usize {
        let names: usize = self.hostnames.iter().map(|name| name.as_str().len()).sum();
        self.certificate.len() + self.csr.len() + names
    }

    /// Whether one of its names lies in this zone, by the zones that there are now.
    pub fn is_in_zone(&self, snapshot: &Snapshot, zone: crate::ZoneId) -> bool {
        self.hostnames.iter().any(|name| snapshot.zone_of(name.as_str()).is_some_and(|found| found.id == zone))
    }

    /// Whether nobody needs to see it any more: it has ended, or was revoked long ago.
    fn is_over(&self, now: Timestamp) -> bool {
        self.expires_on <= now || self.revoked_at.is_some_and(|at| now.duration_since(at) > REVOKED_KEPT)
    }
}

/// Why a certificate was not kept or revoked.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No such certificate.
    #[error("there is no certificate {0}")]
    NotFound(CertificateId),
    /// There are as many as there may be.
    #[error(
        "there are {} certificates of origins or {} MiB of them already, which is the most; revoke some first",
        OriginCertificate::MOST,
        OriginCertificate::MOST_BYTES >> 20
    )]
    TooMany,
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// The authority for this; if there is none, `make` makes its certificate and its key (PEM). Of several nodes that do
    /// so at once, one is first, and all get its authority.
    ///
    /// # Errors
    /// `make` or the engine fails.
    pub async fn ensure_authority<E: From<CommitError>>(
        &self,
        now: Timestamp,
        purpose: AuthorityPurpose,
        make: impl FnOnce() -> Result<(String, PrivateText), E>,
    ) -> Result<CertificateAuthority, E> {
        if let Some(present) = self.snapshot().authority(purpose) {
            return Ok(present.value.clone());
        }
        let (certificate, key) = make()?;
        let new = CertificateAuthority { purpose, certificate, key, created_at: now, former: None };
        self.change(|snapshot, transaction| {
            if let Some(present) = snapshot.authority(purpose) {
                return Ok(present.value.clone());
            }
            transaction.expect_absent(&new.key()).put(&new);
            Ok(new.clone())
        })
        .await
    }

    /// Keeps a certificate that was signed just now, and forgets some that are over. Where there is no room, revoked ones
    /// make it, those first that were revoked first. Of several nodes that find the last place at once, each takes it.
    ///
    /// # Errors
    /// There are too many, another one has its serial number, or the engine fails.
    pub async fn keep_origin_certificate(&self, new: &OriginCertificate) -> Result<(), CertificateError> {
        self.change(|snapshot, transaction| {
            for old in making_room(snapshot, new)? {
                transaction.expect(old).delete(&old.key());
            }
            transaction.expect_absent(&new.key()).put(new);
            Ok(())
        })
        .await
    }

    /// Notes that a certificate is not to hold any more. One that was revoked before stays as it was.
    ///
    /// # Errors
    /// There is no such certificate, or the engine fails.
    pub async fn revoke_origin_certificate(
        &self,
        now: Timestamp,
        id: CertificateId,
    ) -> Result<OriginCertificate, CertificateError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.origin_certificate(id).ok_or(CertificateError::NotFound(id))?;
            if old.revoked_at.is_some() {
                return Ok(old.value.clone());
            }
            let new = OriginCertificate { revoked_at: Some(now), ..old.value.clone() };
            transaction.expect(old).put(&new);
            Ok(new)
        })
        .await
    }
}

/// What goes when this one comes.
fn making_room<'a>(
    snapshot: &'a Snapshot,
    new: &OriginCertificate,
) -> Result<Vec<&'a Versioned<OriginCertificate>>, CertificateError> {
    let now = new.created_at;
    let mut leaving: Vec<_> =
        snapshot.origin_certificates().filter(|old| old.is_over(now)).take(SWEPT_AT_ONCE).collect();
    let freed = |leaving: &[&Versioned<OriginCertificate>]| leaving.iter().map(|old| old.bytes()).sum::<usize>();
    let count = snapshot.certificates.origins.len() + 1 - leaving.len();
    let bytes = snapshot.certificates.origin_bytes + new.bytes() - freed(&leaving);
    let (mut excess, mut excess_bytes) =
        (count.saturating_sub(OriginCertificate::MOST), bytes.saturating_sub(OriginCertificate::MOST_BYTES));
    if excess == 0 && excess_bytes == 0 {
        return Ok(leaving);
    }
    let mut revoked: Vec<_> =
        snapshot.origin_certificates().filter(|old| old.revoked_at.is_some() && !old.is_over(now)).collect();
    revoked.sort_by_key(|old| old.revoked_at);
    for old in revoked {
        if (excess == 0 && excess_bytes == 0) || leaving.len() >= SWEPT_AT_ONCE {
            break;
        }
        excess = excess.saturating_sub(1);
        excess_bytes = excess_bytes.saturating_sub(old.bytes());
        leaving.push(old);
    }
    if excess == 0 && excess_bytes == 0 { Ok(leaving) } else { Err(CertificateError::TooMany) }
}

impl Snapshot {
    /// The authority for this, if it was made.
    pub fn authority(&self, purpose: AuthorityPurpose) -> Option<&Versioned<CertificateAuthority>> {
        self.certificates.authorities.get(&purpose).map(AsRef::as_ref)
    }

    /// A certificate of an origin, revoked ones included.
    pub fn origin_certificate(&self, id: CertificateId) -> Option<&Versioned<OriginCertificate>> {
        self.certificates.origins.get(&id).map(AsRef::as_ref)
    }

    /// All certificates of origins, revoked ones included, in the order of their serial numbers.
    pub fn origin_certificates(&self) -> impl Iterator<Item = &Versioned<OriginCertificate>> {
        self.certificates.origins.values().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_one_form() {
        let id = CertificateId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.serial() > 0 && id.serial() < 1 << 127);
        let long = "9".repeat(60);
        for text in ["", "0", "07", "+7", "-7", "7a", " 7", "0x7", &long] {
            assert_eq!(text.parse::<CertificateId>(), Err(BadCertificateId), "{text}");
        }
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", PrivateText::new("hunter2")), "PrivateText(…)");
    }
}

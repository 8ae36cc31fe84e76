//! Certificates by which nodes of one edge know each other, and the fingerprint by which a machine that is to become one
//! knows them first.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::provider::provider;
use crate::shared::common_name;
use crate::{CertsError, SharedAuthority};

/// Machines that want to join ask a node's API for a name under it, by TLS. Nobody has it in the DNS.
pub(crate) const JOIN_DOMAIN: &str = "join.node.snicket.internal";
/// Each node has a name under it, by its id.
const NODE_DOMAIN: &str = "node.snicket.internal";
/// Long enough for a node to be cut off from its registry over a weekend, short enough that nobody revokes anything.
const LIFE: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// A certificate is made anew when two thirds of its life are over.
const RENEW_AFTER: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A certificate of a node, with its key, which only this process has.
#[derive(Clone)]
pub struct NodeCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// What machines ask for that know its authority.
    pub(crate) join_name: String,
    /// It holds until then.
    pub expires_at: SystemTime,
    /// From then on a new one should take its place.
    pub renew_at: SystemTime,
}

impl fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expires_at, renew_at, .. } = self;
        f.debug_struct("NodeCertificate")
            .field("expires_at", expires_at)
            .field("renew_at", renew_at)
            .finish_non_exhaustive()
    }
}

impl NodeCertificate {
    /// Makes a key, and a certificate that names this node (its id, which is fit for a host name) by a host name under
    /// `node.snicket.internal` and as `snicket://node/<id>`.
    ///
    /// # Errors
    /// The id is no label of a host name, or the system has no randomness to give.
    pub fn issue(authority: &SharedAuthority, id: &str, now: SystemTime) -> Result<Self, CertsError> {
        let failed = |problem: String| CertsError::Issue { names: format!("node {id}"), problem };
        let made = |error: rcgen::Error| failed(error.to_string());
        let mut params = CertificateParams::default();
        let join_name = Fingerprint::of(authority.certificate()).join_name();
        params.distinguished_name = common_name("Snicket node");
        params.subject_alt_names = vec![
            SanType::DnsName(format!("{id}.{NODE_DOMAIN}").try_into().map_err(made)?),
            SanType::DnsName(join_name.as_str().try_into().map_err(made)?),
            SanType::URI(format!("snicket://node/{id}").try_into().map_err(made)?),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(made)?;
        let (certificate, expires_at) = authority.sign(params, &key, LIFE, now).map_err(made)?;
        let chain = vec![certificate.der().clone(), authority.certificate().clone()];
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key =
            CertifiedKey::from_der(chain, private.into(), &provider()).map_err(|error| failed(error.to_string()))?;
        Ok(Self { key: Arc::new(key), join_name, expires_at, renew_at: now + RENEW_AFTER })
    }
}

/// The SHA-256 hash of an authority's certificate: whoever has it from somebody whom he trusts knows the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// The text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct BadFingerprint;

impl Fingerprint {
    /// Of this certificate (DER).
    pub fn of(certificate: &[u8]) -> Self {
        Self(digest(&SHA256, certificate).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Of this one (PEM).
    ///
    /// # Errors
    /// It is no certificate in PEM form.
    pub fn of_pem(certificate: &str) -> Result<Self, CertsError> {
        let (_, block) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
            .map_err(|_| CertsError::Authority("its certificate is not in PEM form".to_owned()))?;
        Ok(Self::of(&block.contents))
    }

    /// The name that a machine asks a node's API for, by TLS, when it wants to join and knows this authority: it is
    /// answered with a certificate of that one, if the node has one.
    pub fn join_name(&self) -> String {
        // As much of it as tells authorities apart; a label has 63 characters at the most.
        format!("{:.32}.{JOIN_DOMAIN}", self.to_string())
    }
}

/// As lower-case hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadFingerprint);
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| BadFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewSharedAuthority;

    #[test]
    fn a_node_is_named_by_its_id_and_renewed_at_two_thirds() {
        let now = SystemTime::now();
        let authority = NewSharedAuthority::generate("test", now).unwrap();
        let authority = SharedAuthority::load(&authority.certificate, &authority.key).unwrap();
        let made = NodeCertificate::issue(&authority, "0123", now).unwrap();
        assert_eq!((made.renew_at, made.expires_at), (now + RENEW_AFTER, now + LIFE));
        let (_, leaf) = x509_parser::parse_x509_certificate(&made.key.cert[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        use x509_parser::extensions::GeneralName::{DNSName, URI};
        let expected = [DNSName("0123.node.snicket.internal"), DNSName(&made.join_name), URI("snicket://node/0123")];
        assert_eq!(names, expected);
        let (_, issuer) = x509_parser::parse_x509_certificate(authority.certificate()).unwrap();
        leaf.verify_signature(Some(issuer.public_key())).unwrap();
        let other = NodeCertificate::issue(&authority, "0123", now).unwrap();
        assert_ne!(other.key.cert[0], made.key.cert[0], "each has a key of its own");
    }

    #[test]
    fn a_fingerprint_survives_being_written_and_read() {
        let one = Fingerprint::of(b"one");
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_ne!(one, Fingerprint::of(b"two"));
        for text in ["", "00", &"g".repeat(64), &"ü".repeat(32), &"0".repeat(65)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(BadFingerprint), "{text}");
        }
    }
}

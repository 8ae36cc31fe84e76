//! Authorities whose certificate and key somebody else keeps, as text.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls_pki_types::CertificateDer;

use crate::CertsError;
use crate::authority::{CLOCK_SKEW, time_of};

/// Twice as long as the longest-lived certificate of an origin (5475 days), so that the last one that is asked for in
/// the first half has all of its time.
const LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// An authority in memory, which signs. It does not print its key.
pub struct SharedAuthority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

/// An authority that was made just now, for somebody to keep. Its key does not print.
pub struct NewSharedAuthority {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM.
    pub key: String,
}

impl fmt::Debug for NewSharedAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewSharedAuthority(…)")
    }
}

impl NewSharedAuthority {
    /// Makes an ECDSA P-256 authority of this name, which has none below it.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate(name: &str, now: SystemTime) -> Result<Self, CertsError> {
        let made = |error: rcgen::Error| CertsError::Authority(error.to_string());
        let key = KeyPair::generate().map_err(made)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + LIFE).into();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(made)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl SharedAuthority {
    /// Reads what was kept, PEM.
    ///
    /// # Errors
    /// One of the two is damaged, they do not belong together, or the certificate is not an authority's.
    pub fn load(certificate: &str, key: &str) -> Result<Self, CertsError> {
        let problem = |problem: &str| CertsError::Authority(problem.to_owned());
        let (_, block) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())
            .map_err(|_| problem("its certificate is not in PEM form"))?;
        let parsed = block.parse_x509().map_err(|_| problem("its certificate is damaged"))?;
        let key = KeyPair::from_pem(key).map_err(|_| problem("its key is not a private key in PEM form"))?;
        if !parsed.is_ca() {
            return Err(problem("its certificate is not an authority's"));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(problem("its certificate does not belong to its key"));
        }
        let not_after = time_of(parsed.validity().not_after.timestamp());
        let der = CertificateDer::from(block.contents.clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| CertsError::Authority(error.to_string()))?;
        Ok(Self { der, issuer, not_after })
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs what is to hold from now on for this long, but no longer than the authority itself; answers until when.
    pub(crate) fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        life: Duration,
        now: SystemTime,
    ) -> Result<(rcgen::Certificate, SystemTime), rcgen::Error> {
        let not_after = (now + life).min(self.not_after);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(key, &self.issuer)?, not_after))
    }
}

pub(crate) fn common_name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_belong_together_or_is_damaged_is_no_authority() {
        let now = SystemTime::now();
        let [one, two] = ["one", "two"].map(|name| NewSharedAuthority::generate(name, now).unwrap());
        assert!(SharedAuthority::load(&one.certificate, &one.key).is_ok());
        for (certificate, key) in [
            (one.certificate.as_str(), two.key.as_str()),
            ("", one.key.as_str()),
            (one.certificate.as_str(), "nonsense"),
            (one.key.as_str(), one.key.as_str()),
        ] {
            assert!(SharedAuthority::load(certificate, key).is_err());
        }
        assert_eq!(format!("{one:?}"), "NewSharedAuthority(…)");
    }
}

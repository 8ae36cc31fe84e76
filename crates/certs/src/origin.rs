//! Certificates of origins: what somebody asks for (PKCS #10), and what the origin authority makes of it.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use crate::shared::common_name;
use crate::{CertsError, SharedAuthority};

/// What certificates of origins, and only these, name as their subject: the names that count are beside it.
const SUBJECT: &str = "Snicket origin certificate";

/// What kind of key a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginKey {
    /// RSA of 2048 to 8192 bits.
    Rsa,
    /// ECDSA on P-256 or P-384.
    Ecdsa,
}

/// Why a text is no request for a certificate that could be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOriginRequest {
    /// More than anybody needs.
    #[error("it has more than {} bytes", OriginRequest::MAX_BYTES)]
    TooLarge,
    /// Not the text form, or not of a request.
    #[error("it is not in PEM form; it begins with -----BEGIN CERTIFICATE REQUEST-----")]
    NotPem,
    /// The text holds something else.
    #[error("it is damaged, or something follows it")]
    Damaged,
    /// A key that is too weak or that clients do not know.
    #[error("its key is not one that is signed: RSA of 2048 to 8192 bits, or ECDSA on P-256 or P-384")]
    Key,
    /// Whoever asks does not show that the key is his.
    #[error("its signature is not that of its key, or made with another hash than SHA-256, SHA-384 or SHA-512")]
    Signature,
}

/// A request whose sender has the key that it names. The names and extensions in it do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRequest {
    public: SubjectPublicKeyInfo,
    key: OriginKey,
}

impl OriginRequest {
    /// As text. A request for an RSA key of 8192 bits with a hundred names in it has 6 KiB.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Reads a request that somebody else made.
    ///
    /// # Errors
    /// It is not one that can be signed, and why.
    pub fn parse(text: &str) -> Result<Self, BadOriginRequest> {
        if text.len() > Self::MAX_BYTES {
            return Err(BadOriginRequest::TooLarge);
        }
        let (_, block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| BadOriginRequest::NotPem)?;
        if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
            return Err(BadOriginRequest::NotPem);
        }
        Self::parse_der(&block.contents)
    }

    fn parse_der(der: &[u8]) -> Result<Self, BadOriginRequest> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| BadOriginRequest::Damaged)?;
        if !rest.is_empty() {
            return Err(BadOriginRequest::Damaged);
        }
        let info = &request.certification_request_info.subject_pki;
        let key = match info.parsed().map_err(|_| BadOriginRequest::Key)? {
            PublicKey::RSA(rsa) if (2048..=8192).contains(&rsa.key_size()) => OriginKey::Rsa,
            PublicKey::EC(_) => OriginKey::Ecdsa,
            PublicKey::RSA(_)
            | PublicKey::DSA(_)
            | PublicKey::GostR3410(_)
            | PublicKey::GostR3410_2012(_)
            | PublicKey::Unknown(_) => return Err(BadOriginRequest::Key),
        };
        let public = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| BadOriginRequest::Key)?;
        let is_known = match key {
            OriginKey::Rsa => true,
            OriginKey::Ecdsa => {
                let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                curve.is_some_and(|curve| curve == oid::OID_EC_P256 || curve == oid::OID_NIST_EC_P384)
            }
        };
        if !is_known {
            return Err(BadOriginRequest::Key);
        }
        let hash = &request.signature_algorithm.algorithm;
        if *hash == oid::OID_PKCS1_SHA1WITHRSA || *hash == oid::OID_SHA1_WITH_RSA {
            return Err(BadOriginRequest::Signature);
        }
        // Of an RSA key this also finds that it has 2048 bits indeed.
        request.verify_signature().map_err(|_| BadOriginRequest::Signature)?;
        Ok(Self { public, key })
    }

    /// What kind of key it names.
    pub fn key(&self) -> OriginKey {
        self.key
    }
}

impl SharedAuthority {
    /// Makes a certificate for whoever made the request, and for these names (lower case; `*` may be the first label). It
    /// holds from now on for this long, or as long as the authority; answers it as PEM, and until when it holds.
    ///
    /// # Errors
    /// One of the names cannot stand in a certificate.
    pub fn sign_for_origin(
        &self,
        request: &OriginRequest,
        names: &[&str],
        serial: u128,
        life: Duration,
        now: SystemTime,
    ) -> Result<(String, SystemTime), CertsError> {
        let failed =
            |problem: rcgen::Error| CertsError::Issue { names: names.join(", "), problem: problem.to_string() };
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial.to_be_bytes().to_vec()));
        params.distinguished_name = common_name(SUBJECT);
        let names = names.iter().map(|name| (*name).try_into().map(SanType::DnsName));
        params.subject_alt_names = names.collect::<Result<_, _>>().map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if request.key == OriginKey::Rsa {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, not_after) = self.sign(params, &request.public, life, now).map_err(failed)?;
        Ok((certificate.pem(), not_after))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, RsaKeySize};

    use super::*;
    use crate::NewSharedAuthority;

    fn request(key: &KeyPair) -> String {
        let params = CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn ecdsa() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()
    }

    #[test]
    fn a_certificate_has_the_names_and_time_that_were_asked_for_and_no_others() {
        let now = SystemTime::now();
        let authority = NewSharedAuthority::generate("test", now).unwrap();
        let authority = SharedAuthority::load(&authority.certificate, &authority.key).unwrap();
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        for (key, kind) in
            [(KeyPair::generate().unwrap(), OriginKey::Ecdsa), (ecdsa(), OriginKey::Ecdsa), (rsa, OriginKey::Rsa)]
        {
            let asked = OriginRequest::parse(&request(&key)).unwrap();
            assert_eq!(asked.key(), kind);
            let day = Duration::from_secs(24 * 60 * 60);
            let names = ["app.example.test", "*.example.test"];
            let (pem, not_after) = authority.sign_for_origin(&asked, &names, 7, 7 * day, now).unwrap();
            assert_eq!(not_after, now + 7 * day);
            let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            let leaf = block.parse_x509().unwrap();
            let found = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
            assert_eq!(found, names.map(x509_parser::extensions::GeneralName::DNSName));
            assert_eq!(leaf.raw_serial(), [7]);
            assert!(!leaf.is_ca());
            let (_, issuer) = x509_parser::parse_x509_certificate(authority.certificate()).unwrap();
            leaf.verify_signature(Some(issuer.public_key())).unwrap();
            assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        }
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let now = SystemTime::now();
        let authority = NewSharedAuthority::generate("test", now).unwrap();
        let authority = SharedAuthority::load(&authority.certificate, &authority.key).unwrap();
        let asked = OriginRequest::parse(&request(&ecdsa())).unwrap();
        let late = now + Duration::from_secs(20 * 365 * 24 * 60 * 60);
        let life = Duration::from_secs(5475 * 24 * 60 * 60);
        let (_, not_after) = authority.sign_for_origin(&asked, &["a.test"], 1, life, late).unwrap();
        assert!(not_after < late + life && not_after > late + Duration::from_secs(9 * 365 * 24 * 60 * 60));
    }

    #[test]
    fn weak_and_unusual_keys_are_refused() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(OriginRequest::parse(&request(&key)), Err(BadOriginRequest::Key));
        }
        assert_eq!(OriginRequest::parse(WEAK), Err(BadOriginRequest::Key));
        assert_eq!(OriginRequest::parse(SHA1), Err(BadOriginRequest::Signature));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let good = request(&ecdsa());
        let certificate = NewSharedAuthority::generate("test", SystemTime::now()).unwrap().certificate;
        for (text, refused) in [
            (String::new(), BadOriginRequest::NotPem),
            ("hello".into(), BadOriginRequest::NotPem),
            (certificate.clone(), BadOriginRequest::NotPem),
            (certificate.replace(" CERTIFICATE-", " CERTIFICATE REQUEST-"), BadOriginRequest::Damaged),
            (good.replace('\n', ""), BadOriginRequest::NotPem),
            (format!("{good}{}", " ".repeat(OriginRequest::MAX_BYTES)), BadOriginRequest::TooLarge),
        ] {
            assert_eq!(OriginRequest::parse(&text), Err(refused), "{text}");
        }
        assert!(OriginRequest::parse(&good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")).is_ok());
    }

    /// What surrounds the signed part is read leniently; the key is in that part.
    #[test]
    fn a_request_that_was_tampered_with_is_refused_or_names_the_same_key() {
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        for key in [ecdsa(), rsa] {
            let (_, block) = x509_parser::pem::parse_x509_pem(request(&key).as_bytes()).unwrap();
            let good = block.contents;
            let asked = OriginRequest::parse_der(&good);
            assert!(asked.is_ok());
            for index in 0..good.len() {
                for change in [1, 0x80, 0xff] {
                    let mut bad = good.clone();
                    bad[index] ^= change;
                    let read = OriginRequest::parse_der(&bad);
                    assert!(read.is_err() || read == asked, "byte {index} changed by {change}");
                }
                assert!(OriginRequest::parse_der(&good[..index]).is_err(), "cut at {index}");
            }
            assert_eq!(OriginRequest::parse_der(&[&good[..], &[0]].concat()), Err(BadOriginRequest::Damaged));
        }
    }

    /// Of an RSA key of 1024 bits.
    const WEAK: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBSzCBtQIBADAMMQowCAYDVQQDDAF4MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCB
iQKBgQCxhLF4AlSF4T6VlFPAtfUG1lmr6lpJUAgdwL4Kvlv18aou8tKAAwHrxlBT
Zi7P3Z/XYOcB7usnpNzZMkYNVRA4PxF68veNm2s1cQprW7gnFw/aIZkD4GaT/9Eo
jwB4MSf4B1Gm6GafdM5gHu4aaphegfxao3/4yxKryyJeOisSdwIDAQABoAAwDQYJ
KoZIhvcNAQELBQADgYEAKTCVvY0EXOdd/0qnn6xityOwpcgxr/vFlRGgVUhUw4Ky
jJ61nIXu3PqWdCTWYgCB1DlhbkCBhKWXjYZSg3Gfcq0tOzvNqtTkCsRPkX/80Eh9
4LkZEOSLtta2dFit7yi9vRIssEbFOw7QD/YyU/V6ZRsEmOS34dGaBGcm5swN5WE=
-----END CERTIFICATE REQUEST-----";

    /// Of an RSA key of 2048 bits, signed over a SHA-1 hash.
    const SHA1: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIICUTCCATkCAQAwDDEKMAgGA1UEAwwBeDCCASIwDQYJKoZIhvcNAQEBBQADggEP
ADCCAQoCggEBALbpqFL6mvcDwAF4QVILdCWZiapCFLzioRmyKDS2IbM/x1MWU2/O
cPES7LAbvFGWfKtYzeY0gMW4+H4i9ndxFCd2JjqutLZnf/pIX+Uad4gw2ClkBNHS
fe6ZOj1ut9Ec7S+exFA1+8feZu/D6MGfK47k/inbl5UwOafeif40yKXSEnx62Q1A
kFBvmOuVQtTFy6/DPsrvg5h7WJ55VBhsA0NF8CBel58NbTUaGkxZ3EA2h+Y0XVwq
ki4+axbbRuM0ugStm+ddEQocf7VfvmAsneS7FRiJNJgXC+HSRG9tx9Zow9FwoYnv
MPCT6oqWrm8aCzyVZMVZEv/AFTAPebfEC68CAwEAAaAAMA0GCSqGSIb3DQEBBQUA
A4IBAQCFr3WVKowKwfGAlrvKVcMINRaTyYTftciRkOr702+kuem4pWwtYMTyJNKW
yfi6Pb9DnHBuXqziIqtPyQPPlLxzYM0hrrrY7OywD01dX+2its6YxppYT7f/U+pn
bg2nIO4XZe9c7gdfjnjNbDw3h9AJjs7fAOpl5cO+Mc4gKuAtG0SuA7Bj68pWgX8i
uwqr3AEdPV15730mYiB98icfp89uHHkdyMCX9yuJo7OOcmHmEBGW8arPeMjGWqGf
jRW66Y/leCvEf11TRmNFwkq6j5HBbjbE65lnl/vq2+nhb6eM4812J3ju31pLZp2v
4/K9KiGRcbaCr6CvGyZN3B35qVb9
-----END CERTIFICATE REQUEST-----";
}

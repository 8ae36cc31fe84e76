use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::provider::provider;
use crate::shared::common_name;
use crate::{CertsError, file};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// People install its certificate by hand, so it lasts.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Within what every platform accepts (398 days at the strictest), and made anew long before.
const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// A certificate is made anew when this much of its life is left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Peers whose clock is behind still find a new certificate valid.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// The visitors' authority (ECDSA P-256), which lives in two files of the data directory.
pub struct Authority {
    path: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

/// A certificate that was made, with its key.
pub(crate) struct Issued {
    pub(crate) key: CertifiedKey,
    /// From then on a new one should take its place.
    pub(crate) renew_at: SystemTime,
}

impl Authority {
    /// The certificate's file in the data directory.
    pub const CERTIFICATE_FILE: &'static str = "ca.pem";
    /// The key's file in the data directory, readable by its owner only.
    pub const KEY_FILE: &'static str = "ca.key";

    /// Loads the authority of this data directory, or makes one at first start. The directory is made if need be.
    ///
    /// # Errors
    /// A file is unreadable, damaged or expired, the two do not belong together, or the key alone is missing.
    pub fn load_or_create(directory: &Path, now: SystemTime) -> Result<Self, CertsError> {
        file::make_directory(directory)?;
        let path = directory.join(Self::CERTIFICATE_FILE);
        let key_path = directory.join(Self::KEY_FILE);
        let certificate = file::read_if_there(&path)?;
        let key = match (file::read_if_there(&key_path)?, &certificate) {
            (Some(text), _) => KeyPair::from_pem(&text).map_err(|_| {
                file::problem(&key_path, "this is not a private key in PEM form; restore it from a copy")
            })?,
            (None, None) => new_key(&key_path)?,
            (None, Some(_)) => {
                let problem = format!(
                    "missing, but {} is there; restore it, or remove both (all must then trust a new one)",
                    path.display()
                );
                return Err(file::problem(&key_path, problem));
            }
        };
        let pem = match certificate {
            Some(pem) => pem,
            // The key is written first: a start that was cut short between the two ends up here the next time.
            None => new_root(&path, &key, now)?,
        };
        Self::new(path, pem, key, now)
    }

    fn new(path: PathBuf, pem: String, key: KeyPair, now: SystemTime) -> Result<Self, CertsError> {
        let problem = |problem: &str| file::problem(&path, problem);
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|_| problem("this is not a certificate in PEM form; restore it, or remove it to make it anew"))?;
        let root = block
            .parse_x509()
            .map_err(|_| problem("the certificate is damaged; restore it, or remove it to make it anew"))?;
        if !root.is_ca() {
            return Err(problem("the certificate is not an authority's"));
        }
        if root.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(problem("the certificate does not belong to the key in ca.key"));
        }
        let not_after = time_of(root.validity().not_after.timestamp());
        if not_after <= now {
            return Err(problem(
                "the authority has expired; remove ca.pem to renew it, and have everyone trust the new one",
            ));
        }
        let der = CertificateDer::from(block.contents.clone());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| problem(&error.to_string()))?;
        Ok(Self { path, pem, issuer, not_after })
    }

    /// The certificate as PEM text, for people and programs to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Where the certificate lies.
    pub fn certificate_path(&self) -> &Path {
        &self.path
    }

    /// A secret for this purpose, the same at each start.
    pub(crate) fn secret(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.issuer.key().serialize_der());
        let tag = hmac::sign(&key, purpose.as_bytes());
        tag.as_ref().try_into().expect("HMAC with SHA-256 has 32 bytes")
    }

    /// Makes a certificate for these names, and a key for it.
    pub(crate) fn issue(&self, names: Vec<SanType>, now: SystemTime) -> Result<Issued, CertsError> {
        let described = format!("{names:?}");
        self.try_issue(names, now).map_err(|problem| CertsError::Issue { names: described, problem })
    }

    fn try_issue(&self, names: Vec<SanType>, now: SystemTime) -> Result<Issued, String> {
        let not_after = (now + LEAF_LIFE).min(self.not_after);
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        params.distinguished_name = common_name("Snicket edge");
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| error.to_string())?;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], private.into(), &provider())
            .map_err(|error| error.to_string())?;
        Ok(Issued { key, renew_at: (not_after - RENEW_BEFORE).max(now + DAY).min(not_after) })
    }
}

fn new_key(path: &Path) -> Result<KeyPair, CertsError> {
    let key = KeyPair::generate().map_err(|error| file::problem(path, format!("cannot make a key: {error}")))?;
    file::write(path, &key.serialize_pem(), 0o600)?;
    Ok(key)
}

fn new_root(path: &Path, key: &KeyPair, now: SystemTime) -> Result<String, CertsError> {
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + LIFE).into();
    // The start of the key's hash keeps the roots of several edges apart in lists of trusted roots.
    let id: String = params.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = common_name(&format!("Snicket edge authority {id}"));
    // No authority below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params
        .self_signed(key)
        .map_err(|error| file::problem(path, format!("cannot make the certificate: {error}")))?;
    let pem = root.pem();
    file::write(path, &pem, 0o644)?;
    Ok(pem)
}

/// A time in seconds since 1970, as certificates have it.
pub(crate) fn time_of(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(timestamp.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_loaded_after() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let now = SystemTime::now();
        let first = Authority::load_or_create(&data, now).unwrap();
        let second = Authority::load_or_create(&data, now).unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        assert_eq!(first.secret("a"), second.secret("a"));
        assert_ne!(first.secret("a"), first.secret("b"));
        assert_eq!(fs::read_to_string(first.certificate_path()).unwrap(), first.certificate_pem());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&data), mode(&data.join("ca.key"))), (0o700, 0o600));
        }
        let files: Vec<_> = fs::read_dir(&data).unwrap().collect();
        assert_eq!(files.len(), 2, "no temporary file is left: {files:?}");
    }

    #[test]
    fn a_start_that_was_cut_short_is_made_good() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        Authority::load_or_create(directory.path(), now).unwrap();
        fs::remove_file(directory.path().join("ca.pem")).unwrap();
        Authority::load_or_create(directory.path(), now).unwrap();
    }

    #[test]
    fn damaged_foreign_and_expired_files_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = Authority::load_or_create(directory.path(), now).unwrap();
        Authority::load_or_create(other.path(), now).unwrap();
        let refused =
            |now| Authority::load_or_create(directory.path(), now).err().map(|error| error.to_string()).unwrap();

        assert!(refused(now + LIFE).contains("expired"));
        fs::copy(other.path().join("ca.key"), directory.path().join("ca.key")).unwrap();
        assert!(refused(now).contains("does not belong"));
        fs::write(directory.path().join("ca.key"), "nonsense").unwrap();
        assert!(refused(now).contains("ca.key"));
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        assert!(refused(now).contains("missing"));
        fs::write(authority.certificate_path(), "nonsense").unwrap();
        fs::copy(other.path().join("ca.key"), directory.path().join("ca.key")).unwrap();
        assert!(refused(now).contains("ca.pem"));
    }
}

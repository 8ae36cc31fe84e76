use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::authority::time_of;
use crate::provider::provider;

/// A chain that is larger is none: usual ones have 5 kB, and every node keeps all of them in memory.
const LARGEST_CHAIN: usize = 64 << 10;
/// Of the issuer's name, which is for people.
const LONGEST_ISSUER: usize = 100;

/// What a leaf says.
pub(crate) struct Leaf {
    pub(crate) issuer: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// Reads a chain and its leaf's key; the leaf must be for the name, if one is given.
pub(crate) fn certified(chain: &str, key: &str, name: Option<&str>) -> Result<(Arc<CertifiedKey>, Leaf), String> {
    if chain.len() > LARGEST_CHAIN {
        return Err(format!("its chain is larger than {LARGEST_CHAIN} bytes"));
    }
    let certificates = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("its chain is not valid PEM: {error}"))?;
    let leaf = certificates.first().ok_or("there is no certificate in its chain")?;
    let said = read(leaf)?;
    if let Some(name) = name {
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
        let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
        verify_server_name(&parsed, &server).map_err(|_| format!("it is not for {name}"))?;
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("its key is unusable: {error}"))?;
    let certified = CertifiedKey::from_der(certificates, key, &provider()).map_err(|error| error.to_string())?;
    Ok((Arc::new(certified), said))
}

fn read(leaf: &CertificateDer<'_>) -> Result<Leaf, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| format!("it is damaged: {error}"))?;
    let issuer = parsed.issuer();
    let words = issuer.iter_organization().chain(issuer.iter_common_name()).filter_map(|word| word.as_str().ok());
    let issuer = words.collect::<Vec<_>>().join(", ");
    Ok(Leaf {
        issuer: issuer.chars().filter(|c| !c.is_control()).take(LONGEST_ISSUER).collect(),
        not_before: time_of(parsed.validity().not_before.timestamp()),
        not_after: time_of(parsed.validity().not_after.timestamp()),
    })
}

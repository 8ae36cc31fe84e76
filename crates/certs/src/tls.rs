//! TLS settings of every listener and of the agent's dial (section 2.2 of the tunnel protocol).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{Ticketer, kx_group};
use rustls::server::ResolvesServerCert;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::acme::ACME_ALPN;
use crate::certificates::{ForAgents, ForCallers};
use crate::judge::{Judge, Shown, judged_by};
use crate::provider::with_groups;
use crate::{Certificates, CertsError, Fingerprint, file};

pub use crate::certificates::{TUNNEL_HTTP2_NAME, TUNNEL_PROBE_NAME, TUNNEL_QUIC_NAME};
pub use crate::provider::provider;

/// ALPN of the tunnel over QUIC.
pub const TUNNEL_ALPN: &[u8] = b"argotunnel";

/// What a reference agent offers.
const AGENT_GROUPS: [&dyn SupportedKxGroup; 2] = [kx_group::X25519MLKEM768, kx_group::SECP256R1];
/// What a reference agent offers with `--post-quantum`.
const POST_QUANTUM_GROUPS: [&dyn SupportedKxGroup; 1] = [kx_group::X25519MLKEM768];

const TLS_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS_1_2_UP: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Which roots an agent verifies its edge with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's.
    System,
    /// Those in this PEM file, and no others.
    File(PathBuf),
    /// Those in this PEM text, and no others.
    Pem(String),
}

/// Visitors over TCP: TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`; also that of authorities that look whether a name is ours,
/// if there may be such.
///
/// # Errors
/// The system has no randomness to give.
pub fn visitor_tls(certificates: &Arc<Certificates>) -> Result<Arc<ServerConfig>, CertsError> {
    let protocols: &[&[u8]] = &[b"h2", b"http/1.1", ACME_ALPN];
    let spoken = if certificates.has_public() { protocols } else { &protocols[..2] };
    listener(certificates.clone(), TLS_1_2_UP, spoken).map(Arc::new)
}

/// Whether who has this ALPN is an authority that has seen what it came for, and wants nothing else.
pub fn is_looking(alpn: Option<&[u8]>) -> bool {
    alpn == Some(ACME_ALPN)
}

/// Who asks for names over TLS (RFC 7858), by any of the names of the visitors' certificates.
///
/// # Errors
/// As [`visitor_tls`].
pub fn dns_tls(certificates: &Arc<Certificates>) -> Result<Arc<ServerConfig>, CertsError> {
    listener(certificates.clone(), TLS_1_2_UP, &[b"dot"]).map(Arc::new)
}

/// Callers of the API: as [`visitor_tls`], but that a machine that wants to join is shown this node's own certificate.
///
/// # Errors
/// As [`visitor_tls`].
pub fn api_tls(certificates: &Arc<Certificates>) -> Result<Arc<ServerConfig>, CertsError> {
    listener(Arc::new(ForCallers(certificates.clone())), TLS_1_2_UP, &[b"h2", b"http/1.1"]).map(Arc::new)
}

/// A machine that wants to join, and that trusts nobody but nodes of the edge whose node authority has this fingerprint. It
/// has to ask for [`Fingerprint::join_name`].
///
/// # Errors
/// rustls does not take our settings.
pub fn join_tls(authority: Fingerprint) -> Result<Arc<ClientConfig>, CertsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(TLS_1_3)?
        .dangerous()
        .with_custom_certificate_verifier(judged_by(OfAuthority(authority)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The one authority that has this fingerprint, which the other end has to show beside its own certificate.
#[derive(Debug)]
struct OfAuthority(Fingerprint);

impl Judge for OfAuthority {
    fn judge(&self, shown: &Shown<'_>) -> Result<(), rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = shown.chain.iter().find(|certificate| Fingerprint::of(certificate) == self.0);
        let mut roots = RootCertStore::empty();
        roots.add(authority.ok_or(unknown)?.clone().into_owned())?;
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        shown.verified_by(&roots)
    }
}

/// Visitors over QUIC: ALPN `h3`.
///
/// # Errors
/// As [`visitor_tls`].
pub fn visitor_quic(certificates: &Arc<Certificates>) -> Result<Arc<QuicServerConfig>, CertsError> {
    quic_listener(listener(certificates.clone(), TLS_1_3, &[b"h3"])?)
}

/// Agents over TCP: TLS 1.2 and 1.3; no ALPN, as agents offer none.
///
/// # Errors
/// As [`visitor_tls`].
pub fn tunnel_tls(certificates: &Arc<Certificates>) -> Result<Arc<ServerConfig>, CertsError> {
    listener(Arc::new(ForAgents(certificates.clone())), TLS_1_2_UP, &[]).map(Arc::new)
}

/// Agents over QUIC: ALPN [`TUNNEL_ALPN`].
///
/// # Errors
/// As [`visitor_tls`].
pub fn tunnel_quic(certificates: &Arc<Certificates>) -> Result<Arc<QuicServerConfig>, CertsError> {
    quic_listener(listener(Arc::new(ForAgents(certificates.clone())), TLS_1_3, &[TUNNEL_ALPN])?)
}

/// The UDP socket at this address, of visitors or of agents. The reset key is the same at each start, so that a node that
/// comes back after a crash tells its peers at their next packet that their connections are gone (RFC 9000 section 10.3);
/// otherwise they wait in vain for long. No two sockets have the same one: resets that one of them sends would end
/// connections of the other (section 21.11).
pub fn quic_endpoint(certificates: &Certificates, local: SocketAddr) -> quinn::EndpointConfig {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &certificates.secret(&format!("QUIC stateless reset {local}")));
    let mut config = quinn::EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(|| Box::new(RandomConnectionIds));
    config
}

/// An agent that dials an edge over TCP. With `post_quantum`, only the hybrid key exchange is offered.
///
/// # Errors
/// The roots cannot be read, or there is none.
pub fn agent_tls(roots: &Roots, post_quantum: bool) -> Result<Arc<ClientConfig>, CertsError> {
    dialler(roots, post_quantum, TLS_1_2_UP).map(Arc::new)
}

/// An agent that dials an edge over QUIC. With `post_quantum`, only the hybrid key exchange is offered.
///
/// # Errors
/// As [`agent_tls`].
pub fn agent_quic(roots: &Roots, post_quantum: bool) -> Result<Arc<QuicClientConfig>, CertsError> {
    let mut config = dialler(roots, post_quantum, TLS_1_3)?;
    config.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
    let config = QuicClientConfig::try_from(config).expect("aws-lc-rs has the cipher suite of QUIC's first packets");
    Ok(Arc::new(config))
}

/// Whoever calls a server of somebody else over TCP.
pub(crate) fn caller(roots: &Roots) -> Result<Arc<ClientConfig>, CertsError> {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(TLS_1_2_UP)?;
    Ok(Arc::new(config.with_root_certificates(root_store(roots)?).with_no_client_auth()))
}

fn listener(
    resolver: Arc<dyn ResolvesServerCert>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<ServerConfig, CertsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

fn quic_listener(config: ServerConfig) -> Result<Arc<QuicServerConfig>, CertsError> {
    let config = QuicServerConfig::try_from(config).expect("aws-lc-rs has the cipher suite of QUIC's first packets");
    Ok(Arc::new(config))
}

fn dialler(
    roots: &Roots,
    post_quantum: bool,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, CertsError> {
    let provider = with_groups(if post_quantum { &POST_QUANTUM_GROUPS } else { &AGENT_GROUPS });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(root_store(roots)?)
        .with_no_client_auth())
}

fn root_store(roots: &Roots) -> Result<RootCertStore, CertsError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(CertsError::NoRoots(format!(
                    "the system has none ({}); install its CA certificates, or name a file with --ca",
                    reasons.join("; ")
                )));
            }
        }
        Roots::File(path) => {
            let text = file::read(path)?;
            add_pem(&mut store, &text).map_err(|problem| file::problem(path, problem))?;
        }
        Roots::Pem(text) => add_pem(&mut store, text).map_err(CertsError::NoRoots)?,
    }
    Ok(store)
}

fn add_pem(store: &mut RootCertStore, text: &str) -> Result<(), String> {
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("not valid PEM: {error}"))?;
        store.add(certificate).map_err(|error| format!("a certificate in it cannot be used as a root: {error}"))?;
    }
    if store.is_empty() {
        return Err("no certificate in it; a PEM file with root certificates is wanted".into());
    }
    Ok(())
}

/// quinn's own connection ids carry a mark of the process, and packets for those of an earlier process are ignored.
#[derive(Debug)]
struct RandomConnectionIds;

impl RandomConnectionIds {
    /// Bytes of an id: too many to meet one that is in use, few enough to cost nothing.
    const LENGTH: usize = 8;
}

impl quinn::ConnectionIdGenerator for RandomConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; Self::LENGTH];
        aws_lc_rs::rand::fill(&mut id).expect("aws-lc-rs has a source of randomness");
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        Self::LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use lru::LruCache;
use rcgen::SanType;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::acme::{self, ACME_ALPN, Found, Leaf, PublicCertificates, Tally, Waiting};
use crate::node::JOIN_DOMAIN;
use crate::own::Own;
use crate::{Authority, CertsError, NodeCertificate};

/// The name of the edge that an agent asks for and verifies over HTTP/2.
pub const TUNNEL_HTTP2_NAME: &str = "h2.cftunnel.com";
/// The name of the edge that an agent asks for and verifies over QUIC.
pub const TUNNEL_QUIC_NAME: &str = "quic.cftunnel.com";
/// The name that an agent's start-up check asks for on either transport.
pub const TUNNEL_PROBE_NAME: &str = "probe.cftunnel.com";

/// Certificates kept in memory, about 2 kB each. A visitor may ask for any number of names, so the rest is made anew
/// when asked for, which costs no more than the handshake itself.
const CACHE: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// What this node may show certificates for.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Domains, lower case, no trailing dot. Every name at or under one of them gets a certificate on demand, as those of
    /// [`Certificates::use_more`] do. The first is what a visitor without SNI is shown.
    pub domains: Vec<String>,
    /// Addresses that the default certificate also names, for visitors who dial an address. Loopback is always among
    /// them.
    pub addresses: Vec<IpAddr>,
}

/// Every certificate that this node shows: its own from files where they cover the name, else that of a public authority,
/// else one made on demand.
pub struct Certificates {
    authority: Arc<Authority>,
    names: Names,
    own: ArcSwapOption<Own>,
    more: OnceLock<More>,
    /// That of the authority of now comes first.
    node: ArcSwap<Vec<Arc<NodeCertificate>>>,
    public: OnceLock<Arc<dyn PublicCertificates>>,
    /// Those that were read, or cannot be.
    read: Mutex<LruCache<String, Read>>,
    made: Mutex<LruCache<Subject, Made>>,
}

/// Whether a name (lower case) is one more of the node's.
type More = Box<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    /// One name under our domains.
    Name(String),
    /// Whoever asks for no name.
    Default,
    /// The three names that agents ask for.
    Tunnel,
}

#[derive(Clone)]
struct Made {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

/// A public certificate.
#[derive(Clone)]
struct Read {
    version: u64,
    certified: Option<(Arc<CertifiedKey>, SystemTime)>,
}

impl Certificates {
    /// Certificates of this authority for these names.
    ///
    /// # Errors
    /// No domain is given, or one is not a host name.
    pub fn new(authority: Arc<Authority>, names: Names) -> Result<Arc<Self>, CertsError> {
        if names.domains.is_empty() {
            let problem = "at least one domain is wanted".into();
            return Err(CertsError::Issue { names: "no domain".into(), problem });
        }
        let certificates = Self {
            authority,
            names,
            own: ArcSwapOption::empty(),
            more: OnceLock::new(),
            node: ArcSwap::default(),
            public: OnceLock::new(),
            read: Mutex::new(LruCache::new(CACHE)),
            made: Mutex::new(LruCache::new(CACHE)),
        };
        // Makes the one certificate that is needed for certain, so that a bad name is an error now and not at the first
        // visit.
        certificates.make(Subject::Default, SystemTime::now())?;
        Ok(Arc::new(certificates))
    }

    /// Shows the certificate in these PEM files (chain, leaf first; key) wherever it covers the name asked for, and to
    /// visitors without SNI.
    ///
    /// # Errors
    /// A file is unreadable, not PEM, expired, or the key does not belong to the certificate. What was in force stays
    /// so.
    pub fn use_own(&self, chain: &Path, key: &Path) -> Result<(), CertsError> {
        let own = Own::load(chain, key, SystemTime::now())?;
        self.own.store(Some(Arc::new(own)));
        Ok(())
    }

    /// Reads the files of [`Certificates::use_own`] again if either has changed; answers whether it did. Blocks on the
    /// disk: call it from a blocking task, every half minute or so.
    ///
    /// # Errors
    /// As [`Certificates::use_own`].
    pub fn reload_own(&self) -> Result<bool, CertsError> {
        let Some(own) = self.own.load_full() else { return Ok(false) };
        let Some(new) = own.reload(SystemTime::now())? else { return Ok(false) };
        self.own.store(Some(Arc::new(new)));
        Ok(true)
    }

    /// Makes certificates for the names as well of which `more` says so; it is given them in lower case, as whoever comes asks
    /// for them, at each handshake. The first time counts.
    pub fn use_more(&self, more: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let _ = self.more.set(Box::new(more));
    }

    /// Shows these certificates to machines that want to join, from now on: this node's own, and that of a former authority
    /// for whoever still knows that one.
    pub fn use_node(&self, own: NodeCertificate, former: Option<NodeCertificate>) {
        self.node.store(Arc::new([own].into_iter().chain(former).map(Arc::new).collect()));
    }

    /// This node's own certificate, if it has one yet.
    pub fn node(&self) -> Option<Arc<NodeCertificate>> {
        self.node.load().first().cloned()
    }

    /// Whoever asks for the name of an authority that is over sees by the answer that it is.
    fn for_joiner(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let certificates = self.node.load();
        let asked = certificates.iter().find(|certificate| certificate.join_name == name);
        asked.or_else(|| certificates.first()).map(|certificate| Arc::clone(&certificate.key))
    }

    /// Shows certificates of public authorities where it finds some that are valid, and answers the authorities. Must be
    /// said before the settings of listeners are made, and once.
    pub fn use_public(&self, public: Arc<dyn PublicCertificates>) {
        let _ = self.public.set(public);
    }

    /// How orders of public certificates have ended on this node, if there may be such.
    pub fn tally(&self) -> Option<Tally> {
        Some(self.public.get()?.tally())
    }

    /// Whether the files of [`Certificates::use_own`] cover this name (lower case).
    pub fn covers(&self, name: &str) -> bool {
        self.own.load().as_ref().is_some_and(|own| own.covers(name))
    }

    pub(crate) fn has_public(&self) -> bool {
        self.public.get().is_some()
    }

    /// Whether it is worth waiting for a better certificate for a visitor with this first message than there is now.
    pub fn awaited(&self, hello: &ClientHello<'_>) -> Option<Waiting> {
        let public = self.public.get()?;
        let name = hello.server_name()?.to_ascii_lowercase();
        if is_looking(hello) || self.covers(&name) {
            return None;
        }
        public.awaited(&name)
    }

    /// A public certificate for this name that is valid.
    fn public(&self, name: &str, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let public = self.public.get()?;
        let wildcard = public.wildcard(name);
        let name = wildcard.as_deref().unwrap_or(name);
        let had = self.read().get(name).cloned();
        let read = match public.find(name, had.as_ref().map(|read| read.version)) {
            Found::Nothing => return None,
            Found::Same => had?,
            Found::New { version, chain, key } => {
                let certified = acme::certified(&chain, &key, None);
                let certified = certified.ok().map(|(certified, Leaf { not_after, .. })| (certified, not_after));
                let read = Read { version, certified };
                self.read().put(name.to_owned(), read.clone());
                read
            }
        };
        read.certified.filter(|(_, not_after)| now < *not_after).map(|(certified, _)| certified)
    }

    fn read(&self) -> std::sync::MutexGuard<'_, LruCache<String, Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer for an authority that looks whether a name is ours.
    fn for_authority(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name?.to_ascii_lowercase();
        acme::answering(&name, &self.public.get()?.key_authorization(&name)?)
    }

    /// A secret of this node for this purpose, the same at each start.
    pub(crate) fn secret(&self, purpose: &str) -> [u8; 32] {
        self.authority.secret(purpose)
    }

    /// The certificate for a visitor who asked for this name, or for none.
    fn for_visitor(&self, name: Option<&str>, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let own = self.own.load();
        let Some(name) = name else {
            return own.as_ref().map(|own| own.certified()).or_else(|| self.made(Subject::Default, now));
        };
        let name = name.to_ascii_lowercase();
        if let Some(own) = own.as_ref().filter(|own| own.covers(&name)) {
            return Some(own.certified());
        }
        if let Some(public) = self.public(&name, now) {
            return Some(public);
        }
        let ours = self.names.domains.iter().any(|domain| is_within(&name, domain));
        if !ours && !self.more.get().is_some_and(|more| more(&name)) {
            return None;
        }
        self.made(Subject::Name(name), now)
    }

    /// The certificate for an agent that asked for this name, or for none.
    fn for_agent(&self, name: Option<&str>, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        match name {
            Some(TUNNEL_HTTP2_NAME | TUNNEL_QUIC_NAME | TUNNEL_PROBE_NAME) => self.made(Subject::Tunnel, now),
            other => self.for_visitor(other, now),
        }
    }

    fn made(&self, subject: Subject, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let found = self.cache().get(&subject).cloned();
        match found {
            Some(made) if now < made.renew_at => Some(made.key),
            // Nothing to fall back on: an expired one would be refused by the peer with a worse message.
            _ => self.make(subject, now).ok(),
        }
    }

    fn make(&self, subject: Subject, now: SystemTime) -> Result<Arc<CertifiedKey>, CertsError> {
        let dns = |name: &str| {
            let problem = "not a host name".to_owned();
            name.try_into().map(SanType::DnsName).map_err(|_| CertsError::Issue { names: name.into(), problem })
        };
        let names = match &subject {
            Subject::Name(name) => vec![dns(name)?],
            Subject::Tunnel => vec![dns(TUNNEL_HTTP2_NAME)?, dns(TUNNEL_QUIC_NAME)?, dns(TUNNEL_PROBE_NAME)?],
            Subject::Default => {
                let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                let addresses = self.names.addresses.iter().copied().filter(|address| !loopback.contains(address));
                let addresses = loopback.into_iter().chain(addresses).map(SanType::IpAddress);
                let domains = self.names.domains.iter().map(|name| dns(name)).collect::<Result<Vec<_>, _>>()?;
                domains.into_iter().chain(addresses).collect()
            }
        };
        let issued = self.authority.issue(names, now)?;
        let key = Arc::new(issued.key);
        self.cache().put(subject, Made { key: key.clone(), renew_at: issued.renew_at });
        Ok(key)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, LruCache<Subject, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Authorities offer nothing else (RFC 8737 section 4).
fn is_looking(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut alpn| alpn.next() == Some(ACME_ALPN) && alpn.next().is_none())
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_looking(&hello) {
            return self.for_authority(hello.server_name());
        }
        self.for_visitor(hello.server_name(), SystemTime::now())
    }
}

/// The same certificates on the listener for agents, who ask for names of their own.
#[derive(Debug)]
pub(crate) struct ForAgents(pub(crate) Arc<Certificates>);

impl ResolvesServerCert for ForAgents {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.for_agent(hello.server_name(), SystemTime::now())
    }
}

/// The same certificates where the API listens, which machines that want to join ask for this node's own.
#[derive(Debug)]
pub(crate) struct ForCallers(pub(crate) Arc<Certificates>);

impl ResolvesServerCert for ForCallers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(name) if name.ends_with(JOIN_DOMAIN) => self.0.for_joiner(name),
            name => self.0.for_visitor(name, SystemTime::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn certificates(domains: &[&str]) -> (tempfile::TempDir, Arc<Certificates>) {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(directory.path(), SystemTime::now()).unwrap());
        let domains = domains.iter().map(|&domain| domain.into()).collect();
        (directory, Certificates::new(authority, Names { domains, addresses: vec![] }).unwrap())
    }

    #[test]
    fn a_certificate_is_kept_until_shortly_before_its_end() {
        let (_directory, certificates) = certificates(&["example.test"]);
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let at = |days: u32| certificates.for_visitor(Some("a.example.test"), now + days * day).unwrap();
        let first = at(0);
        assert!(Arc::ptr_eq(&first, &at(59)));
        let renewed = at(61);
        assert!(!Arc::ptr_eq(&first, &renewed));
        let (_, leaf) = x509_parser::parse_x509_certificate(&renewed.cert[0]).unwrap();
        let end = crate::authority::time_of(leaf.validity().not_after.timestamp());
        assert!(end > now + 149 * day && end < now + 152 * day);
        assert!(at(5000).cert.len() == 1, "even after the root's own end something is shown");
    }

    #[test]
    fn foreign_names_get_nothing() {
        let (_directory, certificates) = certificates(&["example.test", "localhost"]);
        let now = SystemTime::now();
        for name in ["example.com", "evilexample.test", "test", "h2.cftunnel.com", "localhost.com"] {
            assert!(certificates.for_visitor(Some(name), now).is_none(), "{name}");
        }
        for name in ["example.test", "A.B.EXAMPLE.test", "localhost", "quiet-river.localhost"] {
            assert!(certificates.for_visitor(Some(name), now).is_some(), "{name}");
        }
        certificates.use_more(|name| name == "www.example.com");
        assert!(certificates.for_visitor(Some("WWW.example.com"), now).is_some());
        assert!(certificates.for_visitor(Some("example.com"), now).is_none());
        assert!(certificates.for_agent(Some("h2.cftunnel.com"), now).is_some());
        assert!(certificates.for_agent(Some("h3.cftunnel.com"), now).is_none());
        assert!(certificates.for_visitor(None, now).is_some());
    }

    #[test]
    fn the_memory_for_certificates_is_bounded() {
        let (_directory, certificates) = certificates(&["example.test"]);
        let now = SystemTime::now();
        for index in 0..CACHE.get() + 10 {
            certificates.for_visitor(Some(&format!("n{index}.example.test")), now).unwrap();
        }
        assert_eq!(certificates.cache().len(), CACHE.get());
    }
}

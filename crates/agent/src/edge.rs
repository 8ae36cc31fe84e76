//! Where the edge is: addresses as people write them, looked up, and what its own DNS says of its nodes ([`discovery`]).

mod discovery;

use std::net::{IpAddr, SocketAddr};

use crate::eyeballs;
use crate::proxy::Proxies;
pub use discovery::{Discovery, DiscoveryError};

/// Where the edge listens for agents unless a port is given (section 1).
pub const DEFAULT_PORT: u16 = 7844;

/// Addresses of one name that are used; a PoP with more is reached by these.
const MAX_ADDRESSES: usize = 16;

/// Which family of addresses is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpVersion {
    /// IPv4 where there is an IPv4 address, else IPv6.
    #[default]
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// One way into the edge, before it is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeName {
    host: String,
    port: u16,
}

/// A text is no address of an edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of an edge; write host:port, as in edge.example.test:7844")]
pub struct EdgeNameError(String);

impl std::str::FromStr for EdgeName {
    type Err = EdgeNameError;

    /// `host`, `host:port`, `1.2.3.4:port`, `[v6]:port`.
    fn from_str(text: &str) -> Result<Self, EdgeNameError> {
        let wrong = || EdgeNameError(text.to_owned());
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: DEFAULT_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
            None => (text, DEFAULT_PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let valid = !bare.is_empty()
            && (bare.parse::<IpAddr>().is_ok()
                || bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_')));
        if valid { Ok(Self { host: bare.to_owned(), port }) } else { Err(wrong()) }
    }
}

impl EdgeName {
    /// Whether it is on this machine, as far as its text says.
    fn is_near(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for EdgeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.parse() {
            Ok(address) => SocketAddr::new(address, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// One address of the edge, ready to be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    name: String,
    host: String,
    /// `None` when only a proxy has to know.
    address: Option<SocketAddr>,
    pub(crate) region: usize,
}

impl Place {
    /// `host:port`, for messages and proxies.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// The address where it is known, else the name.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str(&self.name),
        }
    }
}

/// Finds the edge's nodes: by its own DNS, if that is to be asked and knows them, else by the names. The error is for people.
pub(crate) async fn find(
    discovery: Option<&Discovery>,
    names: &[EdgeName],
    version: IpVersion,
    bind: Option<IpAddr>,
    proxies: &Proxies,
) -> Result<Vec<Place>, String> {
    let Some(discovery) = discovery else { return look_up(names, version, bind, proxies).await };
    let reason = match discovery.nodes().await {
        Ok(services) => {
            let mut places: Vec<Place> = Vec::new();
            for (region, service) in services.into_iter().enumerate() {
                let name = format!("{}:{}", service.host, service.port);
                let found = service.addresses.iter().map(|address| SocketAddr::new(*address, service.port)).collect();
                for address in wanted(found, version, bind) {
                    // One node alone is both regions.
                    if !places.iter().any(|known| known.address == Some(address)) {
                        let (name, host) = (name.clone(), service.host.clone());
                        places.push(Place { name, host, address: Some(address), region });
                    }
                }
            }
            if !places.is_empty() {
                return Ok(places);
            }
            "no node has an address of the wanted family".to_owned()
        }
        Err(reason) => reason.to_string(),
    };
    tracing::debug!(domain = discovery.domain(), reason, "the edge's DNS does not tell its nodes");
    look_up(names, version, bind, proxies).await
}

/// Looks names up. Entries at even places form one region, those at odd places the other (section 2.1).
///
/// The error is for people: no name resolves to an address of a wanted family.
pub(crate) async fn look_up(
    names: &[EdgeName],
    version: IpVersion,
    bind: Option<IpAddr>,
    proxies: &Proxies,
) -> Result<Vec<Place>, String> {
    let mut places: Vec<Place> = Vec::new();
    let mut problems = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let place = |address| Place { name: name.to_string(), host: name.host.clone(), address, region: index % 2 };
        match eyeballs::resolve(&name.host, name.port).await {
            Ok(found) => {
                let wanted = wanted(found, version, bind);
                if wanted.is_empty() {
                    problems.push(format!("{name} has no address of the wanted family"));
                }
                for address in wanted {
                    if !places.iter().any(|known| known.address == Some(address)) {
                        places.push(place(Some(address)));
                    }
                }
            }
            Err(_) if proxies.covers(&name.host) => places.push(place(None)),
            Err(error) => problems.push(format!("{name} does not resolve: {error}")),
        }
    }
    if places.is_empty() { Err(problems.join("; ")) } else { Ok(places) }
}

fn wanted(mut found: Vec<SocketAddr>, version: IpVersion, bind: Option<IpAddr>) -> Vec<SocketAddr> {
    let v4 = match (bind, version) {
        (Some(bind), _) => bind.is_ipv4(),
        (None, IpVersion::V4) => true,
        (None, IpVersion::V6) => false,
        (None, IpVersion::Auto) => found.iter().any(SocketAddr::is_ipv4),
    };
    found.retain(|address| address.is_ipv4() == v4);
    found.truncate(MAX_ADDRESSES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_edge_are_read() {
        for (text, shown) in [
            ("edge.example.test", "edge.example.test:7844"),
            ("edge.example.test:17844", "edge.example.test:17844"),
            ("192.0.2.7", "192.0.2.7:7844"),
            ("192.0.2.7:1", "192.0.2.7:1"),
            ("::1", "[::1]:7844"),
            ("[::1]:2", "[::1]:2"),
            ("localhost:3", "localhost:3"),
        ] {
            assert_eq!(text.parse::<EdgeName>().unwrap().to_string(), shown);
        }
        for text in ["", ":1", "edge:", "edge:0", "edge:70000", "http://edge", "a b", "edge/x:1"] {
            assert!(text.parse::<EdgeName>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn entries_form_two_regions() {
        let names: Vec<EdgeName> =
            ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1", "127.0.0.1:1"].map(|name| name.parse().unwrap()).to_vec();
        let places = look_up(&names, IpVersion::Auto, None, &Proxies::none()).await.unwrap();
        assert_eq!(places.iter().map(|place| place.region).collect::<Vec<_>>(), [0, 1, 0]);
        let error = look_up(&names, IpVersion::V6, None, &Proxies::none()).await.unwrap_err();
        assert!(error.contains("wanted family"), "{error}");
    }

    #[test]
    fn families_are_chosen() {
        let found: Vec<SocketAddr> = ["[::1]:1", "127.0.0.1:1"].map(|text| text.parse().unwrap()).to_vec();
        let v6 = |version, bind| wanted(found.clone(), version, bind)[0].is_ipv6();
        assert!(!v6(IpVersion::Auto, None));
        assert!(!v6(IpVersion::V4, None));
        assert!(v6(IpVersion::V6, None));
        assert!(v6(IpVersion::V4, Some("::1".parse().unwrap())));
        assert!(wanted(found[..1].to_vec(), IpVersion::Auto, None)[0].is_ipv6());
    }
}

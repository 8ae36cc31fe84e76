//! What the edge's own DNS says of its nodes (section 2.1 of the tunnel protocol, under the edge's domain): two services, each
//! with the addresses of one half of the nodes. Asked for at the system's resolvers, since its own functions know no services.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rand::seq::SliceRandom as _;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::EdgeName;

/// In front of the domain.
const SERVICE: &str = "_v2-origintunneld._tcp";
/// Those that count: one for each region.
const REGIONS: usize = 2;
/// Where systems write who is asked.
const SYSTEM: &str = "/etc/resolv.conf";
/// Resolvers that are asked, one after the other.
const RESOLVERS: usize = 3;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// For all of them: who is not found by then has to be where people say.
const LIMIT: Duration = Duration::from_secs(5);
/// Larger answers are asked for over TCP, which nobody needs here.
const LARGEST: usize = 4_096;
/// Of one service.
const MAX_ADDRESSES: usize = 16;

/// Asks for the nodes of the edge with some domain.
#[derive(Debug, Clone)]
pub struct Discovery {
    domain: String,
    /// Empty: those of the system.
    resolvers: Vec<SocketAddr>,
}

/// Why the nodes are not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Nobody says whom to ask.
    #[error("{SYSTEM} names no resolver: {0}")]
    NoResolver(io::Error),
    /// Nobody has answered.
    #[error("no resolver answers within {} s", LIMIT.as_secs())]
    Silence,
    /// There is no such service, or it cannot be asked for.
    #[error("{0}")]
    Nothing(String),
}

/// One half of the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) addresses: Vec<IpAddr>,
}

impl Discovery {
    /// Of the edge with this domain. `None` where nobody else could know it: what is no domain, and where all that people name is
    /// on this machine.
    pub fn of(domain: &str, named: &[EdgeName]) -> Option<Self> {
        let domain = domain.trim_end_matches('.');
        let is_domain = domain.contains('.') && domain.parse::<IpAddr>().is_err() && !domain.ends_with(".localhost");
        let is_elsewhere = named.is_empty() || named.iter().any(|name| !name.is_near());
        (is_domain && is_elsewhere).then(|| Self { domain: domain.to_owned(), resolvers: Vec::new() })
    }

    /// The same at these resolvers instead of the system's.
    pub fn at(domain: &str, resolvers: Vec<SocketAddr>) -> Self {
        Self { domain: domain.to_owned(), resolvers }
    }

    /// Whose nodes.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub(super) async fn nodes(&self) -> Result<Vec<Service>, DiscoveryError> {
        timeout(LIMIT, self.ask_for_nodes()).await.unwrap_or(Err(DiscoveryError::Silence))
    }

    async fn ask_for_nodes(&self) -> Result<Vec<Service>, DiscoveryError> {
        let mut resolvers = match &self.resolvers[..] {
            [] => system(&std::fs::read_to_string(SYSTEM).map_err(DiscoveryError::NoResolver)?),
            given => given.to_vec(),
        };
        let name = format!("{SERVICE}.{}.", self.domain);
        let answer = ask(&mut resolvers, &name, RecordType::SRV).await?;
        let mut services = Vec::new();
        for (host, port) in services_of(&answer) {
            let mut addresses = Vec::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                addresses.extend(addresses_of(&ask(&mut resolvers, &host, kind).await?));
            }
            // Those that many agents know of are not all dialled at the first one.
            addresses.shuffle(&mut rand::rng());
            let host = host.trim_end_matches('.').to_owned();
            services.push(Service { host, port, addresses });
        }
        if services.is_empty() {
            Err(DiscoveryError::Nothing(format!("there is no service {name}")))
        } else {
            Ok(services)
        }
    }
}

/// Whom the system asks: the lines with `nameserver`.
fn system(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next());
    let addresses = servers.filter_map(|server| server.parse::<IpAddr>().ok());
    addresses.take(RESOLVERS).map(|address| SocketAddr::new(address, 53)).collect()
}

/// Asks one resolver after the other, twice each; the one that answers is asked first from then on.
async fn ask(resolvers: &mut [SocketAddr], name: &str, kind: RecordType) -> Result<Message, DiscoveryError> {
    let wrong = |problem: &dyn fmt::Display| DiscoveryError::Nothing(format!("{name} cannot be asked for: {problem}"));
    let query = Query::query(Name::from_ascii(name).map_err(|problem| wrong(&problem))?, kind);
    for place in (0..resolvers.len()).chain(0..resolvers.len()) {
        let resolver = resolvers[place];
        match timeout(PATIENCE, ask_one(resolver, &query)).await {
            Ok(Ok(answer)) if answer.metadata.response_code == ResponseCode::ServFail => (),
            Ok(Ok(answer)) => {
                resolvers.swap(0, place);
                return Ok(answer);
            }
            Ok(Err(problem)) => tracing::debug!(%resolver, %problem, "a resolver cannot be asked"),
            Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
        }
    }
    Err(DiscoveryError::Silence)
}

async fn ask_one(resolver: SocketAddr, query: &Query) -> io::Result<Message> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    socket.send(&message.to_vec().map_err(io::Error::other)?).await?;
    let mut packet = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut packet).await?;
        // Whatever else comes is not the answer, be it forged.
        let answer = Message::from_vec(&packet[..length]).ok();
        let is_answer = |answer: &Message| {
            answer.metadata.id == message.metadata.id
                && answer.metadata.message_type == MessageType::Response
                && answer.queries == message.queries
        };
        if let Some(answer) = answer.filter(is_answer) {
            return Ok(answer);
        }
    }
}

/// The first two services, as they are ranked: name with trailing dot, and port.
fn services_of(answer: &Message) -> Vec<(String, u16)> {
    let mut services: Vec<_> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.priority, std::cmp::Reverse(srv.weight), srv.target.to_ascii(), srv.port)),
            _ => None,
        })
        .filter(|(_, _, target, port)| target != "." && *port != 0)
        .collect();
    services.sort();
    services.into_iter().take(REGIONS).map(|(_, _, target, port)| (target, port)).collect()
}

fn addresses_of(answer: &Message) -> Vec<IpAddr> {
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    });
    addresses.take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, SRV};

    use super::*;
    use crate::edge::{IpVersion, find};
    use crate::proxy::Proxies;

    fn names(names: &[&str]) -> Vec<EdgeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// Answers questions for `edge.test` as an edge with two halves does, once it has dropped so many, and after something
    /// that is no answer.
    async fn resolver(drops: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            for count in 0.. {
                let (length, from) = socket.recv_from(&mut packet).await.unwrap();
                if count < drops {
                    continue;
                }
                let mut answer = Message::from_vec(&packet[..length]).unwrap();
                answer.metadata.message_type = MessageType::Response;
                let query = answer.queries[0].clone();
                let name = query.name().clone();
                let target = |host: &str| Name::from_ascii(host).unwrap();
                let data = match (query.name().to_ascii().as_str(), query.query_type()) {
                    ("_v2-origintunneld._tcp.edge.test.", RecordType::SRV) => vec![
                        RData::SRV(SRV::new(2, 1, 7845, target("region2.v2.edge.test."))),
                        RData::SRV(SRV::new(1, 1, 7844, target("region1.v2.edge.test."))),
                        RData::SRV(SRV::new(3, 1, 7846, target("region3.v2.edge.test."))),
                    ],
                    ("region1.v2.edge.test.", RecordType::A) => {
                        vec![RData::A(A::new(192, 0, 2, 1)), RData::A(A::new(192, 0, 2, 2))]
                    }
                    ("region2.v2.edge.test.", RecordType::A) => vec![RData::A(A::new(192, 0, 2, 3))],
                    _ => Vec::new(),
                };
                for data in data {
                    answer.answers.push(Record::from_rdata(name.clone(), 60, data));
                }
                let mut forged = answer.clone();
                forged.metadata.id ^= 1;
                forged.answers.clear();
                for packet in [b"scrap".to_vec(), forged.to_vec().unwrap(), answer.to_vec().unwrap()] {
                    socket.send_to(&packet, from).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn both_halves_of_the_edge_are_found() {
        // The first resolver answers nobody, the second one not at once.
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolvers = vec![silent.local_addr().unwrap(), resolver(0).await];
        let discovery = Discovery::at("edge.test", resolvers);
        let found: Vec<_> = discovery
            .nodes()
            .await
            .unwrap()
            .into_iter()
            .map(|mut service| {
                service.addresses.sort_unstable();
                (service.host, service.port, service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
            .collect();
        let expected = [
            ("region1.v2.edge.test".to_owned(), 7844, vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()]),
            ("region2.v2.edge.test".to_owned(), 7845, vec!["192.0.2.3".to_owned()]),
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn each_half_is_a_region_and_names_are_for_where_there_is_none() {
        let (edge, other) = (resolver(1).await, resolver(0).await);
        let named = names(&["127.0.0.9:1"]);
        let look = async |discovery: Discovery, version| {
            let places = find(Some(&discovery), &named, version, None, &Proxies::none()).await.unwrap();
            let mut places: Vec<_> = places.iter().map(|place| (place.to_string(), place.region)).collect();
            places.sort();
            places
        };
        let place = |address: &str, region| (address.to_owned(), region);
        assert_eq!(
            look(Discovery::at("edge.test", vec![edge]), IpVersion::Auto).await,
            [place("192.0.2.1:7844", 0), place("192.0.2.2:7844", 0), place("192.0.2.3:7845", 1)]
        );
        for (discovery, version) in [
            (Discovery::at("nobody.test", vec![other]), IpVersion::Auto),
            (Discovery::at("edge.test", vec![other]), IpVersion::V6),
            (Discovery::at("a..b", vec![other]), IpVersion::Auto),
        ] {
            let shown = format!("{discovery:?}");
            // Also of another family there is nothing, so that the names are refused for that.
            match version {
                IpVersion::V6 => {
                    assert!(find(Some(&discovery), &named, version, None, &Proxies::none()).await.is_err(), "{shown}");
                }
                _ => assert_eq!(look(discovery, version).await, [place("127.0.0.9:1", 0)], "{shown}"),
            }
        }
    }

    #[test]
    fn nobody_is_asked_for_what_nobody_knows() {
        assert!(Discovery::of("tunnel.example.test", &names(&["192.0.2.1:7844"])).is_some());
        assert!(Discovery::of("tunnel.example.test.", &[]).is_some());
        for (domain, named) in [
            ("localhost", "192.0.2.1:7844"),
            ("tunnel.localhost", "192.0.2.1:7844"),
            ("192.0.2.1", "192.0.2.1:7844"),
            ("tunnel.example.test", "127.0.0.1:7844"),
            ("tunnel.example.test", "localhost:7844"),
        ] {
            assert!(Discovery::of(domain, &names(&[named])).is_none(), "{domain} {named}");
        }
    }

    #[test]
    fn resolvers_are_read_as_systems_write_them() {
        let text = "# comment\nnameserver 192.0.2.1\n search example.test\nnameserver fe80::1%eth0\n nameserver\t2001:db8::1 # x\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|address| address.parse().unwrap());
        assert_eq!(system(text), expected);
        assert!(system("").is_empty());
    }
}

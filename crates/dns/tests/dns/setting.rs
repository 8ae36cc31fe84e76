use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use dns::{Config, Members, Server, Unchecked, bind};
use hickory_proto::op::{Edns, Message, OpCode, Query};
use hickory_proto::rr::{Name, RecordType as Kind};
use jiff::Timestamp;
use registry::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// Whoever waits longer waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn host(name: &str) -> Hostname {
    Hostname::parse(name).unwrap()
}

pub(crate) fn record(name: &str, kind: &str, content: &str) -> NewRecord {
    let kind: RecordType = kind.parse().unwrap();
    NewRecord::new(host(name), RecordContent::parse(kind, content, None, None).unwrap())
}

pub(crate) fn proxied(name: &str, kind: &str, content: &str) -> NewRecord {
    record(name, kind, content).with_proxied(true).unwrap()
}

/// Each question that is sent after another one has a number of its own.
static MARKS: AtomicU16 = AtomicU16::new(0x5a17);

/// A registry and a server that answers for its zones.
pub(crate) struct Setting {
    pub(crate) registry: Registry,
    pub(crate) server: Server,
}

impl Setting {
    /// With the zone `example.test`, which is also the edge's domain, and a node of the edge at 198.51.100.1.
    pub(crate) async fn start() -> Self {
        Self::start_with(Arc::new(Unchecked)).await
    }

    /// The same where this says where load balancers lead.
    pub(crate) async fn start_with(members: Arc<dyn Members>) -> Self {
        let registry = Registry::in_memory(at(0)).await.unwrap();
        registry.ensure_zone(at(0), &host("example.test")).await.unwrap();
        registry.introduce(node(&registry, "198.51.100.1"));
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let config = Config { domain: host("example.test") };
        let server = Server::start(config, sockets, registry.clone(), members).unwrap();
        Self { registry, server }
    }

    pub(crate) fn zone(&self, name: &str) -> ZoneId {
        self.registry.snapshot().zone_named(name).unwrap().id
    }

    /// Adds records to the zone in which they lie.
    pub(crate) async fn add(&self, records: Vec<NewRecord>) {
        for record in records {
            let zone = self.registry.snapshot().zone_of(record.name().as_str()).unwrap().id;
            self.registry.edit_records(at(1), zone, &[RecordEdit::Create(record)]).await.unwrap();
        }
    }

    pub(crate) async fn udp(&self, message: &Message) -> Message {
        Message::from_vec(&self.udp_bytes(&message.to_vec().unwrap()).await.expect("there is an answer")).unwrap()
    }

    /// Sends these bytes as they are; `None` if a question that is sent afterwards is answered, and they are not.
    pub(crate) async fn udp_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.server.address()).await.unwrap();
        socket.send(bytes).await.unwrap();
        let mut mark = question("mark.invalid", Kind::A);
        mark.metadata.id = MARKS.fetch_add(1, Ordering::Relaxed);
        socket.send(&mark.to_vec().unwrap()).await.unwrap();
        loop {
            let mut answer = vec![0; 65_535];
            let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.expect("in time").unwrap();
            answer.truncate(length);
            match Message::from_vec(&answer) {
                Ok(message) if message.queries == mark.queries && message.metadata.id == mark.metadata.id => {
                    return None;
                }
                // It was sent to a socket that had the same port, and came after that had been closed.
                Ok(message) if message.queries == mark.queries => {}
                _ => return Some(answer),
            }
        }
    }

    pub(crate) async fn tcp(&self, message: &Message) -> Message {
        let mut stream = self.connect().await;
        write(&mut stream, &message.to_vec().unwrap()).await;
        Message::from_vec(&read(&mut stream).await).unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    /// The answer as text: the code, and the records of each section that is not empty behind its letter.
    pub(crate) async fn ask(&self, name: &str, kind: Kind) -> String {
        let answer = shown(&self.udp(&question(name, kind)).await);
        let over_tcp = shown(&self.tcp(&question(name, kind)).await);
        if answer != over_tcp {
            // A change may have come between the two.
            let again = shown(&self.udp(&question(name, kind)).await);
            assert_eq!(again, over_tcp, "over UDP and TCP: {name} {kind}");
        }
        over_tcp
    }
}

/// This node of the edge, with this address.
pub(crate) fn node(registry: &Registry, ip: &str) -> NodeRecord {
    let at_port = |port| SocketAddr::new(ip.parse().unwrap(), port);
    let addresses = NodeAddresses {
        http: at_port(80),
        https: at_port(443),
        tunnel: vec![at_port(7844)],
        api: at_port(7845),
        dns: Some(at_port(53)),
    };
    NodeRecord {
        id: registry.node(),
        name: format!("of {ip}"),
        location: "lab01".into(),
        region: None,
        addresses,
        version: "1".into(),
        started_at: at(0),
    }
}

/// Asks with EDNS, as everybody does.
pub(crate) fn question(name: &str, kind: Kind) -> Message {
    let mut message = Message::new(0x1234, hickory_proto::op::MessageType::Query, OpCode::Query);
    let mut name = Name::from_ascii(name).unwrap();
    // As in answers, so that they are equal.
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

pub(crate) fn shown(answer: &Message) -> String {
    let mut text = format!("{:?}", answer.metadata.response_code);
    if !answer.metadata.authoritative {
        text.push_str(" not-aa");
    }
    if answer.metadata.truncation {
        text.push_str(" tc");
    }
    for (letter, section) in [('=', &answer.answers), ('!', &answer.authorities), ('+', &answer.additionals)] {
        let line = |record: &hickory_proto::rr::Record| {
            format!("\n{letter} {} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
        };
        let mut lines: Vec<String> = section.iter().map(line).collect();
        // Aliases come in their order; that of others says nothing.
        if !lines.iter().any(|line| line.contains(" CNAME ")) {
            lines.sort();
        }
        text.extend(lines);
    }
    text
}

pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) {
    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
    stream.write_all(message).await.unwrap();
}

pub(crate) async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await.unwrap();
        message
    };
    tokio::time::timeout(PATIENCE, read).await.expect("in time")
}

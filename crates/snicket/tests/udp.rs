//! `snicket udp`: public ports for datagrams, with visitors that know nothing of us.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use harness::{Agent, Edge, LIMIT, Visitor, lasting_address, until};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const TRANSPORTS: [&str; 2] = ["http2", "quic"];

/// A datagram may be lost on a busy machine; visitors of UDP say it again.
const AGAIN: Duration = Duration::from_millis(500);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

/// An origin that answers each datagram with the port that it came from and what it said.
struct Echo {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        Self::with(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    fn with(socket: UdpSocket) -> Self {
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut heard = vec![0; 1 << 16];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut heard).await else { continue };
                let answer = [&from.port().to_be_bytes()[..], &heard[..length]].concat();
                let _ = socket.send_to(&answer[..answer.len().min(65_507)], from).await;
            }
        });
        Self { address, task }
    }

    /// Ends it; its port is free then.
    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Somebody with a socket of his own.
struct Player(UdpSocket);

impl Player {
    async fn at(port: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(port).await.unwrap();
        Self(socket)
    }

    /// Says it until there is an answer, which is the echo of it, and gives the port that the origin saw.
    async fn ask(&self, payload: &[u8]) -> u16 {
        let answer = within("the answer", self.heard(payload, |answer| answer.get(2..) == Some(payload))).await;
        u16::from_be_bytes([answer[0], answer[1]])
    }

    async fn heard(&self, payload: &[u8], fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut answer = vec![0; 1 << 16];
        loop {
            // Nobody listening there is told for an earlier datagram.
            let _ = self.0.send(payload).await;
            let listening = async {
                loop {
                    match self.0.recv(&mut answer).await {
                        Ok(length) if fits(&answer[..length]) => return length,
                        Ok(_) => {}
                        Err(_) => tokio::time::sleep(AGAIN / 10).await,
                    }
                }
            };
            if let Ok(length) = tokio::time::timeout(AGAIN, listening).await {
                answer.truncate(length);
                return answer;
            }
        }
    }

    /// Says it, and gets no answer to it while there is time for one. Answers to what was said before may still come.
    async fn ask_in_vain(&self, payload: &[u8]) {
        let _ = self.0.send(payload).await;
        let answered = async {
            let mut answer = [0; 100];
            loop {
                match self.0.recv(&mut answer).await {
                    Ok(length) if answer[..length].ends_with(payload) => return,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(AGAIN / 10).await,
                }
            }
        };
        assert!(tokio::time::timeout(2 * AGAIN, answered).await.is_err(), "there is an answer");
    }
}

async fn metrics(edge: &Edge) -> String {
    Visitor::plain(edge.api()).request("GET", "/metrics", &[], "").await.text()
}

async fn counted(edge: &Edge, line: &str) {
    until(LIMIT, line, async || metrics(edge).await.contains(line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_all_sizes_pass_both_ways() {
    for transport in TRANSPORTS {
        let (edge, origin) = (Edge::start().await, Echo::start().await);
        let agent = Agent::udp(&edge, &origin.address.to_string(), &["--protocol", transport]).await;
        assert_eq!(agent.ready()["address"], format!("localhost:{}", agent.port().port()));
        let (one, other) = (Player::at(agent.port()).await, Player::at(agent.port()).await);
        let ports = (one.ask(b"I am one").await, other.ask(b"I am another").await);
        assert_ne!(ports.0, ports.1, "the origin tells its visitors apart");
        for size in [0, 1, 1100, 1200, 1400, 4000, 9000, 60_000] {
            let payload = vec![b'x'; size];
            assert_eq!(one.ask(&payload).await, ports.0, "{transport}: {size} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_ends_when_nothing_goes_either_way_and_the_next_datagram_makes_another() {
    for transport in TRANSPORTS {
        let (edge, origin) = (Edge::start().await, Echo::start().await);
        let options = ["--protocol", transport, "--idle-timeout", "1s"];
        let mut agent = Agent::udp(&edge, &origin.address.to_string(), &options).await;
        let player = Player::at(agent.port()).await;
        player.ask(b"first").await;
        // On a busy machine one may have ended before its answer.
        let answered = |event: &Value| event["event"] == "flow" && event["sent"].as_u64() >= Some(1);
        let told = agent.process.event_where(answered).await;
        assert!(told["outcome"] == "ended" && told["received"].as_u64() >= Some(1), "{told}");
        until(LIMIT, "the edge counts it as idle", async || {
            !metrics(&edge).await.contains("snicket_edge_flows_total{end=\"idle\"} 0")
        })
        .await;
        player.ask(b"again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_goes_on_over_another_connection_and_another_agent() {
    for transport in TRANSPORTS {
        let (edge, origin) = (Edge::start().await, Echo::with(UdpSocket::bind(lasting_address()).await.unwrap()));
        let address = origin.address.to_string();
        let agent = Agent::udp(&edge, &address, &["--protocol", transport, "--name", "game"]).await;
        let port = agent.port();
        let player = Player::at(port).await;
        player.ask(b"one").await;
        let home = agent.kill().await;
        let agent = Agent::udp_at(&edge, &address, &["--protocol", transport, "--name", "game"], home).await;
        assert_eq!(agent.port(), port);
        player.ask(b"two").await;
        // The origin comes and goes, too: nobody's flow ends by it.
        origin.stop().await;
        player.ask_in_vain(b"three").await;
        let _origin = Echo::with(UdpSocket::bind(&address).await.unwrap());
        player.ask(b"four").await;
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_is_told_who_its_visitor_is() {
    let edge = Edge::start().await;
    let origin = Echo::start().await;
    let agent = Agent::udp(&edge, &origin.address.to_string(), &["--proxy-protocol", "v2"]).await;
    let player = Player::at(agent.port()).await;
    let (from, to) = (player.0.local_addr().unwrap().port(), agent.port().port());
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    expected.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
    // In front of each of them.
    for said in ["hello", "again"] {
        let answer =
            within("the answer", player.heard(said.as_bytes(), |answer| answer.ends_with(said.as_bytes()))).await;
        assert_eq!(answer[2..], [&expected[..], said.as_bytes()].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_are_counted() {
    let (edge, origin) = (Edge::start().await, Echo::start().await);
    let address = origin.address.to_string();
    let full = Agent::udp(&edge, &address, &["--max-flows", "1"]).await;
    let first = Player::at(full.port()).await;
    first.ask(b"x").await;
    // Confirmed by what comes after an answer.
    first.ask(b"y").await;
    Player::at(full.port()).await.ask_in_vain(b"z").await;
    first.ask(b"still").await;
    counted(&edge, "snicket_edge_defences_total{reason=\"connections_per_port\"} 1").await;

    let outside = Agent::udp(&edge, &address, &["--name", "outside", "--allow", "192.0.2.0/24"]).await;
    Player::at(outside.port()).await.ask_in_vain(b"let me in").await;
    counted(&edge, "snicket_edge_defences_total{reason=\"not_allowed\"} 1").await;

    let closed = lasting_address();
    let mut nobody = Agent::udp(&edge, &closed.to_string(), &["--name", "nobody", "--idle-timeout", "1s"]).await;
    Player::at(nobody.port()).await.ask_in_vain(b"hello?").await;
    let told = nobody.process.event("flow").await;
    assert_eq!(told["outcome"], "refused", "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ports_lead_each_to_its_own() {
    // A row of three that is free; another test may be quicker, so it is tried again.
    let (origins, first) = loop {
        let probe = Echo::start().await;
        let first = probe.address.port();
        drop(probe);
        if first > 60_000 {
            continue;
        }
        let mut origins = Vec::new();
        for port in first..first + 3 {
            if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await {
                origins.push(Arc::new(socket));
            }
        }
        if origins.len() == 3 {
            break (origins, first);
        }
    };
    let edge = Edge::start().await;
    let agent = Agent::udp(&edge, &format!("127.0.0.1:{first}-{}", first + 2), &[]).await;
    let port = agent.port();
    assert_eq!(agent.ready()["address"], format!("localhost:{}-{}", port.port(), port.port() + 2));
    for (index, origin) in (0..).zip(origins) {
        let player = Player::at((port.ip(), port.port() + index).into()).await;
        let asking = player.heard(b"which?", |answer| answer == [u8::try_from(index).unwrap()]);
        let answering = async {
            let mut heard = [0; 100];
            loop {
                let (length, from) = origin.recv_from(&mut heard).await.unwrap();
                assert_eq!(&heard[..length], b"which?");
                origin.send_to(&[u8::try_from(index).unwrap()], from).await.unwrap();
            }
        };
        let answer: Result<(), Vec<u8>> = within("the answer", async {
            tokio::select! {
                answer = asking => Err(answer),
                () = answering => Ok(()),
            }
        })
        .await;
        assert!(answer.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_number_serves_tcp_and_udp() {
    let (edge, origin) = (Edge::start().await, Echo::start().await);
    let agent = Agent::udp(&edge, &origin.address.to_string(), &["--name", "dns"]).await;
    let number = agent.port().port().to_string();
    let tcp = Agent::tcp(&edge, &origin.address.to_string(), &["--name", "dns-tcp", "--port", &number]).await;
    assert_eq!(tcp.port(), agent.port());
    Player::at(agent.port()).await.ask(b"query").await;
    let (status, listed) = edge.call("GET", "/snicket/v1/ports", None).await;
    let mut protocols: Vec<_> =
        listed["result"].as_array().unwrap().iter().map(|port| port["protocol"].clone()).collect();
    protocols.sort_by_key(ToString::to_string);
    assert_eq!((status, protocols), (200, vec![json!("tcp"), json!("udp")]));
}

//! Public ports for datagrams: who takes up what, and when flows end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge::Limits;
use jiff::Timestamp;
use registry::{ConfigSource, NewPort, PortId, PortOptions, PortProtocol, Tunnel};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use wire::Transport;

use crate::node::{Agent, Node, PATIENCE, comes_about, eventually};
use crate::origin::Origin;

/// Datagrams may be lost on a busy machine; visitors of UDP say it again.
const AGAIN: Duration = Duration::from_millis(500);

fn free() -> u16 {
    harness::lasting_address().port()
}

fn wish(number: u16, service: &str, flows: usize) -> NewPort {
    let options = PortOptions { max_connections: flows, ..PortOptions::usual(PortProtocol::Udp) };
    NewPort { id: PortId::udp(number), service: service.into(), options }
}

/// An agent of a tunnel whose port leads to this service.
async fn served(node: &Node, name: &str, port: NewPort) -> (Tunnel, Agent, Arc<Origin>) {
    let tunnel = node.tunnel(name, ConfigSource::Local).await;
    let origin = Origin::new();
    let agent = node.agent(&tunnel, Transport::Quic).connect(&origin).await.unwrap();
    node.registry.put_ports(Timestamp::now(), tunnel.id, &[port]).await.unwrap();
    (tunnel, agent, origin)
}

struct Player(UdpSocket);

impl Player {
    async fn at(port: u16) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
        Self(socket)
    }

    async fn say(&self, words: &[u8]) {
        // Nobody listening yet is told for an earlier datagram.
        let _ = self.0.send(words).await;
    }

    async fn hear(&self) -> Option<Vec<u8>> {
        let mut heard = vec![0; 1 << 16];
        let length = timeout(AGAIN, self.0.recv(&mut heard)).await.ok()?.ok()?;
        heard.truncate(length);
        Some(heard)
    }

    /// Says it until this is the answer.
    async fn ask(&self, words: &[u8], answer: &[u8]) {
        let asking = async {
            loop {
                self.say(words).await;
                while let Some(heard) = self.hear().await {
                    if heard == answer {
                        return;
                    }
                }
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no answer to {}", words.escape_ascii()));
    }

    /// So many answers come, and no more.
    async fn is_answered(&self, count: usize) {
        let mut heard = vec![0; 1 << 16];
        for number in 0..count {
            let answer = timeout(PATIENCE, self.0.recv(&mut heard)).await;
            answer.unwrap_or_else(|_| panic!("{number} answers, and not {count}")).unwrap();
        }
        assert_eq!(self.hear().await, None, "more than {count} answers");
    }
}

async fn counted(node: &Node, line: &str) {
    let is_counted = comes_about(async || node.metrics().await.lines().any(|found| found == line)).await;
    assert!(is_counted, "never {line}:\n{}", node.metrics().await);
}

#[tokio::test]
async fn who_never_answers_takes_no_place_from_another_port() {
    let (attacked, quiet) = (free(), free());
    let limits = Limits { connections: 8, exempt_loopback: false, ..Limits::default() };
    let node = Node::with_ports(limits, attacked.min(quiet)..=attacked.max(quiet)).await;
    let _one = served(&node, "one", wish(attacked, "one", 1_000)).await;
    let _two = served(&node, "two", wish(quiet, "two", 1_000)).await;
    Player::at(attacked).await.ask(b"is it open?", b"one:is it open?").await;
    // Visitors who say one thing, or two before there can be an answer, as a forger does.
    let mut flood = Vec::new();
    for number in 0..100 {
        let forged = Player::at(attacked).await;
        forged.say(b"x").await;
        if number % 2 == 0 {
            forged.say(b"y").await;
        }
        flood.push(forged);
        // Beside that of the first. Each is awaited, so that one that does not come about shows by itself.
        counted(&node, &format!("snicket_edge_flows {}", flood.len() + 1)).await;
    }
    let victim = Player::at(quiet).await;
    for _ in 0..3 {
        victim.ask(b"hello", b"two:hello").await;
    }
    let metrics = node.metrics().await;
    assert!(metrics.contains("snicket_edge_defences_total{reason=\"connections\"} 0"), "{metrics}");
}

#[tokio::test]
async fn an_unproven_visitor_is_answered_little() {
    let port = free();
    let node = Node::with_ports(Limits::default(), port..=port).await;
    let _served = served(&node, "one", wish(port, "one", 10)).await;
    Player::at(port).await.ask(b"is it open?", b"one:is it open?").await;
    let player = Player::at(port).await;
    player.say(b"many").await;
    // Twenty answers of 1,000 bytes, of which one is no more than what a question is worth.
    player.is_answered(1).await;
    counted(&node, "snicket_edge_dropped_datagrams_total{reason=\"unproven\"} 19").await;
    // Whoever says something to an answer has all of them.
    player.say(b"many").await;
    player.is_answered(20).await;
}

#[tokio::test]
async fn empty_datagrams_pass_both_ways() {
    let port = free();
    let node = Node::with_ports(Limits::default(), port..=port).await;
    let _served = served(&node, "one", wish(port, "one", 10)).await;
    let player = Player::at(port).await;
    player.ask(b"", b"one:").await;
    player.ask(b"nothing", b"").await;
}

#[tokio::test]
async fn flows_end_with_what_their_port_leads_to() {
    let port = free();
    let node = Node::with_ports(Limits::default(), port..=port).await;
    let (one, ..) = &served(&node, "one", wish(port, "one", 10)).await;
    let player = Player::at(port).await;
    player.ask(b"who?", b"one:who?").await;
    // To another service, and then to another tunnel.
    node.registry.put_ports(Timestamp::now(), one.id, &[wish(port, "other", 10)]).await.unwrap();
    player.ask(b"who?", b"other:who?").await;
    node.registry.delete_port(one.id, PortId::udp(port)).await.unwrap();
    let _two = served(&node, "two", wish(port, "two", 10)).await;
    player.ask(b"who?", b"two:who?").await;
}

#[tokio::test]
async fn who_is_displaced_is_not_opened_any_more() {
    let port = free();
    let node = Node::with_ports(Limits::default(), port..=port).await;
    let (_, _agent, origin) = served(&node, "one", wish(port, "never", 1)).await;
    let mut players = Vec::new();
    for _ in 0..10 {
        let player = Player::at(port).await;
        let before = origin.openings.load(Ordering::SeqCst);
        let opening = async || {
            player.say(b"x").await;
            origin.openings.load(Ordering::SeqCst) > before
        };
        eventually("a flow is being opened", opening).await;
        players.push(player);
    }
    counted(&node, "snicket_edge_flows 1").await;
    origin.given_up(9).await;
}

#[tokio::test]
async fn flows_go_on_while_a_node_stops() {
    let port = free();
    let node = Arc::new(Node::with_ports(Limits::default(), port..=port).await);
    let _served = served(&node, "one", wish(port, "one", 10)).await;
    let player = Player::at(port).await;
    player.ask(b"before", b"one:before").await;
    let draining = node.connections.draining();
    let stopping = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.running.shutdown(PATIENCE).await }
    });
    draining.cancelled().await;
    // Longer than a node would wait for last answers.
    for _ in 0..4 {
        player.ask(b"still", b"one:still").await;
        tokio::time::sleep(AGAIN).await;
    }
    // Nothing new begins, and silence ends what is left.
    let newcomer = Player::at(port).await;
    newcomer.say(b"hello").await;
    newcomer.is_answered(0).await;
    assert!(stopping.await.unwrap());
}

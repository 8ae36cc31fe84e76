//! Starts that cannot work, and what is said of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use harness::{Edge, Network, Origin, Program};

use crate::rig::{TRANSPORTS, Tunnel, home};

/// The same credentials with another secret.
fn forge(credentials: &str) -> String {
    let text = std::fs::read_to_string(credentials).expect("the credentials can be read");
    let mut forged: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    forged["TunnelSecret"] = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into();
    forged.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_said_and_tried_again() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "secret").await;
    for transport in TRANSPORTS {
        let home = home();
        let file = home.path().join("forged.json");
        std::fs::write(&file, forge(&tunnel.credentials)).expect("the file can be written");
        let (address, ca) = (edge.tunnel().to_string(), edge.ca().display().to_string());
        let file = file.display().to_string();
        let words =
            ["tunnel", "--edge", &address, "--cacert", &ca, "--metrics", "127.0.0.1:0", "--protocol", transport];
        let run = ["run", "--credentials-file", &file, "--url", &origin.service()];
        let mut agent = Program::new(home.path(), &[&words[..], &run].concat()).start().await;
        agent.complaint("Unauthorized").await;
        // It goes on, for the tunnel may just be on its way to this edge; whoever watches learns what to do.
        agent.complaint("token or credentials").await;
        assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 530);
        assert_eq!(agent.terminate().await.code(), Some(0), "it was still trying");
        let said = agent.stderr();
        assert!(!said.contains("MDEyMzQ1"), "the secret is not told: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tunnel_is_said_with_advice() {
    let edge = Edge::start().await;
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let (code, out, error) = edge.command(&["tunnel", "delete", &tunnel.name]).await;
        assert_eq!(code, 0, "{out}{error}");
        let home = home();
        let program = tunnel.program(home.path(), edge.tunnel(), &["--protocol", transport, "--hello-world"]);
        let mut agent = program.start().await;
        agent.complaint("Unauthorized").await;
        agent.complaint("deleted").await;
        agent.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_not_there_is_said_and_waited_for() {
    let (origin, mut edge) = (Origin::start().await, Edge::start().await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        edge.kill().await;
        let home = home();
        let arguments = ["--protocol", transport, "--url", &origin.service()];
        let mut agent = tunnel.program(home.path(), edge.tunnel(), &arguments).start().await;
        agent.complaint("no connection to the edge").await;
        edge.start_again().await;
        agent.event("ready").await;
        assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_trusts_is_said() {
    let (edge, other) = (Edge::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "foreign").await;
    for transport in TRANSPORTS {
        let home = home();
        let arguments = ["--protocol", transport, "--hello-world", "--cacert", &other.ca().display().to_string()];
        let token = tunnel.token.display().to_string();
        let address = edge.tunnel().to_string();
        let words = ["tunnel", "--edge", &address, "--metrics", "127.0.0.1:0", "run", "--token-file", &token];
        let agent = Program::new(home.path(), &[&words[..], &arguments].concat()).start().await;
        agent.complaint("not trusted").await;
        agent.complaint("--cacert").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_not_for_agents_is_said() {
    let edge = Edge::start().await;
    let tunnel = Tunnel::create(&edge, "elsewhere").await;
    for transport in TRANSPORTS {
        for address in [edge.https(), edge.api()] {
            // The API has no UDP at all.
            if (transport, address) == ("quic", edge.api()) {
                continue;
            }
            let home = home();
            let agent = tunnel.program(home.path(), address, &["--protocol", transport, "--hello-world"]).start().await;
            agent.complaint("check that this is the edge's address for agents").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_is_an_error_that_says_so() {
    let edge = Edge::start().await;
    let (code, _, error) = edge.command(&["up", "--http", "0", "--https", "0", "--tunnel", "0", "--api", "0"]).await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("in use") && error.contains("--data"), "{error}");
    assert_eq!(edge.call("GET", "/client/v4/accounts", None).await.0, 200, "the other one is not disturbed");
    let (code, out, error) = edge.command(&["tunnel", "list"]).await;
    assert_eq!(code, 0, "it is still announced: {out}{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_registry_is_an_error_that_says_so() {
    let mut edge = Edge::start().await;
    edge.process.terminate().await;
    let file = edge.home().join("data/snicket/edge/registry.redb");
    let whole = std::fs::read(&file).expect("the registry is a file");
    let mut flipped = whole.clone();
    flipped[..64].fill(0x5a);
    for damaged in [b"nonsense".to_vec(), flipped, whole[..whole.len() / 2].to_vec()] {
        std::fs::write(&file, &damaged).expect("the file can be written");
        let (code, _, error) =
            edge.command(&["up", "--http", "0", "--https", "0", "--tunnel", "0", "--api", "0"]).await;
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("registry.redb") && error.contains("what to do"), "{error}");
        assert!(!error.contains("panicked") && !error.contains("another edge uses"), "{error}");
        assert_eq!(std::fs::read(&file).expect("it is left alone"), damaged, "nothing is overwritten");
    }
}

#[test]
fn default_ports_make_way_and_it_is_said() {
    Network::run("start::default_ports_make_way_and_it_is_said", async |_| {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 8443)).expect("nobody else is here");
        let home = home();
        let mut first = Program::new(home.path(), &["up"]).start().await;
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.contains("is taken")) {
            lines.push(first.line().await);
        }
        let said = lines.join("\n");
        assert!(said.contains("8443 is taken") && said.contains("127.0.0.1:8444"), "{said}");
        assert!(said.contains("127.0.0.1:8080") && said.contains("127.0.0.1:7844"), "{said}");
        drop(taken);

        // A second edge on the same machine, with data of its own.
        let other = crate::rig::home();
        let mut second = Program::new(other.path(), &["up", "--json"]).start().await;
        let ready = second.event("ready").await;
        for (key, port) in [("http", 8081), ("https", 8443), ("tunnel", 7846)] {
            let address: SocketAddr = ready[key].as_str().expect("an address").parse().expect("an address");
            assert_eq!(address.port(), port, "{key} in {ready}");
        }
        for process in [&mut first, &mut second] {
            assert_eq!(process.terminate().await.code(), Some(0));
        }
    });
}

#[test]
fn a_default_port_whose_udp_half_is_taken_makes_way() {
    Network::run("start::a_default_port_whose_udp_half_is_taken_makes_way", async |_| {
        let _taken = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 7844)).expect("nobody else is here");
        let home = home();
        let mut edge = Program::new(home.path(), &["up", "--json"]).start().await;
        let ready = edge.event("ready").await;
        assert_ne!(ready["tunnel"], "127.0.0.1:7844", "{ready}");
        assert_eq!(edge.terminate().await.code(), Some(0));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metrics_port_that_was_asked_for_must_be_free() {
    let edge = Edge::start().await;
    let tunnel = Tunnel::create(&edge, "metrics").await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = taken.local_addr().expect("an address").to_string();
    let (edge_address, ca) = (edge.tunnel().to_string(), edge.ca().display().to_string());
    let token = tunnel.token.display().to_string();
    let words = ["tunnel", "--edge", &edge_address, "--cacert", &ca, "--metrics", &address];
    let run = ["run", "--token-file", &token, "--hello-world"];
    let (code, _, error) = edge.command(&[&words[..], &run].concat()).await;
    assert!(code == 1 && error.contains("/metrics") && error.contains("--metrics"), "{code} {error}");
}

//! Origins whose certificates the edge's own authority signed: the agent verifies them strictly, without a flag.

use std::path::PathBuf;

use harness::{Agent, Edge, Identity, LIMIT, Origin, until};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// An identity for these names, whose certificate this edge made.
async fn certified(edge: &Edge, names: &[&str]) -> Identity {
    let key = KeyPair::generate().expect("keys can be made");
    let request = CertificateParams::default().serialize_request(&key).and_then(|request| request.pem());
    let body = json!({ "csr": request.expect("it can be written"), "hostnames": names, "request_type": "origin-ecc" });
    let (status, answer) = edge.call("POST", "/client/v4/certificates", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    Identity::of(answer["result"]["certificate"].as_str().expect("a certificate"), &key.serialize_pem())
}

async fn visited(edge: &Edge, identity: &Identity) -> u16 {
    let origin = Origin::start_secure(identity).await;
    let agent = Agent::start(edge, &origin.service(), &[]).await;
    edge.visitor().get(&agent.url("/")).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_edge_is_trusted_for_its_names_by_its_agents() {
    let edge = Edge::start().await;
    // The agent asks the origin for `localhost`, which is the edge's domain here.
    let identity = certified(&edge, &["localhost", "*.localhost"]).await;
    assert_eq!(visited(&edge, &identity).await, 200);

    let of_another_name = certified(&edge, &["app.localhost"]).await;
    assert_eq!(visited(&edge, &of_another_name).await, 526);
    assert_eq!(visited(&edge, &Identity::new(&["localhost"])).await, 526, "nobody signed it");
    let other = Edge::start().await;
    assert_eq!(visited(&other, &identity).await, 526, "another edge's authority is a stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_the_same_after_a_restart_and_for_named_tunnels() {
    let mut edge = Edge::start().await;
    let identity = certified(&edge, &["app.localhost"]).await;
    let stopped = edge.process.terminate().await;
    assert!(stopped.success(), "{stopped}");
    edge.start_again().await;
    let origin = Origin::start_secure(&identity).await;
    let token = edge.named_tunnel("shop", "app.localhost").await;
    let token = token.to_str().expect("a name");
    let service = origin.service();
    let rules = ["--url", &service, "--origin-server-name", "app.localhost"];
    let _agent = Agent::tunnel(&edge, &[&rules[..], &["run", "--token-file", token]].concat()).await;
    let url = format!("https://app.localhost:{}/", edge.https().port());
    assert_eq!(edge.visitor().get(&url).await.status, 200);
}

/// An origin behind an agent that stays, and that may come again with another certificate.
struct Renewed {
    _agent: Agent,
    _directory: TempDir,
    socket: PathBuf,
    url: String,
}

impl Renewed {
    async fn start(edge: &Edge, transport: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let (socket, name) = (directory.path().join("origin"), format!("{transport}.localhost"));
        let token = edge.named_tunnel(transport, &name).await;
        let (token, service) = (token.to_str().expect("a name"), format!("unix+tls:{}", socket.display()));
        let rules = ["--protocol", transport, "--url", &service, "--origin-server-name", "app.localhost"];
        let agent = Agent::tunnel(edge, &[&rules[..], &["run", "--token-file", token]].concat()).await;
        let url = format!("https://{name}:{}/", edge.https().port());
        Self { _agent: agent, _directory: directory, socket, url }
    }

    async fn visited(&self, edge: &Edge, identity: &Identity) -> u16 {
        let origin = Origin::start_secure_at(&self.socket, identity);
        let status = edge.visitor().get(&self.url).await.status;
        assert_eq!(origin.requests(), usize::from(status == 200), "the agent has no older connection");
        drop(origin);
        let is_gone = async || UnixStream::connect(&self.socket).await.is_err();
        until(LIMIT, "its connections are closed, as what listens is", is_gone).await;
        std::fs::remove_file(&self.socket).expect("it was made");
        status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_rotated_under_agents_that_stay_connected() {
    let edge = Edge::start().await;
    let origins = [Renewed::start(&edge, "http2").await, Renewed::start(&edge, "quic").await];
    let before = certified(&edge, &["app.localhost"]).await;
    let said = edge.said(&["registry", "rotate-authority", "origins"]).await;
    assert!(said.contains("rotate-authority origins --end"), "{said}");
    let after = certified(&edge, &["app.localhost"]).await;
    for origin in &origins {
        until(LIMIT, "the new one is trusted", async || origin.visited(&edge, &after).await == 200).await;
        assert_eq!(origin.visited(&edge, &before).await, 200, "and so is the one before");
    }
    let late = Renewed::start(&edge, "auto").await;
    assert_eq!((late.visited(&edge, &before).await, late.visited(&edge, &after).await), (200, 200));

    let (code, _, said) = edge.command(&["registry", "rotate-authority", "origins"]).await;
    assert!(code == 1 && said.contains("still trusted") && said.contains("--end"), "{said}");
    assert!(!said.contains("another name"), "{said}");
    edge.said(&["registry", "rotate-authority", "origins", "--end"]).await;
    for origin in origins.iter().chain([&late]) {
        until(LIMIT, "the former one is trusted no more", async || origin.visited(&edge, &before).await == 526).await;
        assert_eq!(origin.visited(&edge, &after).await, 200);
    }
    let (code, _, said) = edge.command(&["registry", "rotate-authority", "origins", "--end"]).await;
    assert!(code == 1 && said.contains("no former authority"), "{said}");
}

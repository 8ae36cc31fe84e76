//! `snicket up`, and what joins it with our own agent.

use std::sync::Arc;

use harness::{Agent, Edge, Http, Identity, LIMIT, Origin, Program, Visitor, until};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn http_shares_an_origin_under_a_name_that_comes_again() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let host = agent.host();
    assert!(host.ends_with(".localhost"), "{host}");
    let answer = edge.visitor().over(Http::Two).post(&agent.url("/echo"), "ping").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ping"));

    let home = agent.stop().await;
    let answer = edge.visitor().get(&format!("https://{host}:{}/", edge.https().port())).await;
    assert_eq!(answer.status, 530, "a tunnel without connections: {}", answer.text());

    let agent = Agent::start_at(&edge, &origin.service(), &[], home).await;
    assert_eq!(agent.host(), host);
    assert_eq!(edge.visitor().get(&agent.url("/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_on_the_same_machine_is_found_without_flags() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let words = ["http", &origin.service(), "--metrics", "127.0.0.1:0", "--json", "--name", "chosen"];
    let mut process = Program::new(edge.home(), &words).start().await;
    let ready = process.event("ready").await;
    for key in ["api", "tunnel", "https", "http", "ca", "token_file"] {
        assert_eq!(ready[key], edge.ready()[key], "{key} is the edge's: {ready}");
    }
    let url = ready["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://chosen.localhost:"), "{url}");
    assert_eq!(edge.visitor().get(&url).await.status, 200);
    edge.said(&["health", "--metrics", ready["metrics"].as_str().unwrap()]).await;
    edge.said(&["health", "--api", &edge.api().to_string()]).await;
    assert_eq!(process.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_has_is_refused() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let _agent = Agent::start(&edge, &origin.service(), &["--name", "mine"]).await;
    let home = tempfile::tempdir().unwrap();
    let (api, ca) = (edge.api().to_string(), edge.ca().display().to_string());
    let words = ["http", "1", "--edge", &api, "--ca", &ca, "--name", "mine"];
    let (code, _, error) = Program::new(home.path(), &words).run().await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("taken") && error.contains("--name"), "{error}");
}

async fn create(edge: &Edge, name: &str) -> Value {
    serde_json::from_str(&edge.said(&["tunnel", "create", "--json", name]).await).expect("one event is printed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_tunnel_runs_by_its_token_over_both_transports() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let file = edge.named_tunnel("web", "www.localhost").await.display().to_string();
    let connectors = async || {
        let info: Value = serde_json::from_str(&edge.said(&["tunnel", "info", "--json", "web"]).await).unwrap();
        info["conns"].as_array().map_or(0, Vec::len)
    };
    for protocol in ["quic", "http2"] {
        let words = ["--protocol", protocol, "run", "--token-file", &file, "--url", &origin.service()];
        let mut agent = Agent::tunnel(&edge, &words).await;
        assert_eq!(agent.ready()["protocol"], protocol);
        let answer = edge.visitor().get(&format!("https://www.localhost:{}/request", edge.https().port())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(connectors().await, 1);
        assert_eq!(agent.process.terminate().await.code(), Some(0));
        // A connection that was still registering is noticed by its silence.
        until(LIMIT, "the edge lists none", async || connectors().await == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_tunnel_runs_by_credentials_file_and_config_yml() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let created = create(&edge, "web").await;
    edge.said(&["tunnel", "route", "dns", "web", "*.localhost"]).await;
    let config = edge.home().join("config.yml");
    std::fs::write(
        &config,
        format!(
            "tunnel: {}\ncredentials-file: {}\ningress:\n  - hostname: a.localhost\n    service: {}\n  - service: http_status:418\n",
            created["id"].as_str().unwrap(),
            created["credentials_file"].as_str().unwrap(),
            origin.service()
        ),
    )
    .unwrap();
    let mut agent = Agent::tunnel(&edge, &["--config", &config.display().to_string(), "run"]).await;
    let url = |name: &str| format!("https://{name}.localhost:{}/", edge.https().port());
    assert_eq!(edge.visitor().get(&url("a")).await.text(), "hello from the origin");
    assert_eq!(edge.visitor().get(&url("b")).await.status, 418);

    // SIGHUP reads the file again.
    let changed = std::fs::read_to_string(&config).unwrap().replace("418", "410");
    std::fs::write(&config, changed).unwrap();
    agent.process.signal("HUP").await;
    agent.process.event_where(|event| event["event"] == "configuration" && event["applied"] == true).await;
    assert_eq!(edge.visitor().get(&url("b")).await.status, 410);
}

/// A token of no tunnel in particular.
const ANY_TOKEN: &str = "\
    eyJhIjogImFjY291bnQiLCAidCI6ICIxMTExMTExMS0yMjIyLTQzMzMtODQ0NC01NTU1NTU1NTU1NTUiLCAicyI6ICJjM056YzNO\
    emMzTnpjM056YzNOemMzTnpjM056YzNOemMzTnpjM056YzNNPSJ9";

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_named_tunnels_are_managed_from_the_command_line() {
    let edge = Edge::start().await;
    let (web, _) = (create(&edge, "web").await, create(&edge, "api").await);
    let port = |words: &[&str]| {
        let words: Vec<String> = ["tunnel", "port"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let edge = &edge;
        async move { edge.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let (code, out, error) = port(&["add", "web", "udp://10.0.0.5:53", "--idle-timeout", "1m", "--json"]).await;
    assert_eq!(code, 0, "{error}");
    let added: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&added["event"], &added["protocol"], &added["tunnel_id"]), (&json!("port"), &json!("udp"), &web["id"]));
    assert_eq!((&added["service"], &added["idle_seconds"]), (&json!("10.0.0.5:53"), &json!(60)));
    let udp = format!("{}/udp", added["port"]);
    let (_, out, _) = port(&["add", "api", "tcp://db.example.test", "--max-connections", "7"]).await;
    assert!(out.contains("db.example.test through tunnel api") && out.contains("tunnel run api"), "{out}");

    let list = edge.said(&["tunnel", "port", "list"]).await;
    assert!(list.contains(&udp) && list.contains("db.example.test") && list.contains('7'), "{list}");
    let list = edge.said(&["tunnel", "port", "list", "web"]).await;
    assert!(list.contains(&udp) && !list.contains("db.example.test"), "{list}");

    for (words, code, said) in [
        (&["add", "web", "10.0.0.5:53"][..], 2, "udp://10.0.0.5:53"),
        (&["add", "web", "udp://a b"], 1, "service"),
        (&["add", "web", "udp://10.0.0.5:53", "--port", "1"], 1, "public ports"),
        (&["add", "web", "udp://10.0.0.5:53", "--max-connections", "100000"], 1, "at most 5000"),
        (&["add", "nobody", "udp://10.0.0.5:53"], 1, "no tunnel named"),
        (&["rm", "web", "20053"], 2, "20053/udp"),
        (&["rm", "api", &udp], 1, "404"),
    ] {
        let (ended, _, error) = port(words).await;
        assert!(ended == code && error.contains(said), "{words:?}: {error}");
    }
    let removed = edge.said(&["tunnel", "port", "rm", "web", &udp]).await;
    assert!(removed.contains(&udp), "{removed}");
    assert!(edge.said(&["tunnel", "port", "list", "web"]).await.contains("No ports"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_managed_from_the_command_line() {
    let edge = Edge::start().await;
    let created = create(&edge, "web").await;
    let list = edge.said(&["tunnel", "list"]).await;
    assert!(list.contains(created["id"].as_str().unwrap()) && list.contains("web"), "{list}");
    let (code, _, error) = edge.command(&["tunnel", "create", "web"]).await;
    assert!(code == 1 && error.contains("web"), "the name is taken: {error}");
    edge.said(&["tunnel", "cleanup", "web"]).await;
    edge.said(&["tunnel", "delete", "web"]).await;
    let list = edge.said(&["tunnel", "list", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), json!([]));
    let (code, _, error) = edge.command(&["tunnel", "info", "web"]).await;
    assert!(code == 1 && error.contains("no tunnel named"), "{error}");
    // What `snicket cloudflared` prints names the same edge, whose token is at hand.
    let printed: Value = serde_json::from_str(&edge.said(&["cloudflared", "--json"]).await).unwrap();
    edge.said(&["tunnel", "--api-url", printed["variables"]["TUNNEL_API_URL"].as_str().unwrap(), "list"]).await;
    // The edge on this machine does not stand in for another one.
    let token = edge.home().join("token");
    std::fs::write(&token, ANY_TOKEN).unwrap();
    let token = token.display().to_string();
    let words = ["tunnel", "--api-url", "https://edge.example.test", "run", "--token-file", &token];
    let (code, _, error) = edge.command(&words).await;
    assert!(code == 2 && error.contains("edge.example.test is not on this machine"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cert_pem_is_the_right_to_manage_from_elsewhere() {
    let edge = Edge::start().await;
    let home = tempfile::tempdir().unwrap();
    let cert = home.path().join("cert.pem").display().to_string();
    let api = format!("http://{}", edge.api());
    let words = ["tunnel", "--origincert", &cert, "--api-url", &api, "login", "--token-file", "-"];
    let (code, out, error) = Program::new(home.path(), &words).input(&edge.token()).run().await;
    assert_eq!(code, 0, "{out}{error}");
    assert!(!out.contains(&edge.token()) && !error.contains(&edge.token()));
    let words = ["tunnel", "--origincert", &cert, "--api-url", &api, "create", "elsewhere"];
    let (code, out, error) = Program::new(home.path(), &words).run().await;
    assert_eq!(code, 0, "{out}{error}");
    let (_, out, _) = edge.command(&["tunnel", "list"]).await;
    assert!(out.contains("elsewhere"), "{out}");

    let words = ["tunnel", "--origincert", &cert, "--api-url", &api, "login", "--token-file", "-"];
    let (code, _, error) = Program::new(home.path(), &words).input("wrong").run().await;
    assert!(code == 2 && error.contains("exists already"), "{error}");
    let other = home.path().join("other.pem").display().to_string();
    let words = ["tunnel", "--origincert", &other, "--api-url", &api, "login", "--token-file", "-"];
    let (code, _, error) = Program::new(home.path(), &words).input("wrong").run().await;
    assert!(code == 1 && error.contains("403"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cloudflared_needs_is_printed() {
    let edge = Edge::start().await;
    let cert = edge.home().join("stock.pem");
    let out = edge.said(&["cloudflared", "--write-cert", &cert.display().to_string()]).await;
    for expected in [
        format!("TUNNEL_EDGE={}", edge.tunnel()),
        format!("TUNNEL_CACERT={}", edge.ca().display()),
        format!("TUNNEL_API_URL=http://{}/client/v4", edge.api()),
        "--quick-service".to_owned(),
    ] {
        assert!(out.contains(&expected), "{expected} in {out}");
    }
    assert!(!out.contains(&edge.token()));
    assert!(std::fs::read_to_string(cert).unwrap().starts_with("-----BEGIN ARGO TUNNEL TOKEN-----"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_shown_once_and_kept_for_its_owner() {
    let home = tempfile::tempdir().unwrap();
    let words = ["up", "--http", "0", "--https", "0", "--tunnel", "0", "--api", "0"];
    let mut shown = Vec::new();
    for _ in 0..2 {
        let mut process = Program::new(home.path(), &words).start().await;
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.contains("Ctrl-C")) {
            lines.push(process.line().await);
        }
        shown.push(lines.concat());
        assert_eq!(process.terminate().await.code(), Some(0));
    }
    let token = std::fs::read_to_string(home.path().join("data/snicket/edge/api-token")).unwrap();
    assert!(shown[0].contains(token.trim()));
    assert!(!shown[1].contains(token.trim()));
    assert!(!home.path().join("data/snicket/edge/edge.json").exists(), "a stopped edge is not announced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
    let edge = Edge::start().await;
    let home = tempfile::tempdir().unwrap();
    let taken = edge.https().to_string();
    let words = ["up", "--http", "0", "--https", &taken, "--tunnel", "0", "--api", "0"];
    let (code, _, error) = Program::new(home.path(), &words).run().await;
    assert_eq!(code, 1);
    assert!(error.contains(&taken) && error.contains("ss -lntup"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_read_again() {
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let write = |identity: &Identity| {
        std::fs::write(&key, identity.key()).unwrap();
        std::fs::write(&cert, identity.certificate()).unwrap();
    };
    let (old, new) = (Identity::new(&["own.localhost"]), Identity::new(&["own.localhost"]));
    write(&old);
    let words = ["--cert", &cert.display().to_string(), "--key", &key.display().to_string()];
    let edge = Edge::start_with(&words).await;
    let shown = async |trusted: &Identity| {
        let file = files.path().join("trusted.pem");
        std::fs::write(&file, trusted.certificate()).unwrap();
        let tcp = tokio::net::TcpStream::connect(edge.https()).await.unwrap();
        let tls = Arc::new(Visitor::new(edge.https(), edge.http(), &file).tls());
        let name = rustls::pki_types::ServerName::try_from("own.localhost").unwrap();
        tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.is_ok()
    };
    assert!(shown(&old).await && !shown(&new).await);
    write(&new);
    edge.process.signal("HUP").await;
    edge.process.complaint("the certificate on disk has changed and is in use").await;
    assert!(shown(&new).await && !shown(&old).await);
    // What cannot be used changes nothing.
    std::fs::write(&cert, "no certificate").unwrap();
    edge.process.signal("HUP").await;
    edge.process.complaint("cannot be used; the old one stays").await;
    assert!(shown(&new).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_events_for_programs() {
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let rules = edge.home().join("rules.yml");
    std::fs::write(&rules, "ingress:\n  - service: http_status:404\n").unwrap();
    let (rules, api) = (rules.display().to_string(), edge.api().to_string());
    let served = edge.named_tunnel("served", "served.localhost").await.display().to_string();
    let _agent = Agent::tunnel(&edge, &["run", "--token-file", &served, "--url", &origin.service()]).await;
    for (words, event) in [
        (&["tunnel", "create", "web"][..], "tunnel"),
        (&["tunnel", "list"], "tunnel"),
        (&["tunnel", "info", "served"], "tunnel"),
        (&["tunnel", "route", "dns", "web", "www.localhost"], "route"),
        (&["tunnel", "token", "web"], "token"),
        (&["tunnel", "cleanup", "web"], "cleaned"),
        (&["tunnel", "delete", "web"], "deleted"),
        (&["tunnel", "--config", &rules, "ingress", "validate"], "rules"),
        (&["tunnel", "--config", &rules, "ingress", "rule", "https://www.localhost/"], "rule"),
        (&["cloudflared"], "cloudflared"),
        // Alone it would also find agents of others on this machine.
        (&["health", "--api", &api], "health"),
        (&["doctor"], "check"),
        (&["explain"], "explanation"),
        (&["explain", "1033"], "explanation"),
    ] {
        let out = edge.said(&[&["--json"], words].concat()).await;
        assert!(!out.is_empty(), "{words:?}");
        for line in out.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error}: {line}"));
            assert_eq!(value["event"], event, "{words:?}: {line}");
        }
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn files_with_secrets_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let edge = Edge::start().await;
    let created = create(&edge, "web").await;
    let file = edge.home().join("web.token").display().to_string();
    edge.said(&["tunnel", "token", "--cred-file", &file, "web"]).await;
    let cert = edge.home().join("stock.pem");
    edge.said(&["cloudflared", "--write-cert", &cert.display().to_string()]).await;
    let data = edge.home().join("data/snicket/edge");
    let credentials = created["credentials_file"].as_str().unwrap().into();
    let secret = ["api-token", "ca.key", "registry.redb"].map(|name| data.join(name));
    for path in secret.into_iter().chain([credentials, file.into(), cert]) {
        let mode = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{}", path.display());
    }
}

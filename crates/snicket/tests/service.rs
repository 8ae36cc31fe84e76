//! Running as a service, and being told how to run: systemd, pid file, flags over variables over files.

use harness::{Agent, Edge, LIMIT, Origin, Program, Visitor};
use tokio::net::UnixDatagram;

const FREE_PORTS: [&str; 8] = ["--http", "0", "--https", "0", "--tunnel", "0", "--api", "0"];

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_and_the_pid_is_written() {
    let home = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
    let pidfile = home.path().join("pid");
    let arguments = [&["up", "--json", "--pidfile", "pid"][..], &FREE_PORTS].concat();
    let program = Program::new(home.path(), &arguments).env("NOTIFY_SOCKET", home.path().join("notify"));
    let mut process = program.start().await;
    process.event("ready").await;
    let mut buffer = [0; 64];
    let length = tokio::time::timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), process.id().to_string());
    assert_eq!(process.terminate().await.code(), Some(0));
    assert!(!pidfile.exists(), "a stopped process has no pid file");
    let length = tokio::time::timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..length], b"STOPPING=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_are_stronger_than_variables_and_those_than_the_file() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("edge.yml"), "domain: file.test\nlocation: file\ndata: from-file\nhttp: 0\n")
        .unwrap();
    let arguments =
        ["up", "--json", "--config", "edge.yml", "--domain", "flag.test", "--http", "0", "--https", "0", "--api", "0"];
    let program = Program::new(home.path(), &arguments)
        .env("SNICKET_DOMAIN", "variable.test")
        .env("SNICKET_LOCATION", "variable")
        .env("SNICKET_TUNNEL", "127.0.0.1:0,127.0.0.1:0");
    let mut process = program.start().await;
    let ready = process.event("ready").await;
    assert_eq!(ready["domain"], "flag.test");
    assert!(ready["ca"].as_str().unwrap().contains("from-file"), "{ready}");
    assert!(ready["api"].as_str().unwrap().starts_with("http://127.0.0.1:"), "the API stays on this machine: {ready}");
    assert!(!ready["https"].as_str().unwrap().starts_with("127."), "visitors of a domain come from elsewhere: {ready}");
    let api = ready["api"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
    let known = Visitor::plain(api).get("/.well-known/snicket").await;
    let known: serde_json::Value = serde_json::from_slice(&known.body).unwrap();
    assert_eq!(known["location"], "variable");
    assert_eq!(known["tunnel"].as_array().map(Vec::len), Some(2), "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostics_go_to_a_file_as_json() {
    let home = tempfile::tempdir().unwrap();
    let arguments =
        [&["up", "--json", "--logfile", "edge.log", "--output", "json", "--loglevel", "info"][..], &FREE_PORTS]
            .concat();
    let mut process = Program::new(home.path(), &arguments).start().await;
    let api = process.event("ready").await["api"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
    let made = Visitor::plain(api).post("/tunnel", "").await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(process.terminate().await.code(), Some(0));
    assert_eq!(process.stderr(), "");
    let log = std::fs::read_to_string(home.path().join("edge.log")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["fields"]["message"].to_string().contains("quick tunnel")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_elsewhere_is_trusted_by_its_ca_over_tls() {
    let arguments = ["--domain", "localhost", "--quick-tunnels", "token"];
    let (edge, origin) = (Edge::start_with(&arguments).await, Origin::start().await);
    let home = tempfile::tempdir().unwrap();
    let (api, ca) = (format!("https://localhost:{}", edge.api().port()), edge.ca().display().to_string());
    let (service, token) = (origin.service(), edge.token_file().display().to_string());
    let words = ["http", &service, "--edge", &api, "--metrics", "127.0.0.1:0", "--json"];

    let (code, _, error) = Program::new(home.path(), &words).run().await;
    assert!(code == 1 && error.contains("--ca"), "an unknown authority: {error}");
    let with_ca = [&words[..], &["--ca", &ca]].concat();
    let (code, _, error) = Program::new(home.path(), &with_ca).run().await;
    assert!(code == 1 && error.contains("--token-file"), "no token: {error}");
    let whole = [&with_ca[..], &["--token-file", &token]].concat();
    let mut process = Program::new(home.path(), &whole).start().await;
    let url = process.event("ready").await["url"].as_str().unwrap().to_owned();
    assert_eq!(edge.visitor().get(&url).await.text(), "hello from the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn default_ports_that_are_taken_make_way_and_it_is_said() {
    // Whoever comes first gets the default ports of this machine, perhaps a program that runs here anyway.
    let home = tempfile::tempdir().unwrap();
    let mut first = Program::new(home.path(), &["try", "--json"]).start().await;
    let first_ready = first.event("ready").await;
    let mut second = Program::new(home.path(), &["try", "--json"]).start().await;
    let second_ready = second.event("ready").await;
    assert_ne!(first_ready["https"], second_ready["https"]);
    let notice =
        second.event_where(|event| event["event"] == "notice" && event["text"].to_string().contains("https")).await;
    assert!(notice["text"].as_str().unwrap().contains("8443 is taken"), "{notice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_forms_of_tunnel() {
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let service = origin.service();
    let words = ["tunnel", "--url", &service, "--metrics", "127.0.0.1:0", "--json"];
    let mut quick = Program::new(edge.home(), &words).start().await;
    let ready = quick.event("ready").await;
    tells_of(&edge, &ready);
    let url = ready["url"].as_str().unwrap().to_owned();
    assert_eq!(edge.visitor().get(&url).await.text(), "hello from the origin");
    assert_eq!(quick.terminate().await.code(), Some(0));

    let words = [
        "tunnel",
        "--name",
        "web",
        "--hostname",
        "www.localhost",
        "--url",
        &service,
        "--metrics",
        "127.0.0.1:0",
        "--json",
    ];
    for _ in 0..2 {
        let mut named = Program::new(edge.home(), &words).start().await;
        let ready = named.event("ready").await;
        tells_of(&edge, &ready);
        let url = ready["url"].as_str().unwrap().to_owned();
        assert_eq!(url, format!("https://www.localhost:{}", edge.https().port()));
        assert_eq!(edge.visitor().get(&url).await.text(), "hello from the origin");
        assert_eq!(named.terminate().await.code(), Some(0));
    }
    let words = ["tunnel", "--hello-world", "--metrics", "127.0.0.1:0", "--json"];
    let mut hello = Program::new(edge.home(), &words).start().await;
    let url = hello.event("ready").await["url"].as_str().unwrap().to_owned();
    assert_eq!(edge.visitor().get(&url).await.status, 200);

    let mut run =
        Program::new(edge.home(), &["tunnel", "--metrics", "127.0.0.1:0", "--json", "run", "web"]).start().await;
    tells_of(&edge, &run.event("ready").await);
    let elsewhere = Agent::tunnel(&edge, &["run", "--token", &token_of(&edge, "web").await]).await;
    let ready = elsewhere.ready();
    assert_eq!(ready["tunnel"], edge.ready()["tunnel"], "the address that it dialled: {ready}");
    assert_eq!(ready["ca"], edge.ready()["ca"]);
    assert!(ready["api"].is_null() && ready["https"].is_null(), "nobody told it: {ready}");
}

/// All that a program on the edge's own machine can say of it.
fn tells_of(edge: &Edge, ready: &serde_json::Value) {
    for key in ["domain", "api", "tunnel", "https", "http", "ca", "token_file"] {
        assert_eq!(ready[key], edge.ready()[key], "{key}: {ready}");
    }
}

async fn token_of(edge: &Edge, tunnel: &str) -> String {
    let (code, token, error) = edge.command(&["tunnel", "token", tunnel]).await;
    assert_eq!(code, 0, "{error}");
    token.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflareds_variables_are_read() {
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let token = std::fs::read_to_string(edge.named_tunnel("web", "www.localhost").await).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut process = Program::new(home.path(), &["tunnel", "run", "--json"])
        .env("TUNNEL_TOKEN", token.trim())
        .env("TUNNEL_EDGE", edge.tunnel().to_string())
        .env("TUNNEL_CACERT", edge.ca())
        .env("TUNNEL_URL", origin.service())
        .env("TUNNEL_METRICS", "127.0.0.1:0")
        .env("TUNNEL_TRANSPORT_PROTOCOL", "http2")
        .env("TUNNEL_TAG", "room=attic,rack=3")
        .start()
        .await;
    assert_eq!(process.event("ready").await["protocol"], "http2");
    let url = format!("https://www.localhost:{}/request", edge.https().port());
    let seen = edge.visitor().get(&url).await.text();
    assert!(seen.contains("cf-warp-tag-room") && seen.contains("attic"), "{seen}");
    assert!(seen.contains("cf-warp-tag-rack"), "{seen}");
    assert!(!process.stderr().contains(token.trim()), "a token is never logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_and_health_find_what_runs() {
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let (code, out, error) = edge.command(&["doctor", "--json"]).await;
    assert_eq!(code, 0, "{out}{error}");
    let checks: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for check in ["edge", "port", "secrets", "ca", "api", "clock", "tcp", "udp"] {
        let found = checks.iter().find(|event| event["check"] == check);
        assert!(found.is_some_and(|event| event["verdict"] != "fail"), "{check} in {out}");
    }
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let metrics = agent.metrics().to_string();
    let (code, out, _) = edge.command(&["tunnel", "--metrics", &metrics, "ready"]).await;
    assert!(code == 0 && out.contains("ready"), "{out}");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(edge.token_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let (code, out, _) = edge.command(&["doctor"]).await;
        assert!(code == 1 && out.contains("chmod 600"), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn login_by_a_page_of_the_edge() {
    let edge = Edge::start().await;
    let home = tempfile::tempdir().unwrap();
    let api = format!("http://{}", edge.api());
    let words = ["tunnel", "--api-url", &api, "--origincert", "cert.pem", "login", "--json"];
    let mut process = Program::new(home.path(), &words).start().await;
    let page = process.event("login_page").await["url"].as_str().unwrap().to_owned();
    let visitor = Visitor::plain(edge.api());
    let shown = visitor.get(&page).await;
    assert_eq!(shown.status, 200, "{}", shown.text());
    let text = shown.text();
    let key = text.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("key={}&token={}", key.replace('=', "%3D"), edge.token());
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let done = visitor.request("POST", "/argotunnel", &headers, form).await;
    assert_eq!(done.status, 200, "{}", done.text());
    process.event("login").await;
    assert_eq!(process.wait().await.code(), Some(0));
    let cert = std::fs::read_to_string(home.path().join("cert.pem")).unwrap();
    assert!(cert.contains("ARGO TUNNEL TOKEN"));
}

//! Zones go to other name servers: to a real BIND, and to `dig` and `kdig`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use harness::{Edge, LIMIT, Visitor, lasting_address, peer, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{address, dig};

/// Of keys, in base64.
const SECRETS: [&str; 3] = [
    "0dE7tQ0tV7hU8N1kq6gP2m7Q5o1m0Z0n8rV6sQJ9x1k=",
    "b3RoZXItc2VjcmV0LW9mLXRoZS1zYW1lLWxlbmd0aC0=",
    "dGhpcmQtc2VjcmV0LW9mLXRoZS1zYW1lLWxlbmd0aC0=",
];

/// A secondary for `example.test`.
struct Bind {
    address: SocketAddr,
    process: Child,
    home: TempDir,
}

impl Bind {
    /// Starts one that has the first key, and fetches the zone from this address; it is at its own address already.
    fn start(program: &Path, address: SocketAddr, primary: SocketAddr) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let (directory, port) = (home.path().display(), address.port());
        let (server, server_port) = (primary.ip(), primary.port());
        let secret = SECRETS[0];
        let configuration = format!(
            r#"options {{
                directory "{directory}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no;
                allow-transfer {{ none; }}; masterfile-format text;
            }};
            controls {{ }};
            key "key.test" {{ algorithm hmac-sha256; secret "{secret}"; }};
            zone "example.test" {{
                type secondary; file "zone"; primaries {{ {server} port {server_port} key "key.test"; }};
            }};"#
        );
        let file = home.path().join("named.conf");
        std::fs::write(&file, configuration).expect("a file can be made");
        let log = std::fs::File::create(home.path().join("log")).expect("a file can be made");
        let mut command = Command::new(program);
        command.args(["-g", "-n", "1", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.kill_on_drop(true).spawn().expect("named starts");
        Self { address, process, home }
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = self.process.try_wait();
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- named ({ended:?})\n{log}");
        }
    }
}

/// An edge with the zone `example.test`, and what its API needs.
struct Setting {
    edge: Edge,
    zone: String,
    account: String,
}

impl Setting {
    async fn start(arguments: &[&str]) -> Self {
        let edge = Edge::start_with(&[&["--dns", "127.0.0.1:0", "--domain", "tunnel.test"], arguments].concat()).await;
        let (_, made) = edge.call("POST", "/client/v4/zones", Some(json!({ "name": "example.test" }))).await;
        let text = |value: &Value| value.as_str().expect("it has an id").to_owned();
        let (zone, account) = (text(&made["result"]["id"]), text(&made["result"]["account"]["id"]));
        Self { edge, zone, account }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let path = path.replace("ACCOUNT", &self.account).replace("ZONE", &self.zone);
        let (status, answer) = self.edge.call(method, &format!("/client/v4{path}"), body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["result"].clone()
    }

    async fn record(&self, name: &str, kind: &str, content: &str, proxied: bool) -> String {
        let body = json!({ "name": name, "type": kind, "content": content, "proxied": proxied });
        let made = self.call("POST", "/zones/ZONE/dns_records", Some(body)).await;
        made["id"].as_str().expect("it has an id").to_owned()
    }

    /// A peer with this key.
    async fn peer(&self, number: usize, algorithm: &str, ip: Option<&str>, port: u16) -> Value {
        let name = if number == 0 { "key.test".to_owned() } else { format!("key{number}.test.") };
        let key = json!({ "name": name, "algo": algorithm, "secret": SECRETS[number] });
        let key = self.call("POST", "/accounts/ACCOUNT/secondary_dns/tsigs", Some(key)).await;
        let peer = json!({ "name": "peer", "ip": ip, "port": port, "tsig_id": key["id"] });
        self.call("POST", "/accounts/ACCOUNT/secondary_dns/peers", Some(peer)).await["id"].clone()
    }
}

/// What `dig` prints of a transfer, with more words.
async fn transfer(program: &Path, server: SocketAddr, words: &[&str]) -> String {
    ask(program, server, "AXFR", words).await
}

async fn ask(program: &Path, server: SocketAddr, kind: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "example.test", kind]).args(words);
    let output = command.output().await.expect("dig starts");
    String::from_utf8(output.stdout).expect("is text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_secondary_has_each_change() {
    let (Some(dig_program), Some(named)) = (peer("dig", "install bind9-dnsutils"), peer("named", "install bind9"))
    else {
        return;
    };
    let setting = Setting::start(&[]).await;
    let server = address(&setting.edge);
    let www = setting.record("www", "A", "192.0.2.1", false).await;
    setting.record("app", "A", "192.0.2.99", true).await;
    setting.record("@", "TXT", "v=1", false).await;
    setting.record("*.wild", "TXT", "wild", false).await;
    let bind = lasting_address();
    let peer = setting.peer(0, "hmac-sha256", Some("127.0.0.1"), bind.port()).await;
    let out = "/zones/ZONE/secondary_dns/outgoing";
    let made = setting.call("POST", out, Some(json!({ "name": "example.test", "peers": [peer] }))).await;
    assert_eq!(setting.call("GET", out, None).await, made);
    let bind = Bind::start(&named, bind, server);
    let key = ["-y", &format!("hmac-sha256:key.test:{}", SECRETS[0])];
    assert!(transfer(&dig_program, server, &key).await.contains("Transfer failed"), "not before it is enabled");
    assert_eq!(setting.call("POST", &format!("{out}/enable"), Some(json!({}))).await, "Enabled");
    assert_eq!(setting.call("GET", &format!("{out}/status"), None).await, "Enabled");

    until(LIMIT, "the secondary has the zone", async || {
        dig(&dig_program, bind.address, &["www.example.test"]).await == "192.0.2.1"
    })
    .await;
    assert_eq!(dig(&dig_program, bind.address, &["app.example.test"]).await, "127.0.0.1");
    assert_eq!(dig(&dig_program, bind.address, &["a.wild.example.test", "TXT"]).await, "\"wild\"");
    // In any order.
    let servers = dig(&dig_program, bind.address, &["example.test", "NS"]).await;
    assert!(servers.contains("ns1.tunnel.test.") && servers.contains("ns2.tunnel.test."), "{servers}");

    // By itself it would ask in an hour.
    let body = json!({ "name": "www", "type": "A", "content": "192.0.2.2" });
    setting.call("PUT", &format!("/zones/ZONE/dns_records/{www}"), Some(body)).await;
    until(LIMIT, "the secondary has heard of the change", async || {
        dig(&dig_program, bind.address, &["www.example.test"]).await == "192.0.2.2"
    })
    .await;
    let serial = async |server| dig(&dig_program, server, &["example.test", "SOA"]).await;
    let before = serial(bind.address).await;
    assert_eq!(setting.call("POST", &format!("{out}/force_notify"), Some(json!({}))).await, "OK");
    until(LIMIT, "it fetches it again when it is told to", async || {
        let now = serial(bind.address).await;
        now != before && now == serial(server).await
    })
    .await;

    assert_eq!(setting.call("POST", &format!("{out}/disable"), Some(json!({}))).await, "Disabled");
    assert!(transfer(&dig_program, server, &key).await.contains("Transfer failed"), "not any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_get_a_zone_who_have_the_key_and_are_where_they_should_be() {
    let (Some(dig_program), Some(kdig)) =
        (peer("dig", "install bind9-dnsutils"), peer("kdig", "install knot-dnsutils"))
    else {
        return;
    };
    let setting = Setting::start(&["--dns-tls", "127.0.0.1:0"]).await;
    let server = address(&setting.edge);
    for number in 0..200 {
        setting.record(&format!("host-{number}"), "TXT", &"x".repeat(200), false).await;
    }
    let mut peers = Vec::new();
    for (number, algorithm) in ["hmac-sha256", "hmac-sha384.", "hmac-sha512"].into_iter().enumerate() {
        // Nobody hears of changes there. The last one may ask from anywhere.
        peers.push(setting.peer(number, algorithm, (number < 2).then_some("127.0.0.1"), 9).await);
    }
    let body = json!({ "name": "example.test", "peers": peers, "enabled": true });
    setting.call("POST", "/zones/ZONE/secondary_dns/outgoing", Some(body)).await;
    let fetch = async |words: &[&str]| transfer(&dig_program, server, words).await;
    let key = |algorithm: &str, name: &str, secret: usize| format!("{algorithm}:{name}:{}", SECRETS[secret]);
    let first = key("hmac-sha256", "key.test", 0);
    for right in [&first, &key("hmac-sha384", "key1.test", 1), &key("hmac-sha512", "key2.test", 2)] {
        let answer = fetch(&["-y", right]).await;
        // Each of several messages is signed, and was found to be.
        assert!(answer.contains("host-199.example.test.") && answer.contains("(messages 3,"), "{answer}");
        assert!(!answer.contains("WARNING") && !answer.contains("verify"), "{answer}");
    }
    let signed = ask(&dig_program, server, "SOA", &["-y", &first]).await;
    assert!(signed.contains("TSIG") && signed.contains("NOERROR") && !signed.contains("verify"), "{signed}");
    for (words, why) in [
        (&[][..], "no key"),
        (&["-y", &key("hmac-sha256", "key.test", 1)], "the right name with a wrong secret"),
        (&["-y", &key("hmac-sha512", "key.test", 0)], "another algorithm"),
        (&["-y", &key("hmac-sha256", "nobody.test", 0)], "a key that is not there"),
        (&["-y", &first, "-b", "127.0.0.2"], "the right key from elsewhere"),
    ] {
        let answer = fetch(words).await;
        assert!(answer.contains("Transfer failed") && !answer.contains("TXT"), "{why}: {answer}");
    }
    assert!(
        fetch(&["-y", &key("hmac-sha512", "key2.test", 2), "-b", "127.0.0.2"]).await.contains("host-7."),
        "by its key"
    );
    let range = json!({ "name": "here", "ip_range": "127.0.0.2/32" });
    setting.call("POST", "/accounts/ACCOUNT/secondary_dns/acls", Some(range)).await;
    assert!(fetch(&["-y", &first, "-b", "127.0.0.2"]).await.contains("host-7."), "from where peers may ask, too");

    let over_tls: SocketAddr =
        setting.edge.ready()["dns_tls"].as_str().expect("it listens").parse().expect("an address");
    let mut command = Command::new(kdig);
    command.args([&format!("@{}", over_tls.ip()), "-p", &over_tls.port().to_string(), "-y", &first]);
    command.arg(format!("+tls-ca={}", setting.edge.ca().display())).arg("+tls-hostname=ns1.tunnel.test");
    let output = command.args(["example.test", "AXFR"]).output().await.expect("kdig starts");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("host-199.example.test."), "{answer}");
    // A transfer is counted once it has been sent.
    let counted = async || Visitor::plain(setting.edge.api()).get("/metrics").await.text();
    let one = "snicket_dns_questions_total{transport=\"tls\"} 1\n";
    until(LIMIT, "it is counted", async || counted().await.contains(one)).await;
}

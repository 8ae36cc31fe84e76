//! What an agent's rules lead to: every kind of service, hosts and paths, and how an origin is spoken to.

use std::net::ToSocketAddrs as _;

use bytes::Bytes;
use harness::{Identity, LIMIT, Network, Origin, RawOrigin, until};
use http::Request;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::refusals::{JSON, assert_refused};
use crate::rig::{Ruled, TRANSPORTS, rule};
use crate::visit::{self, Over, get, streamed};

/// Asks for nothing in particular.
const NO_HEADERS: &[(&str, &[u8])] = &[];

/// What an origin has seen of a request to `/request`.
async fn seen(ruled: &Ruled, over: Over, name: &str) -> Value {
    let answer = get(&ruled.edge, over, &format!("{name}.localhost"), "/request?x=1", NO_HEADERS).await;
    assert_eq!(answer.status, 200, "{name} over {over:?}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// A field of a request's header, as an origin has described it.
fn field<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    seen["headers"].as_array().unwrap().iter().find(|field| field[0] == name).and_then(|field| field[1].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_service_is_served() {
    let files = tempfile::tempdir().unwrap();
    let identity = Identity::new(&["localhost"]);
    let pool = files.path().join("pool.pem");
    std::fs::write(&pool, identity.certificate()).unwrap();
    let origins = [
        ("http", Origin::start().await),
        ("https", Origin::start_secure(&identity).await),
        ("unix", Origin::start_at(&files.path().join("plain.sock"))),
        ("unix-tls", Origin::start_secure_at(&files.path().join("secure.sock"), &identity)),
    ];
    let rules: String = origins.iter().map(|(name, origin)| rule(name, &origin.service(), "")).collect();
    let config = format!(
        "originRequest:\n  caPool: {}\ningress:\n{rules}{}  - service: http_status:418\n",
        pool.display(),
        rule("hello", "hello_world", "")
    );
    let ruled = Ruled::start().await;
    for transport in TRANSPORTS {
        let mut agent = ruled.agent(transport, &config).await;
        for over in Over::ALL {
            for (name, origin) in &origins {
                let before = origin.requests();
                assert_eq!(seen(&ruled, over, name).await["path"], "/request?x=1", "{name} over {over:?}");
                assert_eq!(origin.requests(), before + 1, "{name} over {over:?} through {transport}");
            }
            let hello = get(&ruled.edge, over, "hello.localhost", "/", NO_HEADERS).await;
            assert!(hello.status == 200 && hello.text().contains("It works."), "{over:?}: {hello:?}");
            let status = get(&ruled.edge, over, "other.localhost", "/", NO_HEADERS).await;
            assert_eq!((status.status, status.body.len()), (418, 0), "{over:?} through {transport}");
        }
        agent.process.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_wildcard_and_path_choose_the_rule() {
    let config = "\
ingress:
  - {hostname: shop.localhost, path: ^/(cart|pay)$, service: http_status:201}
  - {hostname: shop.localhost, path: '\\.css$', service: http_status:202}
  - {hostname: shop.localhost, service: http_status:203}
  - {hostname: '*.team.localhost', path: ^/api, service: http_status:208}
  - {hostname: '*.team.localhost', service: http_status:226}
  - {path: /anywhere, service: http_status:410}
  - {service: http_status:418}
";
    let ruled = Ruled::start().await;
    for transport in TRANSPORTS {
        let mut agent = ruled.agent(transport, config).await;
        for over in Over::ALL {
            for (host, path, status) in [
                ("shop.localhost", "/cart", 201),
                ("SHOP.localhost", "/pay?later=1", 201),
                ("shop.localhost", "/%63art", 201),
                ("shop.localhost", "/cart/1", 203),
                ("shop.localhost", "/a/b.css?v=2", 202),
                ("shop.localhost", "/?x=b.css", 203),
                ("a.team.localhost", "/api/1", 208),
                ("b.a.team.localhost", "/", 226),
                ("team.localhost", "/api", 418),
                ("other.localhost", "/is/anywhere/here", 410),
                ("other.localhost", "/", 418),
            ] {
                let answer = get(&ruled.edge, over, host, path, NO_HEADERS).await;
                assert_eq!(answer.status, status, "{host}{path} over {over:?} through {transport}");
            }
        }
        agent.process.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_believed_as_the_rule_says() {
    let files = tempfile::tempdir().unwrap();
    let identity = Identity::new(&["inner.test", "sni.localhost"]);
    let pool = files.path().join("pool.pem");
    std::fs::write(&pool, identity.certificate()).unwrap();
    let pool = format!("caPool: {}", pool.display());
    let origin = Origin::start_secure(&identity).await;
    let silent = RawOrigin::start(
        async |mut stream: TcpStream| {
            while stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {}
        },
    );
    let silent = silent.await;
    let (service, silent_service) = (origin.service(), silent.service().replace("http:", "https:"));
    let good = [
        ("unchecked", "noTLSVerify: true".to_owned(), "HTTP/1.1"),
        ("named", format!("{pool}, originServerName: inner.test"), "HTTP/1.1"),
        ("sni", format!("{pool}, matchSNItoHost: true"), "HTTP/1.1"),
        ("second", format!("{pool}, originServerName: inner.test, http2Origin: true"), "HTTP/2.0"),
    ];
    let bad = [
        ("unknown", &service, "originServerName: inner.test".to_owned(), 526),
        ("misnamed", &service, pool.clone(), 526),
        ("not-sni", &service, format!("{pool}, matchSNItoHost: true"), 526),
        ("silent", &silent_service, "tlsTimeout: 1s".to_owned(), 525),
    ];
    let good_rules = good.iter().map(|(name, options, _)| rule(name, &service, options));
    let bad_rules = bad.iter().map(|(name, service, options, _)| rule(name, service, options));
    let rules: String = good_rules.chain(bad_rules).collect();
    let config = format!("ingress:\n{rules}  - service: http_status:418\n");
    let ruled = Ruled::start().await;
    for transport in TRANSPORTS {
        let mut agent = ruled.agent(transport, &config).await;
        for (name, _, version) in &good {
            let seen = seen(&ruled, Over::Two, name).await;
            assert_eq!(seen["version"], *version, "{name} through {transport}");
        }
        let before = origin.requests();
        for (name, _, _, code) in &bad {
            let answer = get(&ruled.edge, Over::Two, &format!("{name}.localhost"), "/", &[JSON]).await;
            assert_refused(&ruled.edge, &answer, *code, *code, &format!("{name} through {transport}")).await;
        }
        assert_eq!(origin.requests(), before, "nothing is said to an origin that is not believed");
        agent.process.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_made_up_as_the_rule_says() {
    let origin = Origin::start().await;
    let service = origin.service();
    let rules = [
        rule("usual", &service, ""),
        rule("renamed", &service, "httpHostHeader: inner.test"),
        rule("whole", &service, "disableChunkedEncoding: true"),
    ];
    let config = format!("ingress:\n{}  - service: http_status:418\n", rules.concat());
    let ruled = Ruled::start().await;
    for transport in TRANSPORTS {
        let mut agent = ruled.agent(transport, &config).await;
        let renamed = seen(&ruled, Over::One, "renamed").await;
        assert_eq!(field(&renamed, "host"), Some("inner.test"), "{transport}: {renamed}");
        let shown = format!("renamed.localhost:{}", ruled.edge.https().port());
        assert_eq!(field(&renamed, "x-forwarded-host"), Some(shown.as_str()), "{transport}: {renamed}");
        for (name, length) in [("usual", None), ("whole", Some("8"))] {
            let seen = post_in_pieces(&ruled, name).await;
            assert_eq!(field(&seen, "content-length"), length, "{name} through {transport}: {seen}");
            assert_eq!(field(&seen, "transfer-encoding"), length.is_none().then_some("chunked"), "{name}: {seen}");
        }
        agent.process.terminate().await;
    }
}

/// Posts a body of eight bytes whose length is not told.
async fn post_in_pieces(ruled: &Ruled, name: &str) -> Value {
    let url = format!("https://{name}.localhost:{}/request", ruled.edge.https().port());
    let (pieces, body) = streamed();
    let exchange = visit::open(&ruled.edge, Over::Two, Request::post(url).body(body).unwrap()).await;
    for piece in ["four", "more"] {
        pieces.send(Bytes::from(piece)).await.unwrap();
    }
    drop(pieces);
    serde_json::from_slice(&exchange.answer().await.unwrap().body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_an_origin_are_kept_as_its_rule_says() {
    let (kept, closed, brief, probed, quiet) =
        tokio::join!(Origin::start(), Origin::start(), Origin::start(), Origin::start(), Origin::start());
    let rules = [
        rule("kept", &kept.service(), ""),
        rule("closed", &closed.service(), "keepAliveConnections: 0"),
        rule("brief", &brief.service(), "keepAliveTimeout: 1s"),
        rule("probed", &probed.service(), "tcpKeepAlive: 7s"),
        rule("quiet", &quiet.service(), "tcpKeepAlive: 0s"),
    ];
    let config = format!("ingress:\n{}  - service: http_status:418\n", rules.concat());
    let ruled = Ruled::start().await;
    for transport in TRANSPORTS {
        let mut agent = ruled.agent(transport, &config).await;
        for name in ["kept", "closed", "brief", "probed", "quiet"] {
            for _ in 0..3 {
                seen(&ruled, Over::Two, name).await;
            }
        }
        for (origin, connections) in [(&closed, 0), (&brief, 0), (&kept, 1), (&probed, 1), (&quiet, 1)] {
            origin.wait_for_connections(connections).await;
        }
        wait_for_probe(&kept, |probe| matches!(probe, Some(8..=30))).await;
        wait_for_probe(&probed, |probe| matches!(probe, Some(0..=7))).await;
        wait_for_probe(&quiet, |probe| probe.is_none()).await;
        agent.process.terminate().await;
    }
}

/// Waits until the kernel's time to the next keep-alive probe, in seconds, on the connection to this origin fits.
async fn wait_for_probe(origin: &Origin, fits: impl Fn(Option<u64>) -> bool) {
    let port = format!(":{:04X}", origin.address().port());
    until(LIMIT, "probes are sent as the rule says", async || {
        // proc(5): remote address, state, queues, then the timer that runs (02 is keep-alive) and its rest in 1/100
        // of a second.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = row.into_iter().find(|row| row[2].ends_with(&port) && row[3] == "01").expect("it is connected");
        let (kind, rest) = ours[5].split_once(':').unwrap();
        let probe = (kind == "02").then(|| u64::from_str_radix(rest, 16).unwrap() / 100);
        kind != "01" && fits(probe)
    })
    .await;
}

/// The first of two addresses swallows what it gets, as a family of addresses does that only seems to work.
#[test]
fn addresses_of_an_origin_are_raced_unless_the_rule_says_no() {
    Network::run("services::addresses_of_an_origin_are_raced_unless_the_rule_says_no", async |network| {
        network.name("two.test", &["127.0.0.2", "127.0.0.3"]);
        let found = ("two.test", 80).to_socket_addrs().unwrap().map(|address| address.ip()).collect::<Vec<_>>();
        let [first, second] = found[..] else { panic!("{found:?}") };
        let origin = Origin::start_on((second, 0).into()).await;
        let port = origin.address().port();
        network.lose(&format!("ip daddr {first} tcp dport {port}"));
        let service = format!("http://two.test:{port}");
        let ruled = Ruled::start().await;
        let config = format!(
            "ingress:\n{}{}  - service: http_status:418\n",
            rule("raced", &service, "connectTimeout: 20s"),
            rule("turns", &service, "connectTimeout: 2s, noHappyEyeballs: true"),
        );
        for transport in TRANSPORTS {
            let mut agent = ruled.agent(transport, &config).await;
            let answer = get(&ruled.edge, Over::Two, "raced.localhost", "/", &[]).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello from the origin"), "{transport}");
            let answer = get(&ruled.edge, Over::Two, "turns.localhost", "/", &[JSON]).await;
            assert_refused(&ruled.edge, &answer, 522, 522, transport).await;
            agent.process.terminate().await;
        }
    });
}

//! UDP does not get through, or TCP only by a proxy.

use std::time::{Duration, Instant};

use harness::{Edge, ForwardProxy, LIMIT, Network, Origin, Passing, Process, Relay, until};

use crate::rig::{Tunnel, home};

/// QUIC has a head start of a second and a half; the rest is for a busy machine. Three dials over QUIC one after the other take
/// longer, at four seconds each.
const FALLS_BACK_WITHIN: Duration = Duration::from_secs(12);

async fn notice(process: &mut Process) -> String {
    let notice = process.event("notice").await;
    notice["text"].as_str().expect("a notice has a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_start_http2_is_used_said_and_remembered() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "blocked").await;
    let relay = Relay::start(edge.tunnel(), Passing::Tcp).await;
    let home = home();
    let service = origin.service();

    let started = Instant::now();
    let mut agent = tunnel.program(home.path(), relay.address(), &["--url", &service]).start().await;
    let ready = agent.event("ready").await;
    let took = started.elapsed();
    assert_eq!(ready["protocol"], "http2");
    assert!(took < FALLS_BACK_WITHIN, "{took:?}");
    let said = notice(&mut agent).await;
    assert!(said.contains("UDP") && said.contains("HTTP/2"), "{said}");
    assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 200);
    assert_eq!(agent.terminate().await.code(), Some(0));

    // The next run does not try again, and says why.
    let started = Instant::now();
    let mut agent = tunnel.program(home.path(), relay.address(), &["--url", &service]).start().await;
    assert_eq!(agent.event("ready").await["protocol"], "http2");
    let again = started.elapsed();
    assert!(again < FALLS_BACK_WITHIN, "{again:?}");
    let said = notice(&mut agent).await;
    assert!(said.contains("QUIC") && said.contains("HTTP/2"), "{said}");
    eprintln!("blocked from the start: connected after {took:?}, the next time after {again:?}");
}

#[test]
fn midway_http2_takes_over() {
    Network::run("blocked::midway_http2_takes_over", async |network| {
        let (origin, edge) = (Origin::start().await, Edge::start().await);
        let tunnel = Tunnel::create(&edge, "midway").await;
        let mut agent = tunnel.run(&["--url", &origin.service()]).await;
        assert_eq!(agent.ready["protocol"], "quic");
        assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 200);
        network.lose(&format!("udp dport {}", edge.tunnel().port()));
        let since = Instant::now();
        let event = agent.process.event_where(|event| event["event"] == "connection" && event["protocol"] == "http2");
        assert_eq!(event.await["state"], "connected");
        let took = since.elapsed();
        until(LIMIT, "requests work again", async || edge.visitor().get(&tunnel.https("/")).await.status == 200).await;
        let said = notice(&mut agent.process).await;
        assert!(said.contains("UDP"), "{said}");
        eprintln!("blocked midway: on HTTP/2 after {took:?}");
        // At most six and a half seconds until the silence is noticed, less than one until HTTP/2 is there, and what a
        // busy machine adds.
        assert!(took < Duration::from_secs(14), "{took:?}");
    });
}

async fn through_a_proxy(variable: &str, scheme: &str) {
    let (origin, edge, proxy) = (Origin::start().await, Edge::start().await, ForwardProxy::start().await);
    let tunnel = Tunnel::create(&edge, "proxied").await;
    let home = home();
    let url = format!("{scheme}://{}", proxy.address());
    let program = tunnel.program(home.path(), edge.tunnel(), &["--url", &origin.service()]).env(variable, &url);
    let mut agent = program.start().await;
    assert_eq!(agent.event("ready").await["protocol"], "http2");
    let said = notice(&mut agent).await;
    assert!(said.contains("proxy"), "{said}");
    assert_eq!(edge.visitor().get(&tunnel.https("/")).await.status, 200);
    let asked = proxy.asked();
    let kind = if scheme == "http" { "connect" } else { "socks5" };
    assert!(asked.iter().all(|asked| *asked == format!("{kind} {}", edge.tunnel())) && !asked.is_empty(), "{asked:?}");
    assert_eq!(agent.terminate().await.code(), Some(0));

    let program = tunnel.program(home.path(), edge.tunnel(), &["--url", &origin.service()]).env(variable, &url);
    let mut agent = program.env("NO_PROXY", "127.0.0.1").start().await;
    assert_eq!(agent.event("ready").await["protocol"], "quic", "NO_PROXY excepts the edge");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_proxy_is_obeyed() {
    through_a_proxy("HTTPS_PROXY", "http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_proxy_may_be_socks5() {
    through_a_proxy("ALL_PROXY", "socks5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_variable_that_is_no_url_is_refused() {
    let edge = Edge::start().await;
    let tunnel = Tunnel::create(&edge, "wrong").await;
    let home = home();
    let program = tunnel.program(home.path(), edge.tunnel(), &["--hello-world"]).env("HTTPS_PROXY", "ftp://secret@x");
    let (code, _, error) = program.run().await;
    assert!(code == 2 && error.contains("HTTPS_PROXY") && !error.contains("secret"), "{code} {error}");
}

//! Ends that were asked for: nothing is lost.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use harness::{Agent, Edge, LIMIT, Load, Mood, Origin, Process, Try, Visitor, until};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::rig::{CONNECTIONS, TRANSPORTS, Tunnel, connections, shown};

/// A request that the origin has seen, and answers once it is well again.
async fn stalled(visitor: &Visitor, origin: &Origin, tunnel: &Tunnel) -> JoinHandle<String> {
    origin.fare(Mood::Stalls);
    let seen = origin.requests();
    let (visitor, url) = (visitor.clone(), tunnel.https("/status/201"));
    let request = tokio::spawn(async move { shown(&visitor.get(&url).await) });
    until(LIMIT, "the origin has the request", async || origin.requests() > seen).await;
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_stopped_finishes_what_is_under_way() {
    for transport in TRANSPORTS {
        let (origin, mut edge) = (Origin::start().await, Edge::start().await);
        let tunnel = Tunnel::create(&edge, "drained").await;
        let mut agent = tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await;
        let request = stalled(&edge.visitor(), &origin, &tunnel).await;
        let (https, http) = (edge.https(), edge.http());
        edge.process.signal("TERM").await;
        edge.process.event("draining").await;
        for address in [https, http] {
            until(LIMIT, "new connections are refused", async || {
                TcpStream::connect(address).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            })
            .await;
        }
        assert!(!request.is_finished(), "{transport}: refused while the request was under way");
        origin.fare(Mood::Well);
        assert_eq!(request.await.expect("the visitor does not panic"), "201 status 201", "{transport}");
        assert_eq!(edge.process.wait().await.code(), Some(0), "{transport}");
        // The agent stays, and looks for an edge.
        crate::rig::disconnected(&mut agent.process).await;
        assert_eq!(agent.process.terminate().await.code(), Some(0), "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts_the_agent() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let mut agent = tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await;
        let (visitor, url) = (edge.visitor(), tunnel.https("/hang"));
        let hanging = tokio::spawn(async move { visitor.request("POST", &url, &[], "once").await.status });
        origin.wait_for_hanging(1).await;
        agent.process.signal("TERM").await;
        agent.process.event("draining").await;
        let since = Instant::now();
        agent.process.signal("TERM").await;
        assert_eq!(agent.process.wait().await.code(), Some(0));
        assert!(since.elapsed() < Duration::from_secs(10), "{transport}: {:?}", since.elapsed());
        let status = hanging.await.expect("the visitor does not panic");
        assert!(matches!(status, 502 | 520 | 530), "{transport}: {status}");
    }
}

/// A request that the origin does not answer, and that ends as it may.
async fn hanging(visitor: Visitor, url: String, origin: &Origin) -> JoinHandle<()> {
    let request = tokio::spawn(async move {
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed();
        let _ = visitor.open("GET", &url, &[], body).await;
    });
    origin.wait_for_hanging(1).await;
    request
}

/// The first signal leaves what hangs alone, the second does not. Answers how long after the first it took.
async fn is_cut(process: &mut Process, origin: &Origin, request: JoinHandle<()>) -> Duration {
    let since = Instant::now();
    process.signal("TERM").await;
    process.event("draining").await;
    assert!(!request.is_finished());
    process.signal("INT").await;
    assert_eq!(process.wait().await.code(), Some(0));
    let took = since.elapsed();
    tokio::time::timeout(LIMIT, request).await.expect("the visitor does not hang for ever").expect("nor panic");
    origin.wait_for_hanging(0).await;
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts_http_up_and_try() {
    let origin = Origin::start().await;
    // The first signal alone would let them wait longer than the test does.
    let grace = ["--grace-period", "5m"];
    let mut edge = Edge::start_with(&grace).await;
    let mut agent = Agent::start(&edge, &origin.service(), &grace).await;
    let request = hanging(edge.visitor(), agent.url("/hang"), &origin).await;
    is_cut(&mut agent.process, &origin, request).await;

    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let request = hanging(edge.visitor(), agent.url("/hang"), &origin).await;
    is_cut(&mut edge.process, &origin, request).await;

    // Its grace period is five seconds. A busy machine may use them up now and then; who is not cut never ends before.
    for attempts_left in (0..3).rev() {
        let mut it = Try::start(&[&origin.service()]).await;
        let request = hanging(it.visitor(), it.url("/hang"), &origin).await;
        let took = is_cut(&mut it.process, &origin, request).await;
        if took < Duration::from_secs(5) {
            break;
        }
        assert!(attempts_left > 0, "it took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_ends_a_request_that_does_not() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let arguments = ["--protocol", transport, "--grace-period", "1s", "--url", &origin.service()];
        let mut agent = tunnel.run(&arguments).await;
        let (visitor, url) = (edge.visitor(), tunnel.https("/hang"));
        let hanging = tokio::spawn(async move { visitor.request("POST", &url, &[], "once").await.status });
        origin.wait_for_hanging(1).await;
        let since = Instant::now();
        assert_eq!(agent.process.terminate().await.code(), Some(0));
        let took = since.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{transport}: {took:?}");
        assert!(hanging.await.expect("the visitor does not panic") >= 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_unregisters_and_finishes() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let mut agent = tunnel.run(&["--protocol", transport, "--url", &origin.service()]).await;
        let request = stalled(&edge.visitor(), &origin, &tunnel).await;
        agent.process.signal("TERM").await;
        agent.process.event("draining").await;
        assert!(!request.is_finished(), "{transport}");
        origin.fare(Mood::Well);
        assert_eq!(request.await.expect("the visitor does not panic"), "201 status 201", "{transport}");
        let since = Instant::now();
        assert_eq!(agent.process.wait().await.code(), Some(0), "{transport}");
        assert!(since.elapsed() < Duration::from_secs(10), "{transport}: idle, and still {:?}", since.elapsed());
        // One that was still registering had nothing to unregister: its end is a packet that the edge has not seen yet, maybe.
        until(LIMIT, "the edge lists none", async || connections(&edge, &tunnel.id).await.is_empty()).await;
        // It is told as any other, before the end.
        let told =
            agent.process.event_where(|event| event["path"] == "/status/201" || event["event"] == "stopped").await;
        assert_eq!(told["status"], 201, "{transport}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_while_it_registers_says_so() {
    const AGENTS: usize = 20;
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let tunnel = Tunnel::create(&edge, "hasty").await;
    for number in 0..AGENTS {
        let mut agent = tunnel.run(&["--protocol", "quic", "--url", &origin.service()]).await;
        // The others follow the first one: each time another one may be caught at it.
        let there = 1 + number % CONNECTIONS;
        until(LIMIT, "so many are registered", async || connections(&edge, &tunnel.id).await.len() >= there).await;
        assert_eq!(agent.process.terminate().await.code(), Some(0));
        until(LIMIT, "the edge lists none", async || connections(&edge, &tunnel.id).await.is_empty()).await;
    }
    // After the silence of a connection that nobody closed.
    assert!(!edge.process.stderr().contains("the agent vanished"), "{}", edge.process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_one_of_two_agents_fails_nothing() {
    let (origin, edge) = (Origin::start().await, Edge::start_with(&["--loglevel", "warn"]).await);
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let arguments = ["--protocol", transport, "--url", &origin.service()];
        let mut first = tunnel.run(&arguments).await;
        let _second = tunnel.run(&arguments).await;
        until(LIMIT, "both agents are connected", async || {
            connections(&edge, &tunnel.id).await.len() == 2 * CONNECTIONS
        })
        .await;
        // POST: what the origin may have seen is not sent again, so that every loss shows.
        let load = Load::start(&edge.visitor(), "POST", &tunnel.http("/slow?ms=20"), 6);
        load.more(60).await;
        assert_eq!(first.process.terminate().await.code(), Some(0));
        load.more(60).await;
        let tally = load.stop().await;
        assert!(tally.failed.is_empty(), "{transport}: {tally:?}");
        // One that waited for the agent's grace period would take half a minute.
        assert!(tally.slowest < Duration::from_secs(15), "{transport}: {tally:?}");
    }
}

//! Agents die, and origins restart.

use std::time::Duration;

use harness::{Edge, LIMIT, Load, Origin, until};

use tokio::net::TcpStream;

use crate::rig::{CONNECTIONS, TRANSPORTS, Tunnel, connections, shown, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_takes_the_place_of_a_killed_one() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let visitor = edge.visitor();
    for transport in TRANSPORTS {
        let tunnel = Tunnel::create(&edge, transport).await;
        let arguments = ["--protocol", transport, "--url", &origin.service()];
        let mut agent = tunnel.run(&arguments).await;
        assert_eq!(visitor.get(&tunnel.https("/")).await.status, 200);
        agent.process.kill().await;
        until_status(&visitor, &tunnel.https("/"), 530).await;
        let _agent = tunnel.run(&arguments).await;
        assert_eq!(visitor.get(&tunnel.https("/")).await.status, 200, "{transport}");
    }
}

async fn one_of_two_is_killed(transport: &str) {
    let (origin, edge) = (Origin::start().await, Edge::start_with(&["--loglevel", "warn"]).await);
    let tunnel = Tunnel::create(&edge, "two").await;
    let arguments = ["--protocol", transport, "--url", &origin.service()];
    let mut first = tunnel.run(&arguments).await;
    let _second = tunnel.run(&arguments).await;
    until(LIMIT, "both agents have all their connections", async || {
        connections(&edge, &tunnel.id).await.len() == 2 * CONNECTIONS
    })
    .await;
    let load = Load::start(&edge.visitor(), "GET", &tunnel.http("/slow?ms=20"), 8);
    load.more(100).await;
    first.process.kill().await;
    load.more(100).await;
    until(LIMIT, "the killed agent's connections are gone", async || {
        connections(&edge, &tunnel.id).await.len() == CONNECTIONS
    })
    .await;
    load.more(50).await;
    let tally = load.stop().await;
    // Eight were under way; answers that had begun when the agent died were cut.
    assert!(tally.unanswered() == 0 && tally.cut() <= 8, "{transport}: {tally:?}");
    // QUIC says nothing when a process dies; its silence is noticed after five seconds. On a machine that is short of
    // processors a second connection may be lost to silence too.
    assert!(tally.slowest < Duration::from_secs(15), "{transport}: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_one_of_two_agents_fails_no_get_over_quic() {
    one_of_two_is_killed("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_one_of_two_agents_fails_no_get_over_http2() {
    one_of_two_is_killed("http2").await;
}

/// As a supervisor of services does it: the visitors of the only agent wait, and none is refused.
async fn the_only_one_is_started_again(transport: &str) {
    let (origin, edge) = (Origin::start().await, Edge::start_with(&["--loglevel", "warn"]).await);
    let tunnel = Tunnel::create(&edge, "again").await;
    let arguments = ["--protocol", transport, "--url", &origin.service()];
    let mut agent = tunnel.run(&arguments).await;
    let load = Load::start(&edge.visitor(), "GET", &tunnel.http("/slow?ms=20"), 8);
    load.more(50).await;
    agent.process.kill().await;
    let _agent = tunnel.run(&arguments).await;
    load.more(50).await;
    let tally = load.stop().await;
    // Eight were under way; answers that had begun when the agent died were cut.
    assert!(tally.unanswered() == 0 && tally.cut() <= 8, "{transport}: {tally:?}");
    // Five seconds of silence until QUIC notices that a process has died, and at most five that a visitor waits for an agent
    // before it is refused.
    assert!(tally.slowest < Duration::from_secs(15), "{transport}: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_a_killed_agent_again_fails_no_get_over_quic() {
    the_only_one_is_started_again("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_a_killed_agent_again_fails_no_get_over_http2() {
    the_only_one_is_started_again("http2").await;
}

/// Ends an origin, and waits until its port is closed.
async fn stop(origin: Origin) {
    let address = origin.address();
    drop(origin);
    until(LIMIT, "the origin is gone", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_restarts_is_521_and_then_as_before() {
    let edge = Edge::start().await;
    let visitor = edge.visitor();
    for transport in TRANSPORTS {
        let origin = Origin::start().await;
        let (address, service) = (origin.address(), origin.service());
        let tunnel = Tunnel::create(&edge, transport).await;
        let _agent = tunnel.run(&["--protocol", transport, "--url", &service]).await;
        // Several connections to the origin are left in the agent's pool.
        let mut warm = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (visitor, url) = (visitor.clone(), tunnel.http("/slow?ms=50"));
            warm.spawn(async move { visitor.get(&url).await.status });
        }
        assert_eq!(warm.join_all().await, [200; 4]);
        stop(origin).await;
        let answer = visitor.get(&tunnel.http("/")).await;
        assert_eq!(answer.status, 521, "{transport}: {}", shown(&answer));
        let restarted = Origin::start_on(address).await;
        for _ in 0..8 {
            let answer = visitor.get(&tunnel.http("/")).await;
            assert_eq!(answer.status, 200, "{transport}: {}", shown(&answer));
        }
        stop(restarted).await;
        // Down and up again between two requests: what is pooled is stale, and nobody sees it.
        let _again = Origin::start_on(address).await;
        for _ in 0..8 {
            let answer = visitor.get(&tunnel.http("/")).await;
            assert_eq!(answer.status, 200, "{transport}, stale: {}", shown(&answer));
        }
    }
}

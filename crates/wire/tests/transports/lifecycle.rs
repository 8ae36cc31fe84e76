//! From registration to the end of a connection.

use http::{Request, Response};
use tokio::sync::mpsc;
use wire::registration::Refused;
use wire::{Body, ConnectError, ExchangeError, Extensions, Interim, Kind, Transport};

use crate::rig::{Event, Feed, Node, Origin, Rig, both, connect, data, fed, get, registration, soon, until, whole};

both!(
    a_registration_says_who_and_where,
    a_refused_agent_learns_why,
    an_agent_that_unregisters_finishes_what_is_under_way,
    an_edge_that_drains_finishes_what_is_under_way,
    an_idle_connection_that_drains_closes_at_once,
    an_edge_that_drains_still_answers_the_agent,
    closing_fails_what_is_under_way,
    an_agent_that_is_gone_loses_what_was_sent,
    dropping_the_edge_ends_the_connection_for_both,
);

async fn a_registration_says_who_and_where(transport: Transport) {
    let rig = Rig::new(transport, Origin::hello()).await;
    assert_eq!(rig.registration, registration(Extensions::ALL));
    assert_eq!(rig.registered.location, "lab01");
    assert_eq!(rig.edge.transport(), transport);
    assert!(rig.edge.remote().ip().is_loopback());
    assert!(rig.edge.is_open());
    assert_eq!((rig.edge.in_flight(), rig.agent.in_flight()), (0, 0));
}

async fn a_refused_agent_learns_why(transport: Transport) {
    for retry_after in [None, Some(std::time::Duration::from_secs(7))] {
        let refusal = Refused { cause: "Unauthorized: Invalid tunnel secret".into(), retry_after };
        let (node, mut events) = Node::new(Some(refusal.clone()));
        let (served, connected) = connect(transport, node, Origin::hello(), Extensions::ALL).await;
        match connected {
            Err(ConnectError::Refused(refused)) => assert_eq!(refused, refusal),
            other => panic!("{:?}", other.err()),
        }
        let reason = soon(served).await.unwrap().reason;
        assert!(reason.contains("Invalid tunnel secret"), "{reason}");
        let Some(Event::Registered(_, edge)) = events.recv().await else { panic!("not asked") };
        assert!(!edge.is_open());
        let answer = edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await;
        assert!(matches!(answer, Err(ExchangeError::NotSent(_))));
        assert!(events.recv().await.is_none(), "`closed` is not for connections that were never accepted");
    }
}

/// An origin whose answers the test feeds.
fn held() -> (std::sync::Arc<Origin>, mpsc::UnboundedReceiver<Feed>) {
    let (feeds, bodies) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, _, _| {
        let (feed, body) = fed();
        feeds.send(feed).unwrap();
        async { Ok(Response::new(body)) }
    });
    (origin, bodies)
}

/// Checks that nothing new is sent, that what is under way ends well, and that both ends close then.
async fn drained(mut rig: Rig, answer: Response<Body>, feed: Feed) -> String {
    assert!(!rig.edge.is_open());
    let refused = rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await;
    assert!(matches!(refused, Err(ExchangeError::NotSent(_))));
    let mut answer = answer.into_body();
    feed.data("still here").await;
    assert_eq!(data(&mut answer).await.unwrap().unwrap(), "still here");
    assert!(!rig.served.is_finished());
    drop(feed);
    assert!(data(&mut answer).await.is_none());
    drop(answer);
    let reason = soon(rig.served).await.unwrap().reason;
    soon(rig.agent.closed()).await;
    let Some(Event::Closed(id, told)) = soon(rig.events.recv()).await else { panic!("not told") };
    assert_eq!((id, &told), (rig.registered.connection, &reason));
    assert!(rig.events.recv().await.is_none(), "told once");
    reason
}

async fn an_agent_that_unregisters_finishes_what_is_under_way(transport: Transport) {
    let (origin, mut feeds) = held();
    let rig = Rig::new(transport, origin).await;
    let answer = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.unwrap();
    let feed = feeds.recv().await.unwrap();
    soon(rig.agent.unregister(std::time::Duration::from_secs(5))).await.unwrap();
    assert_eq!(drained(rig, answer, feed).await, "the agent unregistered");
}

async fn an_edge_that_drains_finishes_what_is_under_way(transport: Transport) {
    let (origin, mut feeds) = held();
    let rig = Rig::new(transport, origin).await;
    let answer = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.unwrap();
    let feed = feeds.recv().await.unwrap();
    rig.edge.drain();
    assert_eq!(drained(rig, answer, feed).await, "the edge drained the connection");
}

async fn an_idle_connection_that_drains_closes_at_once(transport: Transport) {
    let rig = Rig::new(transport, Origin::hello()).await;
    assert_eq!(rig.get("https://a.test/").await.body(), "hello");
    rig.edge.drain();
    soon(rig.served).await.unwrap();
    assert_eq!(soon(rig.agent.closed()).await, "the edge closed the connection");
    assert_eq!(rig.agent.closed().await, "the edge closed the connection");
    rig.agent.unregister(std::time::Duration::from_secs(1)).await.unwrap_err();
}

async fn an_edge_that_drains_still_answers_the_agent(transport: Transport) {
    let (origin, mut feeds) = held();
    let rig = Rig::new(transport, origin).await;
    let answer = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.unwrap();
    let feed = feeds.recv().await.unwrap();
    rig.edge.drain();
    soon(rig.agent.update_local_configuration("{}".into())).await.unwrap();
    soon(rig.agent.unregister(std::time::Duration::from_secs(5))).await.unwrap();
    assert!(!rig.served.is_finished());
    drop(feed);
    assert_eq!(whole(answer).await.unwrap().body(), "");
    assert_eq!(soon(rig.served).await.unwrap().reason, "the agent unregistered");
}

async fn closing_fails_what_is_under_way(transport: Transport) {
    let (origin, mut feeds) = held();
    let mut rig = Rig::new(transport, origin).await;
    let answer = soon(rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted())).await.unwrap();
    let feed = feeds.recv().await.unwrap();
    rig.edge.close("the node is going down");
    assert_eq!(soon(rig.served).await.unwrap().reason, "the node is going down");
    assert!(whole(answer).await.is_err());
    feed.dropped().await;
    soon(rig.agent.closed()).await;
    let Some(Event::Closed(_, reason)) = soon(rig.events.recv()).await else { panic!("not told") };
    assert_eq!(reason, "the node is going down");
    until(|| rig.edge.in_flight() == 0).await;
}

async fn an_agent_that_is_gone_loses_what_was_sent(transport: Transport) {
    let (arrived, mut requests) = mpsc::unbounded_channel();
    let origin = Origin::new(move |_, request: Request<Body>, _| {
        arrived.send(request).unwrap();
        std::future::pending()
    });
    let rig = Rig::new(transport, origin).await;
    let edge = rig.edge.clone();
    let waiting =
        tokio::spawn(async move { edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await });
    soon(requests.recv()).await.unwrap();
    rig.agent.close();
    let answer = soon(waiting).await.unwrap();
    assert!(matches!(answer, Err(ExchangeError::Lost(_))), "{:?}", answer.err());
    soon(rig.served).await.unwrap();
    assert!(!rig.edge.is_open());
    let answer = rig.edge.exchange(Kind::Http, get("https://a.test/"), Interim::unwanted()).await;
    assert!(matches!(answer, Err(ExchangeError::NotSent(_))), "{:?}", answer.err());
}

async fn dropping_the_edge_ends_the_connection_for_both(transport: Transport) {
    let mut rig = Rig::new(transport, Origin::hello()).await;
    rig.served.abort();
    soon(rig.agent.closed()).await;
    let Some(Event::Closed(id, _)) = soon(rig.events.recv()).await else { panic!("not told") };
    assert_eq!(id, rig.registered.connection);
    assert!(!rig.edge.is_open());
}

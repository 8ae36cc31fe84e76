//! Output that nobody reads holds up nobody.

use harness::{Agent, Edge, Origin};

/// More than a pipe of the system holds, 64 KiB, in lines of this length.
const REQUESTS: usize = 100;
const PATH: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_stops_neither_end() {
    let (origin, mut edge) = (Origin::start().await, Edge::start().await);
    let mut agent = Agent::start(&edge, &origin.service(), &[]).await;
    edge.process.stop_reading();
    agent.process.stop_reading();
    let (visitor, url) = (edge.visitor(), agent.url(&format!("/{}", "a".repeat(PATH))));
    for number in 0..REQUESTS {
        let answer = visitor.get(&url).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello from the origin"), "request {number}");
    }
    assert_eq!(agent.process.terminate().await.code(), Some(0));
    assert_eq!(edge.process.terminate().await.code(), Some(0));
}

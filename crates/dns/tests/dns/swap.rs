//! A registry whose log no longer reaches back is read anew, all at once. Whoever asks meanwhile notices nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dns::{Config, Server, Unchecked, bind};
use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType as Kind;
use registry::engine::{Batch, Embedded, Engine, Feed, FeedError, Guard, Live, Revision, State, Write};
use registry::{CommitError, EngineError, RecordEdit, Registry};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::setting::{at, host, node, question, record};

/// How many records the zone has; the ordinary tests take few.
/// `SNICKET_DNS_RECORDS=1000000 cargo test -p snicket-dns --release --test dns swap -- --nocapture` tells how long answers took.
const RECORDS: &str = "SNICKET_DNS_RECORDS";
const USUAL_RECORDS: usize = 5_000;
/// In one transaction.
const AT_ONCE: usize = 1_000;
/// Questions of one turn, a thousand turns a second.
const AT_A_TIME: usize = 4;
/// Questions without an answer yet, at which no more are asked: their answers fit in the buffer of whoever asks.
const AT_MOST: usize = 100;
const SWAPS: usize = 3;
/// Whoever asks waits no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// An engine whose log reaches back nowhere any more, each time that it is told so.
struct Forgetful {
    engine: Embedded,
    forgets: watch::Receiver<usize>,
    /// How often it has been told so and has forgotten: not what it was told while nobody followed.
    forgotten: Arc<AtomicUsize>,
}

impl Engine for Forgetful {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        self.engine.load()
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        self.engine.commit(guards, writes)
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        let (forgets, forgotten) = (self.forgets.clone(), Arc::clone(&self.forgotten));
        Box::new(ForgetfulFeed { feed: self.engine.follow(after), forgets, forgotten })
    }

    fn most_at_once(&self) -> Option<usize> {
        self.engine.most_at_once()
    }

    fn live(&self) -> &dyn Live {
        self.engine.live()
    }
}

struct ForgetfulFeed {
    feed: Box<dyn Feed>,
    forgets: watch::Receiver<usize>,
    forgotten: Arc<AtomicUsize>,
}

impl Feed for ForgetfulFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(async {
            tokio::select! {
                batches = self.feed.next() => batches,
                Ok(told) = self.forgets.wait_for(|told| *told > self.forgotten.load(Ordering::SeqCst)) => {
                    self.forgotten.store(*told, Ordering::SeqCst);
                    Err(FeedError::Compacted)
                }
            }
        })
    }
}

/// Asks for records of the zone until it is told to end. Answers how long each answer took; `None`: there was none.
async fn ask(server: std::net::SocketAddr, records: usize, end: watch::Receiver<bool>) -> Vec<Option<Duration>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let mut asked: Vec<(Instant, Option<Duration>)> = Vec::new();
    let mut turns = interval(Duration::from_millis(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut packet = [0; 2048];
    let mut open = 0;
    loop {
        tokio::select! {
            _ = turns.tick(), if !*end.borrow() && open < AT_MOST => {
                for _ in 0..AT_A_TIME {
                    let number = asked.len();
                    let mut message = question(&format!("n{}.example.test", number * 7919 % records), Kind::A);
                    message.metadata.id = number as u16;
                    asked.push((Instant::now(), None));
                    open += 1;
                    socket.send(&message.to_vec().unwrap()).await.unwrap();
                }
            }
            received = timeout(PATIENCE, socket.recv(&mut packet)) => {
                let Ok(length) = received else { break };
                let answer = Message::from_vec(&packet[..length.unwrap()]).unwrap();
                assert_eq!(answer.answers.len(), 1, "{answer}");
                // The latest with this number that is still open.
                let id = usize::from(answer.metadata.id);
                let place = (id..asked.len()).step_by(1 << 16).rfind(|place| asked[*place].1.is_none()).unwrap();
                asked[place].1 = Some(asked[place].0.elapsed());
                open -= 1;
            }
        }
        if *end.borrow() && open == 0 {
            break;
        }
    }
    asked.into_iter().map(|(_, took)| took).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_everything_loses_no_question() {
    let records = std::env::var(RECORDS).map_or(USUAL_RECORDS, |text| text.parse().expect("a number"));
    let forget = watch::Sender::new(0);
    let engine =
        Forgetful { engine: Embedded::in_memory().unwrap(), forgets: forget.subscribe(), forgotten: Arc::default() };
    let registry = Registry::open(engine, at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &host("example.test")).await.unwrap().id;
    let numbers: Vec<usize> = (0..records).collect();
    for some in numbers.chunks(AT_ONCE) {
        let edits = some.iter().map(|number| {
            let address = format!("192.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
            RecordEdit::Create(record(&format!("n{number}.example.test"), "A", &address))
        });
        registry.edit_records(at(1), zone, &edits.collect::<Vec<_>>()).await.unwrap();
    }
    registry.introduce(node(&registry, "198.51.100.1"));
    let sockets = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
    let server =
        Server::start(Config { domain: host("example.test") }, sockets, registry.clone(), Arc::new(Unchecked)).unwrap();

    let end = watch::Sender::new(false);
    let asking = tokio::spawn(ask(server.address(), records, end.subscribe()));
    let mut longest = Duration::ZERO;
    for _ in 0..SWAPS {
        let (before, begun) = (registry.snapshot(), Instant::now());
        forget.send_modify(|count| *count += 1);
        harness::until(20 * harness::LIMIT, "everything is read anew", async || {
            !Arc::ptr_eq(&before, &registry.snapshot())
        })
        .await;
        longest = longest.max(begun.elapsed());
    }
    end.send_replace(true);
    let took = asking.await.unwrap();
    let lost = took.iter().filter(|took| took.is_none()).count();
    let mut took: Vec<Duration> = took.into_iter().flatten().collect();
    took.sort_unstable();
    let share = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{records} records, {SWAPS} swaps of {longest:.1?} at most: {} questions, {lost} lost; p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        took.len() + lost,
        share(50),
        share(99),
        share(100)
    );
    assert_eq!(lost, 0);
    server.shutdown().await;
}

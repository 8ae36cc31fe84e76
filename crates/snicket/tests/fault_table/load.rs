//! Visitors who ask at a steady pace, whatever becomes of the answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use harness::{Edge, Http, Stream, Visitor};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Between two requests, of whatever kind.
const PACE: Duration = Duration::from_millis(50);
/// What is asked for in turn: each second twelve GETs, four POSTs, two streams and two WebSockets.
const TURNS: [Kind; 10] = {
    use Kind::{Get, Post, Socket, Stream};
    [Get, Get, Post, Get, Stream, Get, Post, Get, Socket, Get]
};
/// Visitors give up after this: what takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What a visitor gives one address of a node before it tries another one; the last one has all of its patience.
const REACH: Duration = Duration::from_secs(2);
/// Pieces of a stream, and messages on a WebSocket.
const PIECES: usize = 5;
/// Between two of them, and between two datagrams of a flow.
const PAUSE: Duration = Duration::from_millis(200);
/// Flows of datagrams at once: two for each of an agent's connections.
pub(crate) const FLOWS: usize = 8;

/// What a visitor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A GET that the origin takes 20 ms for.
    Get,
    /// A POST of 1 KiB that comes back.
    Post,
    /// A download that takes a second.
    Stream,
    /// A WebSocket on which five messages come back within a second.
    Socket,
    /// A datagram of a flow that goes on all the time, said again until it comes back.
    Datagram,
}

impl Kind {
    /// What visitors come for over HTTP.
    pub(crate) const HTTP: [Self; 4] = [Self::Get, Self::Post, Self::Stream, Self::Socket];

    /// How long it takes if nothing is wrong.
    fn usual(self) -> Duration {
        match self {
            Self::Get | Self::Post => Duration::from_millis(20),
            Self::Stream | Self::Socket => PAUSE * PIECES as u32,
            Self::Datagram => Duration::ZERO,
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) what: String,
}

/// How far a request had come that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody took the connection.
    Unreached,
    /// The connection ended.
    Unanswered,
    /// The answer was no, or came too late.
    Refused,
    /// The answer had begun.
    Cut,
}

/// One request from its beginning to its end.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) kind: Kind,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) failure: Option<Failure>,
}

impl Visit {
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.begun
    }

    /// What it took beyond what the origin takes.
    pub(crate) fn late(&self) -> Duration {
        self.took().saturating_sub(self.kind.usual())
    }
}

/// A node that visitors may go to, as they know it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    visitor: Visitor,
    http: String,
    https: String,
}

impl Door {
    /// This node's, for this name.
    pub(crate) fn of(edge: &Edge, host: &str) -> Self {
        let (http, https) = (edge.http().port(), edge.https().port());
        Self {
            visitor: edge.visitor(),
            http: format!("http://{host}:{http}"),
            https: format!("https://{host}:{https}"),
        }
    }
}

/// Visits until the time is over, and waits for those under way. Each visitor begins at the next door, and knows the others: as a
/// browser does with a name of several addresses.
pub(crate) async fn load(doors: Vec<Door>, time: Duration) -> Vec<Visit> {
    let until = Instant::now() + time;
    let mut pace = interval(PACE);
    let mut visits = JoinSet::new();
    for (number, kind) in TURNS.into_iter().cycle().enumerate() {
        pace.tick().await;
        if Instant::now() >= until {
            break;
        }
        // Visitors differ: every third comes over HTTP/2 with TLS, the others over HTTP/1.1.
        let is_second = kind == Kind::Get && number % 3 == 0;
        let mut doors = doors.clone();
        let first = number % doors.len();
        doors.rotate_left(first);
        visits.spawn(async move {
            let begun = Instant::now();
            let outcome = timeout(PATIENCE, try_doors(&doors, kind, is_second)).await;
            let failure = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(_) => Some(refused(format!("no answer within {} s", PATIENCE.as_secs()))),
            };
            Visit { kind, begun, ended: Instant::now(), failure }
        });
    }
    let mut all = visits.join_all().await;
    all.sort_by_key(|visit| visit.begun);
    all
}

/// Talks on flows of a public port until the time is over.
pub(crate) async fn flows(port: SocketAddr, time: Duration) -> Vec<Visit> {
    let until = Instant::now() + time;
    let mut flows = JoinSet::new();
    for _ in 0..FLOWS {
        flows.spawn(async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            socket.connect(port).await.unwrap();
            let mut visits = Vec::new();
            while Instant::now() < until {
                let begun = Instant::now();
                let word = visits.len().to_be_bytes();
                let failure = timeout(PATIENCE, answered(&socket, &word)).await.err();
                let failure = failure.map(|_| refused(format!("no answer within {} s", PATIENCE.as_secs())));
                visits.push(Visit { kind: Kind::Datagram, begun, ended: Instant::now(), failure });
                tokio::time::sleep(PAUSE.saturating_sub(begun.elapsed())).await;
            }
            visits
        });
    }
    flows.join_all().await.into_iter().flatten().collect()
}

/// Says a word until it comes back.
async fn answered(socket: &UdpSocket, word: &[u8]) {
    let mut heard = [0; 100];
    loop {
        // Whoever is refused is told at its next word.
        let _ = socket.send(word).await;
        let listening = async {
            loop {
                match socket.recv(&mut heard).await {
                    Ok(length) if &heard[..length] == word => return,
                    Ok(_) => {}
                    Err(_) => std::future::pending().await,
                }
            }
        };
        if timeout(PAUSE, listening).await.is_ok() {
            return;
        }
    }
}

/// Goes on to the next door where nobody opens, and with a GET also where nobody answers.
async fn try_doors(doors: &[Door], kind: Kind, is_second: bool) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for (number, door) in doors.iter().enumerate() {
        let reach = if number + 1 < doors.len() { REACH } else { PATIENCE };
        let visitor = door.visitor.over(if is_second { Http::Two } else { Http::One });
        let base = if is_second { &door.https } else { &door.http };
        outcome = visit(&visitor, kind, base, reach).await;
        match &outcome {
            Err(Failure { stage: Stage::Unreached, .. }) => (),
            Err(Failure { stage: Stage::Unanswered, .. }) if matches!(kind, Kind::Get | Kind::Stream) => (),
            _ => break,
        }
    }
    outcome
}

async fn visit(visitor: &Visitor, kind: Kind, base: &str, reach: Duration) -> Result<(), Failure> {
    match kind {
        Kind::Get => ask(visitor, "GET", &format!("{base}/slow?ms=20"), Bytes::new(), 4, reach).await,
        Kind::Post => {
            ask(visitor, "POST", &format!("{base}/echo"), Bytes::from_static(&[b'x'; 1024]), 1024, reach).await
        }
        Kind::Stream => {
            let url = format!("{base}/drip?n={PIECES}&ms={}", PAUSE.as_millis());
            ask(visitor, "GET", &url, Bytes::new(), PIECES * 4096, reach).await
        }
        Kind::Socket => talk(visitor, base, reach).await,
        Kind::Datagram => unreachable!("flows have a load of their own"),
    }
}

fn unreached(what: impl ToString) -> Failure {
    Failure { stage: Stage::Unreached, what: what.to_string() }
}

fn refused(what: impl ToString) -> Failure {
    Failure { stage: Stage::Refused, what: what.to_string() }
}

fn midway(what: impl ToString) -> Failure {
    Failure { stage: Stage::Cut, what: what.to_string() }
}

/// A connection to a node, within the time that a visitor gives its address.
async fn dial(visitor: &Visitor, uri: &Uri, reach: Duration) -> Result<Box<dyn Stream>, Failure> {
    match timeout(reach, visitor.try_dial(uri)).await {
        Ok(dialled) => dialled.map_err(unreached),
        Err(_) => Err(unreached(format!("no connection within {} s", reach.as_secs()))),
    }
}

async fn ask(
    visitor: &Visitor,
    method: &str,
    url: &str,
    body: Bytes,
    length: usize,
    reach: Duration,
) -> Result<(), Failure> {
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    let request = Request::builder().method(method).uri(url).header("accept", "text/plain").body(body);
    let request = request.unwrap();
    let stream = dial(visitor, request.uri(), reach).await?;
    let sent = visitor.send(stream, request).await;
    let response = sent.map_err(|error| Failure { stage: Stage::Unanswered, what: error.to_string() })?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(midway)?.to_bytes();
    match status {
        200 if body.len() == length => Ok(()),
        200 => Err(midway(format!("{} bytes", body.len()))),
        _ => Err(refused(format!("{status} {}", String::from_utf8_lossy(&body).lines().next().unwrap_or_default()))),
    }
}

async fn talk(visitor: &Visitor, base: &str, reach: Duration) -> Result<(), Failure> {
    let url = format!("{base}/ws");
    let stream = dial(visitor, &url.parse().unwrap(), reach).await?;
    let opened = tokio_tungstenite::client_async(url.replacen("http", "ws", 1), stream).await;
    let (mut socket, _) = opened.map_err(refused)?;
    for number in 0..PIECES {
        tokio::time::sleep(PAUSE).await;
        let sent = Message::text(number.to_string());
        socket.send(sent.clone()).await.map_err(midway)?;
        match socket.next().await {
            Some(Ok(answer)) if answer == sent => (),
            Some(Err(error)) => return Err(midway(error)),
            other => return Err(midway(format!("{other:?}"))),
        }
    }
    Ok(())
}

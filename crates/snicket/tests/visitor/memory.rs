//! Bodies of any size in bounded memory: who is slow slows down who is fast, all the way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use harness::{RawOrigin, RequestBody, still};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::rig::{Rig, Way};
use crate::script::read_head;
use crate::visit::{Over, full};

const MIB: u64 = 1024 * 1024;

/// What is offered where nobody takes it.
const ENDLESS: u64 = 20 * 1024 * MIB;

/// What goes through where it is taken.
const LARGE: u64 = 96 * MIB;

/// More than all windows and kernel buffers between the two ends hold together.
const HELD: u64 = 64 * MIB;

/// What the process may need for all of it. A body held in memory would be many times this.
const GROWTH: u64 = 40 * MIB;

/// Bytes sent or written at once.
const PIECE: usize = 64 * 1024;

/// A line of `/proc/PID/status` in bytes.
fn memory(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kib: u64 = value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

/// The memory of every process of the rig, to be compared with its peak later.
struct Memory(Vec<(u32, u64)>);

impl Memory {
    fn of(rig: &Rig) -> Self {
        let agents = rig.agents.iter().map(|agent| agent.process.id());
        let processes = std::iter::once(rig.edge.process.id()).chain(agents);
        Self(processes.map(|process| (process, memory(process, "VmRSS"))).collect())
    }

    /// No process has at any time needed much more than at the beginning.
    fn assert_small_growth(&self) {
        let growth: Vec<u64> =
            self.0.iter().map(|(process, before)| memory(*process, "VmHWM").saturating_sub(*before) / MIB).collect();
        assert!(growth.iter().all(|mib| *mib < GROWTH / MIB), "MiB of growth (edge, agents): {growth:?}");
    }
}

/// A body of so many bytes that counts what is taken of it.
fn counted(size: u64) -> (Arc<watch::Sender<u64>>, RequestBody) {
    let taken = Arc::new(watch::Sender::new(0));
    let count = Arc::clone(&taken);
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let frames = futures_util::stream::unfold((), move |()| {
        let so_far = *count.borrow();
        count.send_modify(|count| *count += PIECE as u64);
        let frame = (so_far < size).then(|| (Ok::<_, std::io::Error>(Frame::data(piece.clone())), ()));
        std::future::ready(frame)
    });
    (taken, StreamBody::new(frames).boxed())
}

/// Bytes that an origin has written, by the path that was asked for.
type Written = Arc<Mutex<HashMap<String, Arc<watch::Sender<u64>>>>>;

/// An origin for bodies that are too large to be held.
struct Heavy {
    raw: RawOrigin,
    written: Written,
}

impl Heavy {
    /// `/unread` is answered by nothing, and its body stays where it is; `/upload` is read to its end. Every other path is answered with
    /// as many bytes as it is `LARGE` or, if it begins with `/endless`, `ENDLESS`.
    async fn start() -> Self {
        let written = Written::default();
        let counts = Arc::clone(&written);
        let raw = RawOrigin::start(move |mut stream| {
            let counts = Arc::clone(&counts);
            async move {
                let Some(head) = read_head(&mut stream).await else { return };
                let head = String::from_utf8(head).unwrap();
                match head.split(' ').nth(1).unwrap() {
                    "/unread" => std::future::pending().await,
                    "/upload" => read_all(stream).await,
                    path => {
                        let count = Arc::clone(counts.lock().unwrap().entry(path.to_owned()).or_default());
                        write_all(stream, if path.starts_with("/endless") { ENDLESS } else { LARGE }, &count).await;
                    }
                }
            }
        });
        Self { raw: raw.await, written }
    }

    /// What was written for this path, now and later.
    fn written(&self, path: &str) -> Arc<watch::Sender<u64>> {
        Arc::clone(self.written.lock().unwrap().entry(path.to_owned()).or_default())
    }
}

async fn read_all(mut stream: TcpStream) {
    let mut buffer = vec![0; PIECE];
    let mut left = LARGE;
    while left > 0 {
        match stream.read(&mut buffer).await {
            Ok(length @ 1..) => left -= length as u64,
            _ => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole").await;
}

async fn write_all(mut stream: TcpStream, size: u64, count: &watch::Sender<u64>) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; PIECE];
    for _ in 0..size / PIECE as u64 {
        if stream.write_all(&piece).await.is_err() {
            return;
        }
        count.send_modify(|count| *count += PIECE as u64);
    }
}

/// Each transport with one version of HTTP, for what takes long.
fn is_measured(way: &Way<'_>) -> bool {
    let through_quic = &way.agent.ready()["protocol"] == "quic";
    matches!((way.over, through_quic), (Over::Two, false) | (Over::One, true))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_its_origin_and_moves_no_memory() {
    let origin = Heavy::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    let memory = Memory::of(&rig);
    let upload = async |way: Way<'_>, path: &str, size: u64| {
        let (taken, body) = counted(size);
        let length = size.to_string();
        (taken, way.open("POST", path, &[("content-length", length.as_bytes())], body).await)
    };
    // All at once: one slow origin is not to hold up another request either.
    let stalling = rig.ways().map(async |way| {
        let (taken, exchange) = upload(way, "/unread", ENDLESS).await;
        let held = still(&taken, &way.to_string()).await;
        assert!(held < HELD, "{way}: {} MiB are held between visitor and origin", held / MIB);
        exchange
    });
    let stalled = futures_util::future::join_all(stalling).await;
    for way in rig.ways().filter(is_measured) {
        let (_, exchange) = upload(way, "/upload", LARGE).await;
        let answer = exchange.answer().await.unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"), "{way}");
    }
    memory.assert_small_growth();
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_waits_for_its_visitor_and_moves_no_memory() {
    let origin = Heavy::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    let memory = Memory::of(&rig);
    let stalling = rig.ways().enumerate().map(async |(number, way)| {
        let path = format!("/endless/{number}");
        let mut exchange = way.open("GET", &path, &[], full("")).await;
        assert_eq!(exchange.head().await.unwrap().1, 200, "{way}");
        let held = still(&origin.written(&path), &way.to_string()).await;
        assert!(held < HELD, "{way}: {} MiB are held between origin and visitor", held / MIB);
        exchange
    });
    let stalled = futures_util::future::join_all(stalling).await;
    for way in rig.ways().filter(is_measured) {
        let mut exchange = way.open("GET", "/download", &[], full("")).await;
        assert_eq!(exchange.head().await.unwrap().1, 200, "{way}");
        let mut left = LARGE;
        while let Some(frame) = exchange.frame().await {
            left -= frame.unwrap().into_data().unwrap().len() as u64;
        }
        assert_eq!(left, 0, "{way}");
    }
    memory.assert_small_growth();
    drop(stalled);
}

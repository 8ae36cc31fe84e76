//! Bodies of any size in bounded memory: who is slow slows down who is fast, all the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harness::{LIMIT, RawOrigin, RequestBody};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::rig::Rig;
use crate::script::read_head;
use crate::visit::{Over, full};

const MIB: u64 = 1024 * 1024;

/// What goes through in each direction on each way that is measured.
const LARGE: u64 = 256 * MIB;

/// More than all windows and kernel buffers between the two ends hold together.
const HELD: u64 = 64 * MIB;

/// What the process may need for all of it. A body held in memory would be many times this.
const GROWTH: u64 = 40 * MIB;

/// Bytes sent or written at once.
const PIECE: usize = 64 * 1024;

/// Nothing moves for so long: it has stalled.
const STILL: Duration = Duration::from_millis(400);

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

/// Waits until a count of bytes stands still.
async fn stalled(count: &AtomicU64, what: &str) -> u64 {
    let waiting = async {
        loop {
            let before = count.load(Ordering::Relaxed);
            tokio::time::sleep(STILL).await;
            if before > 0 && before == count.load(Ordering::Relaxed) {
                return before;
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("{what} never stalls"))
}

/// A body of so many bytes that counts what is taken of it.
fn counted(size: u64) -> (Arc<AtomicU64>, RequestBody) {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let frames = futures_util::stream::unfold((), move |()| {
        let so_far = count.fetch_add(PIECE as u64, Ordering::Relaxed);
        let frame = (so_far < size).then(|| (Ok::<_, std::io::Error>(Frame::data(piece.clone())), ()));
        std::future::ready(frame)
    });
    (taken, StreamBody::new(frames).boxed())
}

/// An origin that reads and writes nothing but heads until the gate opens.
struct Gated {
    raw: RawOrigin,
    gate: watch::Sender<bool>,
    /// Bytes written to visitors of `/download`.
    written: Arc<AtomicU64>,
}

impl Gated {
    /// `/upload` reads the body once the gate is open and answers how much it was; `/download` writes all the time.
    async fn start() -> Self {
        let (gate, open) = watch::channel(false);
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let raw = RawOrigin::start(move |mut stream| {
            let (mut open, count) = (open.clone(), Arc::clone(&count));
            async move {
                let Some(head) = read_head(&mut stream).await else { return };
                if head.starts_with(b"GET") {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                    let piece = vec![b'x'; PIECE];
                    for _ in 0..LARGE / PIECE as u64 {
                        if stream.write_all(&piece).await.is_err() {
                            return;
                        }
                        count.fetch_add(PIECE as u64, Ordering::Relaxed);
                    }
                    return;
                }
                open.wait_for(|open| *open).await.unwrap();
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
        });
        Self { raw: raw.await, gate, written }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_its_origin_and_moves_no_memory() {
    let origin = Gated::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    let length = LARGE.to_string();
    let headers: [(&str, &[u8]); 1] = [("content-length", length.as_bytes())];
    let memory = Memory::of(&rig);
    let mut uploads = Vec::new();
    for way in rig.ways() {
        let (taken, body) = counted(LARGE);
        let exchange = way.open("POST", "/upload", &headers, body).await;
        let held = stalled(&taken, &way.to_string()).await;
        assert!(held < HELD, "{way}: {} MiB are held between visitor and origin", held / MIB);
        uploads.push((way, exchange));
    }
    memory.assert_small_growth();
    // Two of them go on, each through another transport; the others are given up.
    uploads.retain(|(way, _)| {
        matches!((way.over, &way.agent.ready()["protocol"] == "quic"), (Over::One, false) | (Over::Two, true))
    });
    origin.gate.send(true).unwrap();
    for (way, exchange) in uploads {
        let answer = exchange.answer().await.unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"), "{way}");
    }
    memory.assert_small_growth();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_waits_for_its_visitor_and_moves_no_memory() {
    let origin = Gated::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    let memory = Memory::of(&rig);
    for way in rig.ways() {
        origin.written.store(0, Ordering::Relaxed);
        let mut exchange = way.open("GET", "/download", &[], full("")).await;
        assert_eq!(exchange.head().await.unwrap().1, 200, "{way}");
        let held = stalled(&origin.written, &way.to_string()).await;
        assert!(held < HELD, "{way}: {} MiB are held between origin and visitor", held / MIB);
        let through_quic = &way.agent.ready()["protocol"] == "quic";
        if matches!((way.over, through_quic), (Over::Two, false) | (Over::One, true)) {
            let mut left = LARGE;
            while let Some(frame) = exchange.frame().await {
                left -= frame.unwrap().into_data().unwrap().len() as u64;
            }
            assert_eq!(left, 0, "{way}");
        }
    }
    memory.assert_small_growth();
}

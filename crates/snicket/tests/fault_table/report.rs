//! What came of the faults, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::load::{FLOWS, Kind, PATIENCE, Stage, Visit};

/// A visit that takes so much longer than the origin does counts as not yet recovered.
const LATE: Duration = Duration::from_secs(1);

/// Why the table was worth making.
const MENDED: &str = "
## What was mended because of it

Before: the same rows of 15 s with an unoptimised build.

| fault | before | now |
|---|---|---|
| one agent of two killed, QUIC | the slowest GET took 5.1 to 6.7 s, up to 6 POSTs lost | a connection on which nothing is heard while requests wait is left after 1.5 s (HTTP/2: 2 s) |
| cable of one of four pulled | GETs waited for 5 s over QUIC, up to 9 s over HTTP/2 | the same |
| the edge killed | 9 to 13 GETs refused (530) after it was back | they wait for the agent |
| UDP blocked midway | 22 POSTs of 60 lost, gap 8.9 s | what comes after 1.5 s is not sent into the silence (7 lost), and agents find it in 5 s instead of 6.5 s (gap 6.8 s) |
| agent at its limit of descriptors | 2 GETs and 6 WebSockets failed | they wait |
";

fn is_bad(visit: &Visit) -> bool {
    visit.failure.is_some() || visit.late() >= LATE
}

/// What the table of pools is about.
const POOLS: &str = "
## When a member of a pool breaks

The same visitors come to a load balancer on three nodes, which share one member of etcd. Its pool has five members, three behind tunnels (an agent and a network namespace each)
and two at addresses; a pool of last resort has one more. A monitor asks each member every second, gives it a second, and finds it down after two failures, and well after two
answers.

- **out**: from the moment at which the fault struck until the last visit began that failed or took a second longer than the origin, or until the last request was sent again, s.
- **back**: from the mending until the member was asked by a visitor, s.

| fault | transport | GET | POST | stream | WebSocket | retried | out | back | gap | slowest | why |
|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// One fault over one transport.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) transport: &'static str,
    /// Why the numbers are not better.
    pub(crate) note: &'static str,
    pub(crate) visits: Vec<Visit>,
    /// Requests that the edge sent again.
    pub(crate) retried: u64,
    pub(crate) began: Instant,
    /// When the load ended.
    pub(crate) over: Instant,
    /// Since when nothing has been wrong but for what the program has yet to notice: the fault, or where it lasts, its end.
    pub(crate) mended: Instant,
}

impl Row {
    pub(crate) fn tried(&self, kind: Kind) -> usize {
        self.visits.iter().filter(|visit| visit.kind == kind).count()
    }

    /// Those that failed, and how many of them in the middle of their answer.
    pub(crate) fn failed(&self, kind: Kind) -> (usize, usize) {
        let failures: Vec<_> =
            self.visits.iter().filter(|visit| visit.kind == kind).filter_map(|visit| visit.failure.as_ref()).collect();
        (failures.len(), failures.iter().filter(|failure| failure.stage == Stage::Cut).count())
    }

    /// The longest time in which no visit ended well.
    pub(crate) fn gap(&self) -> Duration {
        let good = self.visits.iter().filter(|visit| visit.failure.is_none() && visit.ended <= self.over);
        let mut ends: Vec<Instant> = good.map(|visit| visit.ended).chain([self.began, self.over]).collect();
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The longest that one took which was answered.
    pub(crate) fn slowest(&self, kind: Kind) -> Duration {
        let answered = self.visits.iter().filter(|visit| visit.kind == kind && visit.failure.is_none());
        answered.map(Visit::took).max().unwrap_or_default()
    }

    /// From the mending until the first good visit after which there is no bad one; `None`: not before the end.
    pub(crate) fn recovery(&self) -> Option<Duration> {
        let bad = self.visits.iter().filter(|visit| visit.begun >= self.mended && is_bad(visit));
        let Some(last) = bad.map(|visit| visit.begun).max() else { return Some(Duration::ZERO) };
        let good = self.visits.iter().find(|visit| visit.begun > last)?;
        Some(good.begun - self.mended)
    }

    /// When the last of those visits began in this time that failed or took a second longer than the origin.
    pub(crate) fn last_harmed(&self, time: Range<Instant>) -> Option<Instant> {
        let begun = self.visits.iter().filter(|visit| time.contains(&visit.begun) && is_bad(visit));
        begun.map(|visit| visit.begun).max()
    }

    /// How often each thing was the reason of a failure.
    pub(crate) fn reasons(&self) -> BTreeMap<String, usize> {
        let mut reasons = BTreeMap::new();
        for visit in &self.visits {
            if let Some(failure) = &visit.failure {
                let how = if failure.stage == Stage::Cut { "cut" } else { "no answer" };
                *reasons.entry(format!("{:?}, {how}: {}", visit.kind, failure.what)).or_default() += 1;
            }
        }
        reasons
    }

    /// Shows the row, and why what failed did, while others are still to come.
    pub(crate) fn tell(&self) {
        eprintln!("{}", self.line());
        self.tell_reasons();
    }

    fn tell_reasons(&self) {
        for (reason, count) in self.reasons() {
            eprintln!("    {count} × {reason}");
        }
    }

    fn cell(&self, kind: Kind) -> String {
        let (failed, cut) = self.failed(kind);
        let midway = if cut > 0 { format!(" ({cut} cut)") } else { String::new() };
        format!("{failed} / {}{midway}", self.tried(kind))
    }

    /// Datagrams are said again, so that what becomes of a fault is how long they take.
    fn datagrams(&self) -> String {
        if self.tried(Kind::Datagram) == 0 {
            return "-".to_owned();
        }
        format!("{}, {}", self.cell(Kind::Datagram), self.slowest(Kind::Datagram).as_millis())
    }

    pub(crate) fn line(&self) -> String {
        let cells: Vec<String> = Kind::HTTP.into_iter().map(|kind| self.cell(kind)).collect();
        let recovery = self.recovery().map_or_else(|| "no".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {recovery} | {} |",
            self.what,
            self.transport,
            cells.join(" | "),
            self.datagrams(),
            self.retried,
            self.gap().as_millis(),
            self.slowest(Kind::Get).as_millis(),
            self.note,
        )
    }
}

/// How a member of a pool left and came back.
pub(crate) struct Member {
    /// From the fault until nobody was harmed by it any more, nor had to be sent to another member.
    pub(crate) out: Duration,
    /// From the mending until a visitor was led to it; `None`: not before the end.
    pub(crate) back: Option<Duration>,
}

/// One fault of a pool over one transport.
pub(crate) struct PoolRow {
    pub(crate) row: Row,
    /// `None`: the fault is about no member.
    pub(crate) member: Option<Member>,
}

impl PoolRow {
    /// Shows the row, and why what failed did, while others are still to come.
    pub(crate) fn tell(&self) {
        eprintln!("{}", self.line());
        self.row.tell_reasons();
    }

    fn line(&self) -> String {
        let row = &self.row;
        let cells: Vec<String> = Kind::HTTP.into_iter().map(|kind| row.cell(kind)).collect();
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        let out = self.member.as_ref().map_or_else(|| "-".to_owned(), |member| seconds(member.out));
        let back = match &self.member {
            Some(Member { back, .. }) => back.map_or_else(|| "no".to_owned(), seconds),
            None => "-".to_owned(),
        };
        format!(
            "| {} | {} | {} | {} | {out} | {back} | {} | {} | {} |",
            row.what,
            row.transport,
            cells.join(" | "),
            row.retried,
            row.gap().as_millis(),
            row.slowest(Kind::Get).as_millis(),
            row.note,
        )
    }
}

/// The whole page.
pub(crate) fn page(rows: &[Row], pools: &[PoolRow], time: Duration) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut text = format!(
        "# When something breaks\n\n\
         Written by `SNICKET_FAULTS_SECONDS={seconds} cargo test -p snicket --release --test fault_table -- --nocapture`.\n\n\
         Each row runs for {seconds} s with an edge, an origin and one agent or two of its own, in a network namespace. Between agent and \
         edge lie four strands of a cable (a TUN device whose packets pass through the test, at most 1500 bytes each), one for each of an \
         agent's connections; packets are lost and held up there. Where there are three nodes, they, three members of \
         etcd and the agent have a network namespace each, with a switch between them, and nobody else's cable. Twenty visits begin each second, whatever becomes of them: twelve GETs that \
         the origin takes 20 ms for (a third over HTTP/2 with TLS, the rest over HTTP/1.1), four POSTs of 1 KiB, two downloads \
         that take a second, two WebSockets on which five messages are sent back within a second. A visitor gives up after {patience} s. \
         Where UDP is measured, {FLOWS} flows go on at a public port beside them: each says a datagram again and again until it comes back, \
         and then the next one, five a second.\n\n\
         - **GET, POST, stream, WebSocket**: failed / tried; *cut*: the answer had begun.\n\
         - **UDP**: failed / tried datagrams, and the longest that one took, ms.\n\
         - **retried**: requests that the edge sent again, to the same agent or another one (`snicket_edge_retries_total`); what an agent \
         sends again to its origin is not counted.\n\
         - **gap**: the longest time in which no visit at all ended well, ms; 50 to 100 is the pace of the load.\n\
         - **slowest**: the longest that an answered GET took, ms.\n\
         - **back**: from the moment at which the fault struck, or where it was mended later, from then, until the first visit after \
         which none failed or took a second longer than the origin, s.\n\
         - **why**: why a number is not the best possible one.\n\n\
         The machine has {cores} cores, which edge, agents, origin, visitors and the cable share with whatever else runs there; \
         latencies are those of a busy machine.\n\n\
         | fault | transport | GET | POST | stream | WebSocket | UDP | retried | gap | slowest | back | why |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        seconds = time.as_secs(),
        patience = PATIENCE.as_secs(),
    );
    for row in rows {
        writeln!(text, "{}", row.line()).expect("a string can be written to");
    }
    text.push_str(POOLS);
    for row in pools {
        writeln!(text, "{}", row.line()).expect("a string can be written to");
    }
    text.push_str(MENDED);
    text
}

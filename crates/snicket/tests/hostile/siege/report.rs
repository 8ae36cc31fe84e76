//! What came of the attacks, as a table.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Served, Usage};

/// Memory that may stay whatever was attacked: what is left between the pages that are given back, and the tables of connections
/// at their largest. It is told in the table.
pub(super) const SLACK_KIB: u64 = 16 * 1024;

pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) served: Served,
    pub(super) before: Usage,
    pub(super) peak: Usage,
    pub(super) after: Usage,
    /// How long after the attack everything was back.
    pub(super) recovered: Option<Duration>,
    /// Which counters moved.
    pub(super) reasons: Vec<String>,
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

impl Row {
    pub(super) fn line(&self, idle: &Served) -> String {
        let asked = self.served.times.len() + self.served.failures.len();
        let times = self.served.percentile(99).as_secs_f64() / idle.percentile(99).as_secs_f64().max(0.000_1);
        let back = self.recovered.map_or_else(|| "no".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        format!(
            "| {} | {} / {asked} | {} | {times:.1} | {} → {} → {} | {} → {} → {} | {} → {} → {} | {back} | {} |",
            self.what,
            self.served.times.len(),
            milliseconds(self.served.percentile(99)),
            mib(self.before.kib),
            mib(self.peak.kib),
            mib(self.after.kib),
            self.before.descriptors,
            self.peak.descriptors,
            self.after.descriptors,
            self.before.tasks,
            self.peak.tasks,
            self.after.tasks,
            self.reasons.iter().map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(" "),
        )
    }
}

/// The whole page.
pub(super) fn table(idle: &Served, rows: &[Row], whole: Option<Duration>) -> String {
    let time = whole.map_or_else(|| "a moment".to_owned(), |time| format!("{} s", time.as_secs()));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut text = format!(
        "# Under attack\n\n\
         Written by `SNICKET_SIEGE_SECONDS=3 cargo test -p snicket --release --test hostile siege -- --nocapture`.\n\n\
         Each attack runs for {time} from a process of its own, over loopback, against `snicket up` with its default limits. \
         Meanwhile a visitor of another tenant makes 50 requests a second, each on a new connection. Idle, that takes {} ms in the \
         middle and {} ms at the 99th percentile. Memory, descriptors and tasks are the edge's: before, at the end of the attack, \
         and afterwards; they count as back within 10 % (memory: and {} MiB, for the gaps of the allocator and tables at their largest). The counters that moved \
         tell what the edge did about it; [limits.md](limits.md) says what each limit protects.\n\n\
         The machine has {cores} cores, which attacker, edge, agents and both visitors share; the attacker has the lowest priority.\n\n\
         | attack | served | p99, ms | × idle | MiB | descriptors | tasks | back after | counters |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        milliseconds(idle.percentile(50)),
        milliseconds(idle.percentile(99)),
        SLACK_KIB / 1024,
    );
    for row in rows {
        writeln!(text, "{}", row.line(idle)).expect("a string can be written to");
    }
    text.push_str(
        "\nOne run, not a median: with so few requests a single stall is the p99. Attacks that make edge, agents or an origin work \
         (answers that are\nbegun and not read, handshakes, first packets of QUIC) take turns with the victim on the same cores.\n",
    );
    text
}

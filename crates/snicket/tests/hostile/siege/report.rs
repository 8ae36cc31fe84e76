//! What came of the attacks, as a table.

use std::fmt::Write as _;
use std::time::Duration;

use super::attacks::VISITORS;
use super::{Served, Usage};

/// Memory that may stay whatever was attacked: what is left between the pages that are given back, and the tables of connections
/// at their largest. It is told in the table.
pub(super) const SLACK_KIB: u64 = 4 * 1024;

/// How much slower a visitor may be served while somebody else attacks.
const MOST_TIMES: f64 = 3.0;

/// What the edge held before and after everything.
pub(super) struct Levels {
    /// When it had started and served a few.
    pub(super) cold: Usage,
    /// A minute after a crowd of honest visitors.
    pub(super) warm: Usage,
    /// A minute after the last attack.
    pub(super) end: Usage,
}

/// What came of one attack.
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) before: Usage,
    /// The highest of the rounds.
    pub(super) peak: Usage,
    pub(super) after: Usage,
    /// How long after the last attacker had left everything was back.
    pub(super) recovered: Option<Duration>,
    /// Which counters moved.
    pub(super) reasons: Vec<String>,
    pub(super) failures: Vec<String>,
    served: usize,
    /// The 99th percentiles of the rounds, in peace and attacked.
    idle: Vec<Duration>,
    attacked: Vec<Duration>,
    /// Cores that the edge was busy on.
    cores: Vec<f64>,
}

/// The one in the middle, or the upper of two.
fn median<T: PartialOrd + Copy + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).expect("they are numbers"));
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

impl Row {
    pub(super) fn new(what: &'static str, before: Usage) -> Self {
        let nothing = Usage { kib: 0, descriptors: 0, tasks: 0 };
        Self {
            what,
            before,
            peak: nothing,
            after: nothing,
            recovered: None,
            reasons: Vec::new(),
            failures: Vec::new(),
            served: 0,
            idle: Vec::new(),
            attacked: Vec::new(),
            cores: Vec::new(),
        }
    }

    /// Adds one round.
    pub(super) fn round(&mut self, idle: Served, served: Served, cores: f64, peak: Usage) {
        self.idle.push(idle.percentile(99));
        self.attacked.push(served.percentile(99));
        self.cores.push(cores);
        self.served += served.times.len();
        self.failures.extend(served.failures);
        self.peak.kib = self.peak.kib.max(peak.kib);
        self.peak.descriptors = self.peak.descriptors.max(peak.descriptors);
        self.peak.tasks = self.peak.tasks.max(peak.tasks);
    }

    fn times(&self) -> f64 {
        median(&self.attacked).as_secs_f64() / median(&self.idle).as_secs_f64().max(0.000_1)
    }

    pub(super) fn line(&self) -> String {
        let back = self.recovered.map_or_else(|| "no".to_owned(), |time| format!("{:.0} s", time.as_secs_f64()));
        format!(
            "| {} | {} / {} | {} → {} | {:.1} | {:.2} | {} → {} | {} | {} | {back} | {} |",
            self.what,
            self.served,
            self.served + self.failures.len(),
            milliseconds(median(&self.idle)),
            milliseconds(median(&self.attacked)),
            self.times(),
            median(&self.cores),
            mib(self.peak.kib),
            mib(self.after.kib),
            self.peak.descriptors,
            self.peak.tasks,
            self.reasons.iter().map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(" "),
        )
    }
}

/// The whole page.
pub(super) fn table(levels: Levels, rows: &[Row], whole: Option<Duration>, cores: usize) -> String {
    let time = whole.map_or_else(|| "a moment".to_owned(), |time| format!("{} s", time.as_secs()));
    let held = rows.iter().filter(|row| row.times() <= MOST_TIMES).count();
    let Levels { cold, warm, end } = levels;
    let mut text = format!(
        "# Under attack\n\n\
         Written by `SNICKET_SIEGE_SECONDS=4 cargo test -p snicket --release --test hostile siege -- --nocapture`.\n\n\
         Each attack runs three times for {time} from a process of its own, over loopback, against `snicket up` with its default \
         limits. Meanwhile a visitor of another tenant makes 50 requests a second, each on a new connection. The table tells how many \
         of them were served; the 99th percentile of their times just before each attack and during it, in milliseconds (medians of \
         three), and their quotient; the cores that the edge was busy on; its memory at its highest and once it was back, in MiB; \
         its descriptors and tasks at their most; how long after the attacker left it was back; and the counters that moved, \
         which tell what the edge did about it. [limits.md](limits.md) says what each limit protects.\n\n\
         All run on one machine with {cores} cores, half of which the edge has for itself, and everybody else the others. The attacker runs only where nobody else wants to (SCHED_IDLE), and so do the agent and \
         the origin that it attacks, since they are on other machines in truth and would only take the victim's cores here; so are the \
         victim, its agent and its origin, which wait for nobody here (SCHED_RR). The first row is how much that leaves over: a program that attacks nobody and is just as busy.\n\n\
         Memory is what the process holds beside the pages of the program's file. It was {} MiB when the edge had started and served \
         a few, {} MiB a minute after crowds of {} honest visitors over each protocol, which is the baseline, and {} MiB a minute \
         after the last attack. Back means: memory within 10 % of the baseline{}, descriptors and tasks within 10 % and a handful. \
         Baseline of these: {} descriptors, {} tasks; at the end: {} and {}.\n\n\
         In {held} of {} rows the 99th percentile stayed within {MOST_TIMES} times of that in peace.\n\n\
         | attack | served | p99, ms | × | cores | MiB | descriptors | tasks | back after | counters |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        mib(cold.kib),
        mib(warm.kib),
        VISITORS,
        mib(end.kib),
        if SLACK_KIB > 0 { format!(" and {} MiB", SLACK_KIB / 1024) } else { String::new() },
        warm.descriptors,
        warm.tasks,
        end.descriptors,
        end.tasks,
        rows.len(),
    );
    for row in rows {
        writeln!(text, "{}", row.line()).expect("a string can be written to");
    }
    text.push_str(
        "\nWith 200 requests a round, the 99th percentile is the second or third slowest of them: a stall of the machine shows. The edge's cores \
         are also how\nmuch of an attack has come through: where the machine has other work to do, an attacker of the lowest priority gets \
         little done, and\nan idle percentile of more than 10 ms says that it had.\n",
    );
    text
}

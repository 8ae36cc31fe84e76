//! What becomes of members and of requests that fail: told in the log once each, and counted.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Counts of one node, for all its pools.
#[derive(Debug, Default)]
pub struct News {
    out: [AtomicU64; Out::ALL.len()],
    back: [AtomicU64; Back::ALL.len()],
    granted: AtomicU64,
    refused: AtomicU64,
}

/// Why a member is led to no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    /// Requests could not reach it.
    Unreached,
    /// It answered requests badly, or broke off.
    BadAnswers,
    /// Its monitor finds that it does not answer as it should.
    Monitor,
}

/// By what a member is known to be well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Back {
    /// It answers requests.
    Answers,
    /// Its monitor finds that it does.
    Monitor,
}

/// Of which member something is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) pool: &'a str,
    pub(crate) member: &'a str,
}

impl Out {
    const ALL: [Self; 3] = [Self::Unreached, Self::BadAnswers, Self::Monitor];

    fn label(self) -> &'static str {
        match self {
            Self::Unreached => "unreached",
            Self::BadAnswers => "bad_answers",
            Self::Monitor => "monitor",
        }
    }
}

impl Back {
    const ALL: [Self; 2] = [Self::Answers, Self::Monitor];

    fn label(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Monitor => "monitor",
        }
    }
}

impl News {
    /// What visitors' requests met takes a member out for so long.
    pub(crate) fn out(&self, Who { pool, member }: Who<'_>, why: Out, time: Duration) {
        self.out[why as usize].fetch_add(1, Relaxed);
        tracing::info!(pool, member, why = why.label(), seconds = time.as_secs(), "a member is out");
    }

    /// Its monitor does.
    pub(crate) fn out_by_monitor(&self, Who { pool, member }: Who<'_>, reason: Option<&str>) {
        self.out[Out::Monitor as usize].fetch_add(1, Relaxed);
        tracing::info!(pool, member, why = Out::Monitor.label(), reason, "a member is out");
    }

    pub(crate) fn back(&self, Who { pool, member }: Who<'_>, why: Back) {
        self.back[why as usize].fetch_add(1, Relaxed);
        tracing::info!(pool, member, why = why.label(), "a member is back");
    }

    /// A request wanted to go to another member, and may or may not.
    pub(crate) fn retry(&self, is_granted: bool) {
        let counter = if is_granted { &self.granted } else { &self.refused };
        counter.fetch_add(1, Relaxed);
    }

    /// In the text form of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, label: &str, rows: &[(&str, &AtomicU64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (value, counter) in rows {
                let _ = writeln!(text, "{name}{{{label}=\"{value}\"}} {}", counter.load(Relaxed));
            }
        };
        let out: Vec<_> = Out::ALL.map(Out::label).into_iter().zip(&self.out).collect();
        family(
            "snicket_balance_members_out_total",
            "Members of pools that were taken out, by the reason.",
            "why",
            &out,
        );
        let back: Vec<_> = Back::ALL.map(Back::label).into_iter().zip(&self.back).collect();
        family("snicket_balance_members_back_total", "Members that were led to again.", "why", &back);
        family(
            "snicket_balance_retries_total",
            "Requests that a member failed and that were to go to another one: whether the budget let them.",
            "verdict",
            &[("granted", &self.granted), ("refused", &self.refused)],
        );
        text
    }
}

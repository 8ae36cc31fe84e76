//! What the server counts.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::desk::Reply;

/// How answers turn out, by the number that DNS has for it; the last place is all others'.
const CODES: [&str; 7] = ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other"];

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    /// Over TCP, that is.
    Tls,
    Https,
}

/// What one batch of questions came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Packets that came.
    pub(crate) questions: u64,
    /// Answers, by how they turned out.
    pub(crate) answers: [u64; CODES.len()],
    /// Those that had been prepared.
    pub(crate) prepared: u64,
    /// Those that were cut short.
    pub(crate) cut: u64,
    /// Those that were kept back, since their network had too many.
    pub(crate) limited: u64,
    /// Those that the system did not send.
    pub(crate) unsent: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, reply: Reply) {
        self.questions += 1;
        self.limited += u64::from(reply == Reply::Limited);
        let Reply::Answer { code, is_cut, was_prepared } = reply else { return };
        let last = CODES.len() - 1;
        self.answers[usize::from(code).min(last)] += 1;
        self.cut += u64::from(is_cut);
        self.prepared += u64::from(was_prepared);
    }
}

/// All that has been counted since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    questions: [AtomicU64; 4],
    answers: [AtomicU64; CODES.len()],
    prepared: AtomicU64,
    cut: AtomicU64,
    limited: AtomicU64,
    unsent: AtomicU64,
    /// Connections that were closed as they came, since there were too many.
    turned_away: AtomicU64,
    /// Connections that had nothing to do and made room for others.
    displaced: AtomicU64,
    /// Zones that were transferred to the end.
    transferred: AtomicU64,
    transfers_refused: AtomicU64,
    /// Announcements of changes: those that were heard, and those that were not.
    told: [AtomicU64; 2],
}

impl Metrics {
    pub(crate) fn add(&self, transport: Transport, tally: &Tally) {
        let add = |counter: &AtomicU64, number: u64| {
            if number > 0 {
                counter.fetch_add(number, Ordering::Relaxed);
            }
        };
        add(&self.questions[transport as usize], tally.questions);
        for (counter, number) in self.answers.iter().zip(tally.answers) {
            add(counter, number);
        }
        add(&self.prepared, tally.prepared);
        add(&self.cut, tally.cut);
        add(&self.limited, tally.limited);
        add(&self.unsent, tally.unsent);
    }

    pub(crate) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn displaced(&self) {
        self.displaced.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn transferred(&self) {
        self.transferred.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn transfer_refused(&self) {
        self.transfers_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A peer was told of a change, and has heard it or not.
    pub(crate) fn told(&self, is_heard: bool) {
        self.told[usize::from(!is_heard)].fetch_add(1, Ordering::Relaxed);
    }

    /// In the text form of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, rows: &[(String, &AtomicU64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (labels, counter) in rows {
                let _ = writeln!(text, "{name}{labels} {}", counter.load(Ordering::Relaxed));
            }
        };
        let [udp, tcp, tls, https] = &self.questions;
        let transport = |name: &str| format!("{{transport=\"{name}\"}}");
        family(
            "snicket_dns_questions_total",
            "Packets that came as questions.",
            &[(transport("udp"), udp), (transport("tcp"), tcp), (transport("tls"), tls), (transport("https"), https)],
        );
        let codes: Vec<_> = CODES.iter().map(|code| format!("{{code=\"{code}\"}}")).zip(&self.answers).collect();
        family("snicket_dns_answers_total", "Answers, by how they turned out.", &codes);
        let [heard, unheard] = &self.told;
        let outcome = |name: &str| format!("{{outcome=\"{name}\"}}");
        family(
            "snicket_dns_notifies_total",
            "Announcements of changes to other name servers.",
            &[(outcome("heard"), heard), (outcome("unheard"), unheard)],
        );
        for (name, help, counter) in [
            ("snicket_dns_transfers_total", "Zones transferred to other name servers.", &self.transferred),
            (
                "snicket_dns_transfers_refused_total",
                "Questions for transfers that were refused.",
                &self.transfers_refused,
            ),
            ("snicket_dns_prepared_total", "Answers that had been prepared.", &self.prepared),
            ("snicket_dns_truncated_total", "Answers that were cut short.", &self.cut),
            ("snicket_dns_limited_total", "Answers kept back, since their network had too many.", &self.limited),
            ("snicket_dns_unsent_total", "Answers that the system did not send.", &self.unsent),
            (
                "snicket_dns_displaced_total",
                "Connections closed that had nothing to do, since others came.",
                &self.displaced,
            ),
            (
                "snicket_dns_turned_away_total",
                "Connections closed as they came, since there were too many.",
                &self.turned_away,
            ),
        ] {
            family(name, help, &[(String::new(), counter)]);
        }
        text
    }
}

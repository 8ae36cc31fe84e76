//! Services that the edge has not taken, and when they are tried again. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::service::Service;

/// Between two tries of what the edge has not done: at first, and at most.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// By their tunnels' names.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<String, Failure>);

#[derive(Debug)]
struct Failure {
    service: Service,
    /// As it was last told.
    reason: String,
    pause: Duration,
    due: Instant,
}

impl Failures {
    /// Keeps those that are wanted as they were tried: whatever has changed is tried at once.
    pub(super) fn keep(&mut self, wanted: &BTreeMap<String, Service>) {
        self.0.retain(|name, failure| wanted.get(name) == Some(&failure.service));
    }

    /// When it is tried again, if it has failed.
    pub(super) fn due(&self, tunnel: &str) -> Option<Instant> {
        Some(self.0.get(tunnel)?.due)
    }

    /// Notes that it has failed, each time for a pause of twice the length. Answers whether the reason is another one than before.
    pub(super) fn note(&mut self, service: &Service, reason: &str, now: Instant) -> bool {
        let before = self.0.remove(&service.tunnel);
        let is_news = before.as_ref().is_none_or(|before| before.reason != reason);
        let pause = before.map_or(PAUSES.0, |before| (before.pause * 2).min(PAUSES.1));
        let failure = Failure { service: service.clone(), reason: reason.to_owned(), pause, due: now + pause };
        self.0.insert(service.tunnel.clone(), failure);
        is_news
    }

    /// It has been taken.
    pub(super) fn forget(&mut self, tunnel: &str) {
        self.0.remove(tunnel);
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::Said;
    use super::*;

    fn service(url: &str) -> Service {
        Service::new(Said { hostname: "app.example.com", url, ..Said::default() }).unwrap()
    }

    #[test]
    fn pauses_double_up_to_minutes_and_a_reason_is_told_once() {
        let (mut failures, service, mut now) = (Failures::default(), service("http://localhost:1"), Instant::now());
        let mut pauses = Vec::new();
        for turn in 0..8 {
            assert_eq!(failures.note(&service, "no zone", now), turn == 0);
            let due = failures.due(&service.tunnel).unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(failures.note(&service, "no answer", now));
        failures.forget(&service.tunnel);
        assert_eq!(failures.due(&service.tunnel), None);
    }

    #[test]
    fn a_service_that_has_changed_is_tried_at_once() {
        let (mut failures, before, after) =
            (Failures::default(), service("http://localhost:1"), service("http://localhost:2"));
        let now = Instant::now();
        let wanted = |service: &Service| BTreeMap::from([(service.tunnel.clone(), service.clone())]);
        failures.note(&before, "no zone", now);
        failures.keep(&wanted(&before));
        assert_eq!(failures.due(&before.tunnel), Some(now + PAUSES.0));
        failures.keep(&wanted(&after));
        assert_eq!(failures.due(&after.tunnel), None);
        failures.note(&after, "no zone", now);
        assert_eq!(failures.due(&after.tunnel), Some(now + PAUSES.0));
        failures.keep(&BTreeMap::new());
        assert_eq!(failures.due(&after.tunnel), None);
    }
}

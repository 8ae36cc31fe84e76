//! Batches out of a watch's events. Pure.

use super::layout::Layout;
use super::message::{DELETED, WatchResponse};
use super::transaction::unsigned;
use crate::engine::{Batch, Revision, Write};

/// Puts the events of each transaction together, in whatever pieces they come.
#[derive(Debug)]
pub(super) struct Assembly {
    layout: Layout,
    /// Everything up to here was given out.
    after: Revision,
    /// Not known to be whole.
    open: Option<Batch>,
}

impl Assembly {
    pub(super) fn new(layout: Layout, after: Revision) -> Self {
        Self { layout, after, open: None }
    }

    /// Everything up to here was given out: where the next watch begins.
    pub(super) fn after(&self) -> Revision {
        self.after
    }

    /// What is to be watched.
    pub(super) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        self.layout.all()
    }

    /// Forgets what is not whole: the next watch brings it again.
    pub(super) fn interrupt(&mut self) {
        self.open = None;
    }

    /// What is whole with this answer of the watch.
    ///
    /// An answer that is not marked as a fragment ends with a whole transaction. Transactions in between end where the
    /// next begins.
    pub(super) fn take(&mut self, answer: WatchResponse) -> Vec<Batch> {
        let mut whole = Vec::new();
        let is_progress = answer.events.is_empty() && !answer.fragment && answer.watch_id >= 0;
        for event in answer.events {
            let Some(kv) = event.kv else { continue };
            let revision = unsigned(kv.mod_revision);
            if revision <= self.after {
                continue;
            }
            if self.open.as_ref().is_some_and(|open| open.revision != revision) {
                self.close(&mut whole);
            }
            let batch = self.open.get_or_insert_with(|| Batch { revision, writes: Vec::new() });
            if let Some(key) = self.layout.key_of(&kv.key) {
                batch.writes.push(Write { key, value: (event.kind != DELETED).then_some(kv.value) });
            }
        }
        if !answer.fragment {
            self.close(&mut whole);
        }
        // A watch that tells of its own progress has sent everything up to there. What answers our question (it has no
        // watch's number) says so as well, but up to 3.4.24 and 3.5.7 it may overtake events.
        if let Some(header) = answer.header.filter(|_| is_progress) {
            self.after = self.after.max(unsigned(header.revision));
        }
        whole
    }

    fn close(&mut self, whole: &mut Vec<Batch>) {
        if let Some(batch) = self.open.take() {
            self.after = batch.revision;
            whole.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::etcd::message::{Event, Header, KeyValue};

    fn event(revision: i64, key: &str, value: Option<&str>) -> Event {
        let key = format!("/p/registry/{key}").into_bytes();
        let kv = KeyValue { key, mod_revision: revision, value: value.unwrap_or_default().into() };
        Event { kind: i32::from(value.is_none()), kv: Some(kv) }
    }

    fn answer(fragment: bool, events: Vec<Event>) -> WatchResponse {
        WatchResponse { fragment, events, ..WatchResponse::default() }
    }

    fn told(batches: &[Batch]) -> Vec<(Revision, Vec<&str>)> {
        let keys = |batch: &Batch| -> Vec<&'static str> {
            batch.writes.iter().map(|write| &*write.key.clone().leak()).collect()
        };
        batches.iter().map(|batch| (batch.revision, keys(batch))).collect()
    }

    #[test]
    fn a_transaction_in_pieces_is_one_batch() {
        let mut assembly = Assembly::new(Layout::new("/p"), 4);
        let old = event(4, "entries/old", Some("x"));
        let first = answer(true, vec![old, event(5, "entries/a", Some("1")), event(5, "head", Some(""))]);
        assert!(assembly.take(first).is_empty(), "nothing says yet that the transaction ends here");
        let second = answer(true, vec![event(7, "entries/b", None), event(7, "entries/c", Some("3"))]);
        assert_eq!(told(&assembly.take(second)), [(5, vec!["a"])]);
        let third = answer(false, vec![event(7, "entries/d", Some("")), event(8, "head", Some(""))]);
        let batches = assembly.take(third);
        assert_eq!(told(&batches), [(7, vec!["b", "c", "d"]), (8, vec![])]);
        assert_eq!(batches[0].writes[0].value, None);
        assert_eq!(batches[0].writes[2].value.as_deref(), Some(b"".as_slice()));
        assert_eq!(assembly.after(), 8);
    }

    #[test]
    fn what_was_interrupted_comes_again_from_the_start() {
        let mut assembly = Assembly::new(Layout::new("/p"), 0);
        assert!(assembly.take(answer(true, vec![event(2, "entries/a", Some("1"))])).is_empty());
        assembly.interrupt();
        assert_eq!(assembly.after(), 0);
        let again = answer(false, vec![event(2, "entries/a", Some("1")), event(2, "entries/b", Some("2"))]);
        assert_eq!(told(&assembly.take(again)), [(2, vec!["a", "b"])]);
    }

    #[test]
    fn only_a_watchs_own_progress_moves_it_on() {
        let mut assembly = Assembly::new(Layout::new("/p"), 3);
        let progress = |watch_id, revision| WatchResponse {
            header: Some(Header { revision, ..Header::default() }),
            watch_id,
            ..WatchResponse::default()
        };
        assert!(assembly.take(progress(-1, 9)).is_empty());
        assert_eq!(assembly.after(), 3);
        assert!(assembly.take(progress(0, 9)).is_empty());
        assert_eq!(assembly.after(), 9);
        assembly.take(progress(0, 5));
        assert_eq!(assembly.after(), 9);
    }
}

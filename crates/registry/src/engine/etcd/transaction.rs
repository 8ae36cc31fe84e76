//! The registry's transactions in etcd's words. Pure.

use std::collections::HashSet;

use super::layout::Layout;
use super::message::{
    Compare, DeleteRangeRequest, MOD_REVISION, Operation, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse,
};
use crate::CommitError;
use crate::engine::{Guard, Revision, Write};

/// One transaction that compares the guards, and either writes, or says what the guarded keys' revisions are.
///
/// Each one that writes also writes the head, so that the head's revision is that of the registry's latest change, which
/// the store's need not be: others may use the same etcd.
pub(super) fn request(layout: &Layout, guards: &[Guard], writes: &[Write]) -> TxnRequest {
    let head = || revision_of(layout.head());
    let success = match writes {
        [] => vec![head()],
        writes => {
            let put_head = Operation::Put(PutRequest { key: layout.head(), ..PutRequest::default() });
            operations(layout, writes, 0).chain([op(put_head)]).collect()
        }
    };
    TxnRequest {
        compare: comparisons(layout, guards),
        success,
        failure: std::iter::once(head()).chain(guarded(layout, guards)).collect(),
    }
}

/// The same for live entries, which are written under a lease and have no head.
pub(super) fn live_request(layout: &Layout, lease: i64, guards: &[Guard], writes: &[Write]) -> TxnRequest {
    TxnRequest {
        compare: comparisons(layout, guards),
        success: operations(layout, writes, lease).collect(),
        failure: guarded(layout, guards).collect(),
    }
}

/// What came of it.
pub(super) fn verdict(guards: &[Guard], has_writes: bool, answer: &TxnResponse) -> Result<Revision, CommitError> {
    let revisions = || answer.responses.iter().map(|response| response.range.as_ref().map_or(0, last_written));
    if answer.succeeded {
        let written = answer.header.as_ref().map_or(0, |header| unsigned(header.revision));
        return Ok(if has_writes { written } else { revisions().next().unwrap_or_default() });
    }
    let broken = guards.iter().zip(revisions().skip(1)).find(|(guard, revision)| guard.revision != *revision);
    let key = broken.map_or_else(String::new, |(guard, _)| guard.key.clone());
    // Whoever writes by hand does not write the head.
    Err(CommitError::Conflict { key, revision: revisions().max().unwrap_or_default() })
}

/// What came of it, when it was one of live entries.
pub(super) fn live_verdict(guards: &[Guard], answer: &TxnResponse) -> Result<Revision, CommitError> {
    let now = answer.header.as_ref().map_or(0, |header| unsigned(header.revision));
    if answer.succeeded {
        return Ok(now);
    }
    let revisions = answer.responses.iter().map(|response| response.range.as_ref().map_or(0, last_written));
    let broken = guards.iter().zip(revisions).find(|(guard, revision)| guard.revision != *revision);
    Err(CommitError::Conflict { key: broken.map_or_else(String::new, |(guard, _)| guard.key.clone()), revision: now })
}

fn comparisons(layout: &Layout, guards: &[Guard]) -> Vec<Compare> {
    let comparison = |guard: &Guard| Compare {
        result: 0,
        target: MOD_REVISION,
        key: layout.entry(&guard.key),
        mod_revision: Some(signed(guard.revision)),
    };
    guards.iter().map(comparison).collect()
}

fn guarded(layout: &Layout, guards: &[Guard]) -> impl Iterator<Item = RequestOp> {
    guards.iter().map(|guard| revision_of(layout.entry(&guard.key)))
}

/// etcd takes a key once only; the last write is the one that stays.
fn last_of_each(writes: &[Write]) -> impl Iterator<Item = &Write> {
    let mut seen = HashSet::new();
    let mut kept: Vec<&Write> = writes.iter().rev().filter(|write| seen.insert(write.key.as_str())).collect();
    kept.reverse();
    kept.into_iter()
}

fn operations(layout: &Layout, writes: &[Write], lease: i64) -> impl Iterator<Item = RequestOp> {
    last_of_each(writes).map(move |write| {
        let key = layout.entry(&write.key);
        op(match &write.value {
            Some(value) => Operation::Put(PutRequest { key, value: value.clone(), lease }),
            None => Operation::Delete(DeleteRangeRequest { key }),
        })
    })
}

fn revision_of(key: Vec<u8>) -> RequestOp {
    op(Operation::Range(RangeRequest { key, keys_only: true, ..RangeRequest::default() }))
}

fn op(operation: Operation) -> RequestOp {
    RequestOp { operation: Some(operation) }
}

fn last_written(range: &RangeResponse) -> Revision {
    range.kvs.first().map_or(0, |kv| unsigned(kv.mod_revision))
}

/// etcd counts in signed numbers, from 1.
pub(super) fn unsigned(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or_default()
}

pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::etcd::message::{Header, KeyValue, ResponseOp};

    fn write(key: &str, value: Option<&str>) -> Write {
        Write { key: key.into(), value: value.map(Into::into) }
    }

    fn guard(key: &str, revision: Revision) -> Guard {
        Guard { key: key.into(), revision }
    }

    #[test]
    fn a_key_is_written_once_and_the_head_last() {
        let layout = Layout::new("/p");
        let writes = [write("a", Some("1")), write("b", None), write("a", Some("2"))];
        let request = request(&layout, &[], &writes);
        let written: Vec<_> = request.success.into_iter().map(|op| op.operation.unwrap()).collect();
        assert_eq!(
            written,
            [
                Operation::Delete(DeleteRangeRequest { key: b"/p/registry/entries/b".to_vec() }),
                Operation::Put(PutRequest { key: b"/p/registry/entries/a".to_vec(), value: b"2".to_vec(), lease: 0 }),
                Operation::Put(PutRequest { key: b"/p/registry/head".to_vec(), ..PutRequest::default() }),
            ]
        );
    }

    #[test]
    fn live_entries_are_written_under_their_lease_and_nothing_else_is() {
        let request =
            live_request(&Layout::live("/p"), 7, &[guard("a", 0)], &[write("a", Some("1")), write("b", None)]);
        let written: Vec<_> = request.success.into_iter().map(|op| op.operation.unwrap()).collect();
        assert_eq!(
            written,
            [
                Operation::Put(PutRequest { key: b"/p/live/a".to_vec(), value: b"1".to_vec(), lease: 7 }),
                Operation::Delete(DeleteRangeRequest { key: b"/p/live/b".to_vec() }),
            ]
        );
        let refused = live_verdict(&[guard("a", 0), guard("b", 3)], &lost(&[0, 4]));
        assert!(matches!(&refused, Err(CommitError::Conflict { key, .. }) if key == "b"), "{refused:?}");
    }

    /// What etcd answers when a guard does not hold: the head's revision, then those of the guarded keys; 0: no such key.
    fn lost(revisions: &[i64]) -> TxnResponse {
        let responses = revisions.iter().map(|revision| {
            let kv = KeyValue { mod_revision: *revision, ..KeyValue::default() };
            let kvs = if *revision == 0 { vec![] } else { vec![kv] };
            ResponseOp { range: Some(RangeResponse { kvs, ..RangeResponse::default() }) }
        });
        let header = Header { revision: 99, ..Header::default() };
        TxnResponse { header: Some(header), succeeded: false, responses: responses.collect() }
    }

    #[test]
    fn a_conflict_names_the_first_broken_guard_and_the_latest_change_of_the_registry() {
        let guards = [guard("a", 3), guard("b", 0), guard("c", 5)];
        for (revisions, broken, latest) in [([7, 3, 0, 6], "c", 7), ([7, 3, 4, 6], "b", 7), ([7, 0, 0, 9], "a", 9)] {
            match verdict(&guards, true, &lost(&revisions)) {
                Err(CommitError::Conflict { key, revision }) => assert_eq!((key.as_str(), revision), (broken, latest)),
                other => panic!("{other:?}"),
            }
        }
    }
}

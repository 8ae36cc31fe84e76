//! The audit log.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::set_ordered;
use crate::audit::AuditEntry;
use crate::engine::Revision;
use crate::resource::Versioned;
use crate::{AuditId, Snapshot, TokenId};

type Entry = Arc<Versioned<AuditEntry>>;

/// In order: ids tell only what the clock of the node said that wrote them.
type Order = (Revision, AuditId);

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct AuditLog {
    all: OrdMap<AuditId, Entry>,
    in_order: OrdMap<Order, Entry>,
    /// Those of each token, and those of none.
    by_token: OrdMap<Option<TokenId>, OrdMap<Order, Entry>>,
}

impl Snapshot {
    /// The audit log, the oldest entry first: the order is that of the changes themselves.
    pub fn audit(&self) -> impl DoubleEndedIterator<Item = &Arc<Versioned<AuditEntry>>> {
        self.audit.in_order.values()
    }

    /// How many entries the audit log has.
    pub fn audit_count(&self) -> usize {
        self.audit.all.len()
    }

    /// So many entries make room: each time the oldest one of the token that has the most, so that no token pushes out
    /// another's entries before that one has as many.
    pub(crate) fn audit_leaving(&self, count: usize) -> impl Iterator<Item = &Entry> {
        let mut taken = BTreeMap::<Option<TokenId>, usize>::new();
        (0..count).filter_map(move |_| {
            let taken_of = |who: &Option<TokenId>| taken.get(who).copied().unwrap_or_default();
            let candidates = self.audit.by_token.iter().filter_map(|(who, entries)| {
                let (order, entry) = entries.iter().nth(taken_of(who))?;
                Some(((entries.len() - taken_of(who), Reverse(*order)), *who, entry))
            });
            let (_, who, entry) = candidates.max_by_key(|(rank, ..)| *rank)?;
            *taken.entry(who).or_default() += 1;
            Some(entry)
        })
    }
}

impl AuditLog {
    /// Takes in an entry, or lets go of it.
    pub(super) fn set(&mut self, id: AuditId, new: Option<Entry>) {
        if let Some(old) = self.all.get(&id) {
            let (order, who) = ((old.revision, id), who(old));
            self.in_order.remove(&order);
            if let Some(entries) = self.by_token.get_mut(&who) {
                entries.remove(&order);
                if entries.is_empty() {
                    self.by_token.remove(&who);
                }
            }
        }
        if let Some(new) = &new {
            let order = (new.revision, id);
            self.in_order.insert(order, new.clone());
            self.by_token.entry(who(new)).or_default().insert(order, new.clone());
        }
        set_ordered(&mut self.all, id, new);
    }
}

fn who(entry: &AuditEntry) -> Option<TokenId> {
    entry.actor.token.as_ref().map(|(id, _)| *id)
}

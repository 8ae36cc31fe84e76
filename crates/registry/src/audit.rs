//! Who changed what: an entry for each transaction that is made on somebody's behalf, written with it, so that there is no change
//! without its entry and no entry without its change.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Revision;
use crate::resource::{Key, NameClaim, Resource};
use crate::{AuditId, Snapshot, TokenId, Transaction};

/// Entries that are kept; some MiB in each node's memory. Beyond that the token that has the most of them loses its oldest:
/// what is done seldom is remembered for long, whatever others do often. Whoever has to keep more reads them out from time
/// to time.
pub const KEPT: usize = 10_000;
/// Removed with each new one beyond that, so that what several nodes wrote at once goes, too.
const REMOVED_AT_ONCE: usize = 2;
/// Written out of one transaction, so that no entry is large.
const LISTED: usize = 20;

tokio::task_local! {
    static ACTOR: Option<Arc<Actor>>;
}

/// On whose behalf something is done, and by which call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// When the call came, by the clock of the node that was asked.
    pub at: Timestamp,
    /// The API token that was shown, and its name at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<(TokenId, String)>,
    /// Where the call came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The method of the call.
    pub method: String,
    /// Its path, without a query.
    pub path: String,
    /// As the answer's `cf-ray` has it.
    pub ray: String,
}

/// What was done to an entry of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// There was none of this key.
    Created,
    /// It has another value.
    Changed,
    /// It is gone.
    Removed,
}

/// An entry of the registry that a transaction wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Its kind, a slash, and what is unique within the kind.
    pub key: String,
    /// What was done to it.
    pub deed: Deed,
    /// The revision that had written what was there, as far as the change was made on condition of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Revision>,
}

/// A transaction in somebody's name. Its values are not in it, because some are secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Begins with the time by the clock of the node that wrote it: the order of entries is that of their revisions.
    pub id: AuditId,
    /// Who, and when.
    pub actor: Actor,
    /// What: the first ones.
    pub changes: Vec<Touched>,
    /// How many there were.
    pub total: usize,
}

impl Resource for AuditEntry {
    const KIND: &'static str = "audit";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.id)
    }
}

/// Does this in somebody's name: each transaction that it makes has an entry. What it has others do, in tasks of their own, does
/// not.
pub async fn on_behalf_of<T>(actor: Actor, work: impl Future<Output = T>) -> T {
    ACTOR.scope(Some(Arc::new(actor)), work).await
}

/// Does what belongs to a change that has its entry already.
pub(crate) async fn unnoted<T>(work: impl Future<Output = T>) -> T {
    ACTOR.scope(None, work).await
}

/// Adds the entry that a transaction is to have.
pub(crate) fn note(transaction: &mut Transaction, snapshot: &Snapshot) {
    let actor = ACTOR.try_with(Option::clone).ok().flatten();
    let Some(actor) = actor.filter(|_| !transaction.writes.is_empty()) else { return };
    let changes: Vec<Touched> = transaction
        .writes
        .iter()
        // What keeps names unique tells nobody anything.
        .filter(|write| !write.key.starts_with(NameClaim::KIND))
        .map(|write| {
            let seen = transaction.guards.iter().find(|guard| guard.key == write.key).map(|guard| guard.revision);
            let deed = match (&write.value, seen) {
                (None, _) => Deed::Removed,
                // What is new has an id that nobody had, so that often nobody looks.
                (Some(_), Some(0) | None) => Deed::Created,
                (Some(_), Some(_)) => Deed::Changed,
            };
            Touched { key: write.key.clone(), deed, before: seen.filter(|revision| *revision > 0) }
        })
        .collect();
    let total = changes.len();
    let entry = AuditEntry {
        id: AuditId::at(actor.at),
        actor: Actor::clone(&actor),
        changes: changes.into_iter().take(LISTED).collect(),
        total,
    };
    transaction.put(&entry);
    let excess = (snapshot.audit_count() + 1).saturating_sub(KEPT).min(REMOVED_AT_ONCE);
    for old in snapshot.audit_leaving(excess) {
        transaction.delete(&old.key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewTunnel, Registry, TokenId, TunnelName};

    fn actor(at: Timestamp) -> Actor {
        Actor { at, token: None, address: None, method: "POST".into(), path: "/zones".into(), ray: "1".into() }
    }

    fn tunnel(name: &str) -> NewTunnel {
        NewTunnel {
            name: TunnelName::parse(name).unwrap(),
            secret: None,
            config_source: crate::ConfigSource::Local,
            labels: Default::default(),
        }
    }

    #[tokio::test]
    async fn what_is_done_on_behalf_of_somebody_has_an_entry() {
        let now = Timestamp::UNIX_EPOCH;
        let registry = Registry::in_memory(now).await.unwrap();
        registry.create_tunnel(now, tunnel("by-nobody")).await.unwrap();
        assert_eq!(registry.snapshot().audit_count(), 0);

        let made = on_behalf_of(actor(now), registry.create_tunnel(now, tunnel("by-somebody"))).await.unwrap();
        let snapshot = registry.snapshot();
        let entry = snapshot.audit().next().unwrap();
        assert_eq!((&entry.actor, entry.total), (&actor(now), 1));
        let change = &entry.changes[0];
        assert_eq!((change.key.as_str(), change.deed, change.before), (made.key().as_str(), Deed::Created, None));
        // Written with it.
        assert_eq!(entry.revision, snapshot.tunnel(made.id).unwrap().revision);

        on_behalf_of(actor(now), registry.create_tunnel(now, tunnel("by-somebody"))).await.unwrap_err();
        assert_eq!(registry.snapshot().audit_count(), 1, "what was refused has none");
        let later = Timestamp::from_second(1).unwrap();

        on_behalf_of(actor(later), registry.delete_tunnel(now, made.id, false)).await.unwrap();
        let snapshot = registry.snapshot();
        let last = &snapshot.audit().next_back().unwrap().changes[0];
        assert_eq!((last.deed, last.before), (Deed::Changed, Some(entry.revision)), "a deleted tunnel stays listed");
    }

    /// Puts entries of this token there, one each second from then on, in one transaction.
    async fn fill(registry: &Registry, token: Option<TokenId>, count: usize, from: Timestamp) {
        let mut many = Transaction::new();
        for second in 0..count {
            let at = from + jiff::SignedDuration::from_secs(i64::try_from(second).unwrap());
            let actor = Actor { token: token.map(|token| (token, "name".into())), ..actor(at) };
            many.put(&AuditEntry { id: AuditId::at(at), actor, changes: vec![], total: 0 });
        }
        registry.commit(many).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_does_much_makes_nobody_else_be_forgotten() {
        let now = Timestamp::UNIX_EPOCH;
        let registry = Registry::in_memory(now).await.unwrap();
        let (busy, quiet) = (TokenId::random(), TokenId::random());
        fill(&registry, Some(quiet), 3, now).await;
        fill(&registry, None, 2, now).await;
        fill(&registry, Some(busy), KEPT - 5, now).await;
        let count = |token: Option<TokenId>| {
            registry.snapshot().audit().filter(|entry| entry.actor.token.as_ref().map(|(id, _)| *id) == token).count()
        };
        // By the clock these are the oldest of all, and by what happened the newest.
        let before = Timestamp::from_second(-1_000_000).unwrap();
        for name in ["a", "b", "c"] {
            let actor = Actor { token: Some((quiet, "name".into())), ..actor(before) };
            on_behalf_of(actor, registry.create_tunnel(now, tunnel(name))).await.unwrap();
        }
        assert_eq!((count(Some(quiet)), count(None), count(Some(busy))), (6, 2, KEPT - 8));
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.audit().next_back().unwrap().actor.at, before, "it was last");
        let oldest = snapshot.audit().find(|entry| entry.actor.token.as_ref().is_some_and(|(id, _)| *id == busy));
        assert_eq!(oldest.unwrap().actor.at, Timestamp::from_second(3).unwrap(), "its oldest have gone");
    }

    #[tokio::test]
    async fn the_oldest_make_room() {
        let now = Timestamp::UNIX_EPOCH;
        let registry = Registry::in_memory(now).await.unwrap();
        let at = |second: usize| Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        let entry =
            |second| AuditEntry { id: AuditId::at(at(second)), actor: actor(at(second)), changes: vec![], total: 0 };
        let mut many = Transaction::new();
        for second in 0..=KEPT {
            many.put(&entry(second));
        }
        registry.commit(many).await.unwrap();
        let last = at(KEPT + 1);
        on_behalf_of(actor(last), registry.create_tunnel(now, tunnel("a"))).await.unwrap();
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.audit_count(), KEPT);
        let first = snapshot.audit().next().unwrap().actor.at;
        assert_eq!((first, snapshot.audit().next_back().unwrap().actor.at), (at(2), last));
    }
}

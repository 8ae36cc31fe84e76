//! Making, changing and deleting zones.

use jiff::Timestamp;

use super::{Zone, ZoneSettings, ZoneTraits};
use crate::record::RecordSet;
use crate::resource::Resource;
use crate::{CommitError, Hostname, Registry, Snapshot, Transaction, ZoneId};

/// Names whose records are removed in one transaction; etcd takes 128 operations in one.
const SWEPT: usize = 100;

/// Why a zone was not made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// No such zone.
    #[error("there is no zone {0}")]
    NotFound(ZoneId),
    /// It exists.
    #[error("{0} is a zone already")]
    Exists(Hostname),
    /// Signatures would not reach those to whom it is transferred.
    #[error(
        "{0} is transferred to other name servers, which could not sign their answers; disable its outgoing transfers first"
    )]
    Transferred(Hostname),
    /// It has no key that could be changed.
    #[error("{0} is not signed, so there is no key to change; PATCH its dnssec first")]
    Unsigned(Hostname),
    /// Somebody would not be able to check answers.
    #[error(
        "the next step is too early: others may not have heard of the last one before {0}; force=true does it nevertheless"
    )]
    TooEarly(Timestamp),
    /// No other key is about to take its place.
    #[error("there is no change of the key that could be given up")]
    NothingToKeep,
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// The zone of this name, made if there is none.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn ensure_zone(&self, now: Timestamp, name: &Hostname) -> Result<Zone, CommitError> {
        match self.create_zone(now, name, ZoneTraits::default()).await {
            Ok(zone) => Ok(zone),
            Err(ZoneError::Commit(error)) => Err(error),
            Err(
                ZoneError::Exists(_)
                | ZoneError::NotFound(_)
                | ZoneError::Transferred(_)
                | ZoneError::Unsigned(_)
                | ZoneError::TooEarly(_)
                | ZoneError::NothingToKeep,
            ) => {
                let snapshot = self.snapshot();
                let id = ZoneId::of(snapshot.account().id, name);
                let zone = snapshot.zone(id).map(|zone| zone.value.clone());
                // Only somebody who deletes it in this moment leaves us without; a later start makes it again.
                zone.ok_or_else(|| CommitError::Conflict { key: id.to_string(), revision: snapshot.revision() })
            }
        }
    }

    /// Makes a zone.
    ///
    /// # Errors
    /// There is one of that name, or the engine fails.
    pub async fn create_zone(&self, now: Timestamp, name: &Hostname, traits: ZoneTraits) -> Result<Zone, ZoneError> {
        let id = ZoneId::of(self.snapshot().account().id, name);
        loop {
            // What an earlier zone of this name has left would be the new one's.
            self.sweep_zone(id).await?;
            let made = self.change(|snapshot, transaction| {
                if snapshot.zone(id).is_some() {
                    return Err(ZoneError::Exists(name.clone()));
                }
                if snapshot.zone_entry(id).is_some() {
                    return Ok(None);
                }
                let traits = traits.clone();
                let zone = Zone { traits, ..Zone::new(snapshot.account().id, name.clone(), now) };
                transaction.expect_absent(&zone.key()).put(&zone);
                Ok(Some(zone))
            });
            if let Some(zone) = made.await? {
                return Ok(zone);
            }
        }
    }

    /// Changes what is said about a zone, or its settings. What is as it is to be already is not written. The change is asked
    /// for again when somebody else was faster.
    ///
    /// # Errors
    /// No such zone, or the engine fails.
    pub async fn change_zone(
        &self,
        now: Timestamp,
        id: ZoneId,
        mut change: impl FnMut(&mut ZoneTraits, &mut ZoneSettings),
    ) -> Result<Zone, ZoneError> {
        self.in_zone(id, |snapshot, transaction| {
            let old = snapshot.zone(id).ok_or(ZoneError::NotFound(id))?;
            let mut new = old.value.clone();
            change(&mut new.traits, &mut new.settings);
            if new != old.value {
                new.modified_at = Some(now);
                transaction.expect(old).put(&new);
            }
            Ok(new)
        })
        .await
    }

    /// Deletes a zone with all that belongs to it. From the first transaction on it is nobody's; what it had is removed
    /// then, by us or by whoever comes after us if we cannot.
    ///
    /// # Errors
    /// No such zone, or the engine fails.
    pub async fn delete_zone(&self, now: Timestamp, id: ZoneId) -> Result<(), ZoneError> {
        self.in_zone(id, |snapshot, transaction| {
            let old = snapshot.zone(id).ok_or(ZoneError::NotFound(id))?;
            transaction.expect(old).put(&Zone { deleted_at: Some(now), ..old.value.clone() });
            Ok::<(), ZoneError>(())
        })
        .await?;
        Ok(self.finish_deletions().await?)
    }

    /// Removes what deleted zones still have: after a node ended in the middle of it, the next one to call this goes on.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn finish_deletions(&self) -> Result<(), CommitError> {
        let deleted: Vec<ZoneId> = self.snapshot().deleted_zones().collect();
        for id in deleted {
            self.sweep_zone(id).await?;
        }
        Ok(())
    }

    /// Removes a deleted zone, its records, load balancers and whatever else it has, step by step. Nobody adds any:
    /// whoever does expects the zone as it was.
    async fn sweep_zone(&self, id: ZoneId) -> Result<(), CommitError> {
        let sweep = |snapshot: &Snapshot, transaction: &mut Transaction| {
            let Some(zone) = snapshot.zone_entry(id).filter(|zone| zone.deleted_at.is_some()) else {
                return Ok::<bool, CommitError>(false);
            };
            let sets = snapshot.record_sets(id).map(|set| (RecordSet::key_of(id, &set.host), set.revision));
            let names = snapshot.passthrough_within(zone).map(|name| (name.key(), name.revision));
            let balancers = snapshot.balancer_entries(id).map(|balancer| (balancer.key(), balancer.revision));
            let items = snapshot.item_entries(id).map(|item| (item.key(), item.revision));
            let keys = snapshot.zone_key(id).map(|key| (key.key(), key.revision));
            for (key, revision) in sets.chain(names).chain(balancers).chain(items).chain(keys).take(SWEPT) {
                transaction.expect_at(&key, revision).delete(&key);
            }
            if transaction.writes.is_empty() {
                transaction.expect(zone).delete(&zone.key());
            }
            Ok(true)
        };
        while self.change(sweep).await? {}
        Ok(())
    }
}

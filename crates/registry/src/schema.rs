//! The version of what the registry's entries mean, and how those of older versions are brought forward.
//!
//! | version | since then |
//! | --- | --- |
//! | 1 (no entry says so) | names that lead to tunnels are routes |
//! | 2 | they are DNS records |
//!
//! Several nodes may open one registry at once. Each step of a migration is a guarded transaction, so one of them makes it,
//! and the others go on from what it left; the version is written last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::RecordError;
use crate::resource::{Key, Resource, Versioned};
use crate::route::write_route;
use crate::{Account, AccountId, CommitError, Hostname, OpenError, Registry, Snapshot, Transaction, ZoneId};

/// What this version of the program writes, and the newest that it understands.
pub(crate) const SCHEMA: u64 = 2;
/// What there was before the version was written down.
pub(crate) const FIRST: u64 = 1;
/// Routes in one transaction; each is two operations, and etcd takes 128.
const STEP: usize = 50;
/// A step that others were faster with so often in a row, with no other work in between, will not succeed.
const LOST_STEPS: usize = 1000;

/// The version, in an entry of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schema {
    pub(crate) version: u64,
}

impl Resource for Schema {
    const KIND: &'static str = "schema";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &"version")
    }
}

/// A name that leads to a tunnel, as the first version had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstRoute {
    pub(crate) hostname: Hostname,
    pub(crate) tunnel: Uuid,
    pub(crate) zone: ZoneId,
    pub(crate) created_at: Timestamp,
}

impl Resource for FirstRoute {
    const KIND: &'static str = "routes";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.hostname)
    }
}

impl Registry {
    /// Founds a registry that is new, and brings one of an older version forward.
    pub(crate) async fn found_or_migrate(&self, now: Timestamp) -> Result<(), OpenError> {
        let mut lost = 0;
        loop {
            let mut transaction = Transaction::new();
            decide(&self.snapshot(), now, &mut transaction)?;
            if transaction.writes.is_empty() {
                return Ok(());
            }
            match self.commit(transaction).await {
                Ok(_) => lost = 0,
                Err(CommitError::Conflict { revision, .. }) if lost < LOST_STEPS => {
                    lost += 1;
                    self.caught_up(revision).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The next step, if one is left.
fn decide(snapshot: &Snapshot, now: Timestamp, transaction: &mut Transaction) -> Result<(), OpenError> {
    let found = snapshot.schema().map(|schema| schema.version);
    match found {
        Some(found) if found > SCHEMA => return Err(OpenError::Schema { found, known: SCHEMA }),
        Some(SCHEMA) => return Ok(()),
        Some(_) | None => (),
    }
    if snapshot.is_founded() {
        let routes: Vec<_> = snapshot.first_routes().take(STEP).collect();
        for route in &routes {
            bring_forward(snapshot, transaction, route)?;
        }
        if !routes.is_empty() {
            return Ok(());
        }
        tracing::info!(from = found.unwrap_or(FIRST), to = SCHEMA, "the registry is of this version now");
    } else {
        let account = Account { id: AccountId::random(), name: "Snicket".into(), created_at: now };
        transaction.expect_absent(&account.key()).put(&account);
    }
    let schema = Schema { version: SCHEMA };
    match snapshot.schema() {
        Some(old) => transaction.expect(old),
        None => transaction.expect_absent(&schema.key()),
    };
    transaction.put(&schema);
    Ok(())
}

/// Writes the record that a route of the first version stands for, and removes the route.
fn bring_forward(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    route: &Versioned<FirstRoute>,
) -> Result<(), OpenError> {
    transaction.expect(route).delete(&route.key());
    let Some(zone) = snapshot.zone(route.zone) else {
        tracing::warn!(hostname = %route.hostname, "a route without a zone is left behind");
        return Ok(());
    };
    match write_route(snapshot, transaction, route.created_at, zone, &route.hostname, route.tunnel) {
        Ok(()) => Ok(()),
        Err(RecordError::Commit(error)) => Err(error.into()),
        Err(problem) => {
            tracing::warn!(hostname = %route.hostname, %problem, "a route is left behind");
            Ok(())
        }
    }
}

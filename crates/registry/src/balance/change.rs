//! Making, changing and removing monitors.

use jiff::Timestamp;

use super::{BadTerms, BalanceError, Monitor, MonitorTerms, Turn};
use crate::resource::Resource as _;
use crate::{MonitorId, Registry, Snapshot, Transaction};

impl Registry {
    /// Makes a monitor.
    ///
    /// # Errors
    /// It is not valid, or the engine fails.
    pub async fn create_monitor(&self, now: Timestamp, terms: MonitorTerms) -> Result<Monitor, BalanceError> {
        let monitor = Monitor { id: MonitorId::at(now), terms: terms.checked()?, created_at: now, modified_at: now };
        self.change(|snapshot, transaction| {
            take_turn(snapshot, transaction);
            transaction.expect_absent(&monitor.key()).put(&monitor);
            Ok::<(), BalanceError>(())
        })
        .await?;
        Ok(monitor)
    }

    /// Changes a monitor. What is as it is to be already is not written; the change is asked for again when somebody else was
    /// faster.
    ///
    /// # Errors
    /// There is no such monitor, it would not be valid, or the engine fails.
    pub async fn change_monitor(
        &self,
        now: Timestamp,
        id: MonitorId,
        mut change: impl FnMut(&MonitorTerms) -> Result<MonitorTerms, BadTerms>,
    ) -> Result<Monitor, BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.monitor(id).ok_or_else(|| no_monitor(id))?;
            let terms = change(&old.terms)?.checked()?;
            if terms == old.terms {
                return Ok(old.value.clone());
            }
            let new = Monitor { terms, modified_at: now, ..old.value.clone() };
            take_turn(snapshot, transaction);
            transaction.expect(old).put(&new);
            Ok(new)
        })
        .await
    }

    /// Removes a monitor.
    ///
    /// # Errors
    /// There is no such monitor, a pool refers to it, or the engine fails.
    pub async fn delete_monitor(&self, id: MonitorId) -> Result<(), BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.monitor(id).ok_or_else(|| no_monitor(id))?;
            let referrers: Vec<_> = snapshot.referrers_of_monitor(id).collect();
            if !referrers.is_empty() {
                return Err(BalanceError::Referenced(referrers));
            }
            take_turn(snapshot, transaction);
            transaction.expect(old).delete(&old.key());
            Ok(())
        })
        .await
    }
}

fn no_monitor(id: MonitorId) -> BalanceError {
    BalanceError::NotFound(format!("monitor {id}"))
}

/// Only if nobody has changed anything of load balancing since.
pub(crate) fn take_turn(snapshot: &Snapshot, transaction: &mut Transaction) {
    let turn = Turn {};
    match snapshot.balance_turn() {
        Some(seen) => transaction.expect(seen),
        None => transaction.expect_absent(&turn.key()),
    };
    transaction.put(&turn);
}

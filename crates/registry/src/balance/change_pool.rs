//! Making, changing and removing pools.

use jiff::Timestamp;

use super::change::take_turn;
use super::pool::check_email;
use super::{BadTerms, BalanceError, Pool, PoolTerms};
use crate::resource::Resource as _;
use crate::{PoolId, Registry, Snapshot};

/// Pools in one transaction; etcd takes 128 operations in one.
const AT_ONCE: usize = 100;

impl Registry {
    /// Makes a pool.
    ///
    /// # Errors
    /// It is not valid, its name is taken, there is no such monitor, or the engine fails.
    pub async fn create_pool(&self, now: Timestamp, terms: PoolTerms) -> Result<Pool, BalanceError> {
        let mut terms = terms.checked()?;
        terms.note_disabled(None, now);
        let disabled_at = (!terms.enabled).then_some(now);
        let pool = Pool { id: PoolId::at(now), terms, created_at: now, modified_at: now, disabled_at };
        self.change(|snapshot, transaction| {
            check(snapshot, None, &pool.terms)?;
            take_turn(snapshot, transaction);
            transaction.expect_absent(&pool.key()).put(&pool);
            Ok::<(), BalanceError>(())
        })
        .await?;
        Ok(pool)
    }

    /// Changes a pool. What is as it is to be already is not written; the change is asked for again when somebody else was
    /// faster.
    ///
    /// # Errors
    /// As [`Registry::create_pool`], or there is no such pool.
    pub async fn change_pool(
        &self,
        now: Timestamp,
        id: PoolId,
        mut change: impl FnMut(&PoolTerms) -> Result<PoolTerms, BadTerms>,
    ) -> Result<Pool, BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.pool(id).ok_or_else(|| no_pool(id))?;
            let mut terms = change(&old.terms)?.checked()?;
            terms.note_disabled(Some(&old.terms), now);
            if terms == old.terms {
                return Ok(old.value.clone());
            }
            check(snapshot, Some(id), &terms)?;
            let disabled_at = if terms.enabled { None } else { old.disabled_at.or(Some(now)) };
            let new = Pool { terms, modified_at: now, disabled_at, ..old.value.clone() };
            take_turn(snapshot, transaction);
            transaction.expect(old).put(&new);
            Ok(new)
        })
        .await
    }

    /// Tells others of all pools from now on.
    ///
    /// # Errors
    /// These are no addresses, or the engine fails; some pools may have them then.
    pub async fn notify_of_pools(&self, now: Timestamp, email: &str) -> Result<(), BalanceError> {
        check_email(email)?;
        let step = |snapshot: &Snapshot, transaction: &mut crate::Transaction| {
            let others = snapshot.pools().filter(|pool| *pool.terms.notification_email != *email);
            for old in others.take(AT_ONCE) {
                let terms = PoolTerms { notification_email: email.into(), ..old.terms.clone() };
                transaction.expect(old).put(&Pool { terms, modified_at: now, ..old.value.clone() });
            }
            Ok::<bool, BalanceError>(!transaction.writes.is_empty())
        };
        while self.change(step).await? {}
        Ok(())
    }

    /// Removes a pool.
    ///
    /// # Errors
    /// There is no such pool, a load balancer refers to it, or the engine fails.
    pub async fn delete_pool(&self, id: PoolId) -> Result<(), BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.pool(id).ok_or_else(|| no_pool(id))?;
            let referrers: Vec<_> = snapshot.referrers_of_pool(id).collect();
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

/// Whether a pool will do among all else that there is.
fn check(snapshot: &Snapshot, id: Option<PoolId>, terms: &PoolTerms) -> Result<(), BalanceError> {
    if snapshot.pool_named(&terms.name).is_some_and(|other| Some(other.id) != id) {
        return Err(BalanceError::NameTaken(format!("a pool named {}", terms.name)));
    }
    if let Some(monitor) = terms.monitor.filter(|monitor| snapshot.monitor(*monitor).is_none()) {
        return Err(BadTerms::of("monitor", format_args!("there is no monitor {monitor}")).into());
    }
    let mut leading = id.into_iter().flat_map(|id| snapshot.load_balancers_with(id));
    if let Some(other) = leading.find(|balancer| terms.latitude.is_none() && balancer.terms.needs_places()) {
        let name = &other.terms.name;
        return Err(BadTerms::of("latitude", format_args!("the load balancer {name} leads to the nearest pool")).into());
    }
    Ok(())
}

fn no_pool(id: PoolId) -> BalanceError {
    BalanceError::NotFound(format!("pool {id}"))
}

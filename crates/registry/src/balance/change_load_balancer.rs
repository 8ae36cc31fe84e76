//! Making, changing and removing load balancers.

use jiff::Timestamp;

use super::change::take_turn;
use super::{BadTerms, BalanceError, LoadBalancer, LoadBalancerTerms};
use crate::resource::Resource as _;
use crate::{LoadBalancerId, Registry, Snapshot, ZoneId};

impl Registry {
    /// Makes a load balancer for a name of this zone.
    ///
    /// # Errors
    /// There is no such zone, the name is outside of it or another load balancer's, it is not valid, or the engine fails.
    pub async fn create_load_balancer(
        &self,
        now: Timestamp,
        zone: ZoneId,
        terms: LoadBalancerTerms,
    ) -> Result<LoadBalancer, BalanceError> {
        let terms = terms.checked()?;
        let balancer = LoadBalancer { id: LoadBalancerId::at(now), zone, terms, created_at: now, modified_at: now };
        self.in_zone(zone, |snapshot, transaction| {
            let zone = snapshot.zone(zone).ok_or_else(|| BalanceError::NotFound(format!("zone {zone}")))?;
            check(snapshot, &balancer)?;
            take_turn(snapshot, transaction);
            transaction.expect(zone).expect_absent(&balancer.key()).put(&balancer);
            Ok::<(), BalanceError>(())
        })
        .await?;
        Ok(balancer)
    }

    /// Changes a load balancer. What is as it is to be already is not written; the change is asked for again when somebody else
    /// was faster.
    ///
    /// # Errors
    /// As [`Registry::create_load_balancer`], or there is no such load balancer.
    pub async fn change_load_balancer(
        &self,
        now: Timestamp,
        id: LoadBalancerId,
        mut change: impl FnMut(&LoadBalancerTerms) -> Result<LoadBalancerTerms, BadTerms>,
    ) -> Result<LoadBalancer, BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.load_balancer(id).ok_or_else(|| no_load_balancer(id))?;
            let terms = change(&old.terms)?.checked()?;
            if terms == old.terms {
                return Ok(old.value.clone());
            }
            let new = LoadBalancer { terms, modified_at: now, ..old.value.clone() };
            check(snapshot, &new)?;
            take_turn(snapshot, transaction);
            transaction.expect(old).put(&new);
            Ok(new)
        })
        .await
    }

    /// Removes a load balancer.
    ///
    /// # Errors
    /// There is no such load balancer, or the engine fails.
    pub async fn delete_load_balancer(&self, id: LoadBalancerId) -> Result<(), BalanceError> {
        self.change(|snapshot, transaction| {
            let old = snapshot.load_balancer(id).ok_or_else(|| no_load_balancer(id))?;
            take_turn(snapshot, transaction);
            transaction.expect(old).delete(&old.key());
            Ok(())
        })
        .await
    }
}

/// Whether a load balancer will do among all else that there is.
fn check(snapshot: &Snapshot, new: &LoadBalancer) -> Result<(), BalanceError> {
    let name = &new.terms.name;
    let zone = snapshot.zone(new.zone).ok_or_else(|| no_load_balancer(new.id))?;
    if !name.is_within(&zone.name) {
        return Err(BadTerms::of("name", format_args!("{name} does not lie in the zone {}", zone.name)).into());
    }
    if snapshot.load_balancer_named(new.zone, name).is_some_and(|other| other.id != new.id) {
        return Err(BalanceError::NameTaken(format!("a load balancer for {name}")));
    }
    for id in new.terms.pools() {
        let Some(pool) = snapshot.pool(id) else {
            return Err(BadTerms::new(format_args!("default_pools, fallback_pool, …: there is no pool {id}")).into());
        };
        if new.terms.needs_places() && pool.terms.latitude.is_none() {
            let problem = format_args!("proximity: the pool {} does not say where it is", pool.terms.name);
            return Err(BadTerms::of("steering_policy", problem).into());
        }
    }
    Ok(())
}

fn no_load_balancer(id: LoadBalancerId) -> BalanceError {
    BalanceError::NotFound(format!("load balancer {id}"))
}

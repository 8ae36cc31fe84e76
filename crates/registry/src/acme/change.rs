use std::sync::Arc;

use jiff::Timestamp;

use super::course::{self, AcmeFailure, AcmeNotNow, AcmeUrgency};
use super::{AcmeAccount, AcmeAnswer, AcmeCertificate, AcmeOrder};
use crate::resource::{Key, Resource, Versioned};
use crate::{CommitError, Hostname, NodeId, PrivateText, Registry, Snapshot, Transaction};

/// Why nothing of ACME was written.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// No order begins.
    #[error(transparent)]
    NotNow(#[from] AcmeNotNow),
    /// The order took longer than its node had promised, and another one may be at it.
    #[error("the order took too long, and is another node's now")]
    Lost,
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The right to order a name's certificate, for some minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeHold {
    name: Hostname,
    until: Timestamp,
    unseen: u32,
}

impl AcmeHold {
    /// The name.
    pub fn name(&self) -> &Hostname {
        &self.name
    }

    /// The right ends then.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Attempts before in which the authority looked, and did not find the answer.
    pub fn unseen(&self) -> u32 {
        self.unseen
    }
}

impl Registry {
    /// Begins an order of this node, and keeps the others from it for some minutes. Whether the name deserves one is the
    /// caller's to know.
    ///
    /// # Errors
    /// It is not the time for it, this node could not keep the certificate's key, or the engine fails.
    pub async fn begin_acme_order(
        &self,
        now: Timestamp,
        name: &Hostname,
        urgency: AcmeUrgency,
    ) -> Result<AcmeHold, AcmeError> {
        let node = self.node();
        // The order itself is no secret, but what comes of it is.
        self.check_keys().map_err(CommitError::from)?;
        self.change(|snapshot, transaction| {
            let old = snapshot.acme_order(name.as_str());
            let known = (
                snapshot.acme_certificate(name.as_str()).map(|certificate| &certificate.value),
                old.map(|order| &order.value),
            );
            let spent = snapshot.acme_budget();
            let bounds = (spent.map(|budget| &budget.value), snapshot.acme_orders_under_way(now));
            let (order, budget) = course::begin(name, known, bounds, (node, urgency), now)?;
            expect(transaction, old, &order.key());
            expect(transaction, spent, &budget.key());
            transaction.put(&order).put(&budget);
            let until = order.held.as_ref().map_or(now, |held| held.until);
            Ok(AcmeHold { name: name.clone(), until, unseen: order.unseen })
        })
        .await
    }

    /// From now on every node answers the authority so.
    ///
    /// # Errors
    /// The hold is over, or the engine fails.
    pub async fn answer_acme_order(&self, hold: &AcmeHold, answer: AcmeAnswer) -> Result<(), AcmeError> {
        self.change(|snapshot, transaction| {
            let order = self.held(snapshot, hold)?;
            transaction.expect(order).put(&order.with_answer(answer.clone()));
            Ok(())
        })
        .await
    }

    /// Ends an order with a certificate, which takes the place of one that the name had.
    ///
    /// # Errors
    /// The hold is over, or the engine fails.
    pub async fn finish_acme_order(&self, hold: &AcmeHold, certificate: AcmeCertificate) -> Result<(), AcmeError> {
        self.change(|snapshot, transaction| {
            let order = self.held(snapshot, hold)?;
            transaction.expect(order).delete(&order.key()).put(&certificate);
            Ok(())
        })
        .await
    }

    /// Ends an order without one. A certificate that the name had stays.
    ///
    /// # Errors
    /// The hold is over, or the engine fails.
    pub async fn fail_acme_order(
        &self,
        now: Timestamp,
        hold: &AcmeHold,
        failure: AcmeFailure,
        why: &str,
    ) -> Result<(), AcmeError> {
        self.change(|snapshot, transaction| {
            let order = self.held(snapshot, hold)?;
            let certificate = snapshot.acme_certificate(hold.name.as_str()).map(|certificate| &certificate.value);
            transaction.expect(order).put(&order.failed(certificate, (failure, why), now));
            Ok(())
        })
        .await
    }

    /// Ends an order of this node that is not carried through, as if it had not begun.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn release_acme_order(&self, name: &Hostname) -> Result<(), AcmeError> {
        self.free_order(name, |_, node| node == self.node()).await
    }

    /// Ends the order of a node that does not run any more, so that nobody has to wait until the hold is over. Does nothing
    /// unless this node hears of all that run.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn free_acme_order(&self, name: &Hostname) -> Result<(), AcmeError> {
        self.free_order(name, |snapshot, node| self.sees_all_nodes() && snapshot.node(node).is_none()).await
    }

    async fn free_order(&self, name: &Hostname, may_end: impl Fn(&Snapshot, NodeId) -> bool) -> Result<(), AcmeError> {
        self.change(|snapshot, transaction| {
            let order = snapshot.acme_order(name.as_str());
            let held_by = |order: &Versioned<AcmeOrder>| order.held.as_ref().map(|held| held.node);
            if let Some(order) = order.filter(|order| held_by(order).is_some_and(|node| may_end(snapshot, node))) {
                release(transaction, order);
            }
            Ok(())
        })
        .await
    }

    /// The account of this address at this authority: the one that is there, or else this one.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn found_acme_account(
        &self,
        now: Timestamp,
        (directory, email): (&str, &str),
        credentials: PrivateText,
    ) -> Result<PrivateText, AcmeError> {
        self.change(|snapshot, transaction| {
            if let Some(present) = snapshot.acme_account(directory, email) {
                return Ok(present.credentials.clone());
            }
            let credentials = credentials.clone();
            let account =
                AcmeAccount { directory: directory.into(), email: email.into(), credentials, created_at: now };
            transaction.expect_absent(&account.key()).put(&account);
            Ok(account.credentials)
        })
        .await
    }

    /// Forgets an account that the authority does not know any more.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn forget_acme_account(
        &self,
        (directory, email): (&str, &str),
        credentials: &PrivateText,
    ) -> Result<(), AcmeError> {
        self.change(|snapshot, transaction| {
            // Another node may have made a new one already.
            if let Some(old) = snapshot.acme_account(directory, email).filter(|old| old.credentials == *credentials) {
                transaction.expect(old).delete(&old.key());
            }
            Ok(())
        })
        .await
    }

    /// Forgets a name that needs no certificate any more, unless a node is ordering one.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn forget_acme_name(&self, now: Timestamp, name: &Hostname) -> Result<(), AcmeError> {
        self.change(|snapshot, transaction| {
            let order = snapshot.acme_order(name.as_str());
            let held = order.and_then(|order| order.held.as_ref());
            if held.is_some_and(|held| now < held.until) {
                return Ok(());
            }
            if let Some(order) = order {
                transaction.expect(order).delete(&order.key());
            }
            if let Some(certificate) = snapshot.acme_certificate(name.as_str()) {
                transaction.expect(certificate).delete(&certificate.key());
            }
            Ok(())
        })
        .await
    }

    fn held<'a>(&self, snapshot: &'a Snapshot, hold: &AcmeHold) -> Result<&'a Versioned<AcmeOrder>, AcmeError> {
        let is_ours = |order: &&Versioned<AcmeOrder>| {
            order.held.as_ref().is_some_and(|held| held.node == self.node() && held.until == hold.until)
        };
        let order = snapshot.acme_order(hold.name.as_str()).map(|order| &**order);
        order.filter(is_ours).ok_or(AcmeError::Lost)
    }
}

fn release(transaction: &mut Transaction, order: &Versioned<AcmeOrder>) {
    transaction.expect(order);
    if order.failure.is_some() {
        transaction.put(&AcmeOrder { held: None, answer: None, ..order.value.clone() });
    } else {
        transaction.delete(&order.key());
    }
}

fn expect<R: Resource>(transaction: &mut Transaction, seen: Option<&Arc<Versioned<R>>>, key: &Key) {
    match seen {
        Some(seen) => transaction.expect(seen),
        None => transaction.expect_absent(key),
    };
}

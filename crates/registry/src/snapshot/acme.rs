//! Certificates of public authorities, and their orders.

use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use jiff::Timestamp;

use super::{decode, parse, set_ordered};
use crate::acme::{AcmeAccount, AcmeBudget, AcmeCertificate, AcmeOrder};
use crate::engine::Revision;
use crate::resource::{Resource as _, Versioned};
use crate::{Hostname, Snapshot};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Acme {
    /// By what stands in the key.
    accounts: HashMap<Box<str>, Arc<Versioned<AcmeAccount>>>,
    certificates: OrdMap<Hostname, Arc<Versioned<AcmeCertificate>>>,
    orders: OrdMap<Hostname, Arc<Versioned<AcmeOrder>>>,
    budget: Option<Arc<Versioned<AcmeBudget>>>,
}

impl Snapshot {
    /// Whether the edge itself ends the TLS of visitors for exactly this name (lower case), because a record says that it
    /// leads to a tunnel that there is. What only a wildcard covers does not count: names below it are whatever strangers
    /// think of.
    pub fn ends_tls_of(&self, name: &str) -> bool {
        let leads = self.exact_route(name).is_some_and(|route| self.live_tunnel(route.tunnel).is_some());
        leads && self.passthrough(name).is_none()
    }

    /// The certificate of a public authority for this name (lower case), valid or not.
    pub fn acme_certificate(&self, name: &str) -> Option<&Arc<Versioned<AcmeCertificate>>> {
        self.acme.certificates.get(name)
    }

    /// All of them, by name.
    pub fn acme_certificates(&self) -> impl Iterator<Item = &Arc<Versioned<AcmeCertificate>>> {
        self.acme.certificates.values()
    }

    /// A name's order that is under way or has failed.
    pub fn acme_order(&self, name: &str) -> Option<&Arc<Versioned<AcmeOrder>>> {
        self.acme.orders.get(name)
    }

    /// All of them, by name.
    pub fn acme_orders(&self) -> impl Iterator<Item = &Arc<Versioned<AcmeOrder>>> {
        self.acme.orders.values()
    }

    /// The account of this address at an authority, by the URL of its directory.
    pub fn acme_account(&self, directory: &str, email: &str) -> Option<&Arc<Versioned<AcmeAccount>>> {
        let key = AcmeAccount::key_of(directory, email);
        let (_, id) = key.as_str().split_once('/')?;
        self.acme.accounts.get(id)
    }

    pub(crate) fn acme_budget(&self) -> Option<&Arc<Versioned<AcmeBudget>>> {
        self.acme.budget.as_ref()
    }

    pub(crate) fn acme_orders_under_way(&self, now: Timestamp) -> usize {
        self.acme_orders().filter(|order| order.held.as_ref().is_some_and(|held| now < held.until)).count()
    }
}

impl Acme {
    /// Takes in an entry, and answers whether it is one of these.
    pub(super) fn write(
        &mut self,
        kind: &str,
        id: &str,
        value: Option<&[u8]>,
        revision: Revision,
    ) -> Result<bool, String> {
        match kind {
            AcmeAccount::KIND => super::set(&mut self.accounts, id.into(), decode(value, revision)?),
            AcmeCertificate::KIND => set_ordered(&mut self.certificates, parse(id)?, decode(value, revision)?),
            AcmeOrder::KIND => set_ordered(&mut self.orders, parse(id)?, decode(value, revision)?),
            AcmeBudget::KIND => self.budget = decode(value, revision)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

//! The configuration in force, and how another takes its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use wire::Extensions;

use super::pushes::{Entered, Outcome, Pushes};
use crate::access::{Guards, Issuers};
use crate::event::{ConfigurationSource, Event};
use crate::ingress::Document;
use crate::metrics::Metrics;
use crate::origin::{EdgeAuthority, Origins, PrepareError};
use crate::proxy::Proxies;

/// What requests are served by, swapped as a whole.
pub(crate) struct Configuration {
    active: ArcSwap<Active>,
    /// Held while a configuration is prepared and swapped in, so that versions stay in order.
    applying: Mutex<()>,
    pushes: Mutex<Pushes>,
    /// Changes with each local configuration, which is then reported to the edge.
    local: watch::Sender<Bytes>,
    flags: BTreeMap<String, String>,
    /// On the way to origins.
    proxies: Proxies,
    /// Whom origins may have their certificates from, beside those whom everybody trusts.
    edge: EdgeAuthority,
    issuers: Issuers,
    events: broadcast::Sender<Event>,
    metrics: Arc<Metrics>,
}

/// The configuration in force. Requests keep the one that they began with.
pub(crate) struct Active {
    /// −1: the local one (section 11.2).
    pub(crate) version: i32,
    pub(crate) document: Document,
    pub(super) origins: Origins,
    pub(super) guards: Guards,
}

impl Active {
    fn prepare(
        version: i32,
        document: Document,
        proxies: &Proxies,
        edge: &EdgeAuthority,
        issuers: &Issuers,
    ) -> Result<Self, PrepareError> {
        let origins = Origins::prepare(&document.rules, proxies, edge)?;
        let guards = Guards::prepare(&document.rules, issuers);
        Ok(Self { version, document, origins, guards })
    }
}

impl Configuration {
    /// Begins with a local configuration. Blocks: it reads files (`caPool`, the system's roots). Needs a runtime, for
    /// the keys of `access`.
    pub(crate) fn new(
        document: Document,
        flags: BTreeMap<String, String>,
        proxies: Proxies,
        events: broadcast::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PrepareError> {
        let report = document.report(&flags);
        let issuers = Issuers::new(proxies.clone());
        let edge = EdgeAuthority::default();
        let active = ArcSwap::from_pointee(Active::prepare(-1, document, &proxies, &edge, &issuers)?);
        let (local, _) = watch::channel(report);
        Ok(Self {
            active,
            applying: Mutex::default(),
            pushes: Mutex::default(),
            local,
            flags,
            proxies,
            edge,
            issuers,
            events,
            metrics,
        })
    }

    /// The configuration in force.
    pub(crate) fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// An edge has named its authorities for origins.
    pub(crate) fn learn_origin_ca(self: &Arc<Self>, pem: &str) {
        match self.edge.learn(pem) {
            Ok(false) => (),
            Ok(true) => {
                let this = Arc::clone(self);
                tokio::task::spawn_blocking(move || this.forget_origins());
            }
            Err(problem) => tracing::warn!(
                problem,
                "the edge's authority for origins cannot be used; its certificates are not trusted"
            ),
        }
    }

    /// Prepares the configuration in force anew: connections that wait, and TLS sessions to resume, are of origins whose
    /// certificates may be trusted no more. Blocks, as [`Configuration::new`] does.
    fn forget_origins(&self) {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let active = self.active();
        match self.prepare(active.version, active.document.clone()) {
            Ok(again) => self.active.store(Arc::new(again)),
            Err(problem) => tracing::warn!(
                problem,
                "the origins cannot be prepared anew; those that were verified before may stay trusted until the agent is \
                 started anew"
            ),
        }
    }

    /// The report of the local configuration (section 11.3), now and after each change.
    pub(crate) fn local_report(&self) -> watch::Receiver<Bytes> {
        self.local.subscribe()
    }

    /// Puts a local configuration in force, unless the edge manages it. Blocks, as [`Configuration::new`] does.
    pub(crate) fn apply_local(&self, document: Document) -> Result<(), String> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active().version >= 0 {
            return Err("the edge manages this tunnel's configuration; the local rules are not used".to_owned());
        }
        let report = document.report(&self.flags);
        let active = self.prepare(-1, document)?;
        self.put(active, ConfigurationSource::File);
        self.local.send_replace(report);
        Ok(())
    }

    /// Puts a pushed configuration in force by the version rules of section 11.2. Answers the version now in force.
    ///
    /// Many may be pushed at once, over several connections or by an edge that means ill: see [`Pushes`].
    pub(super) async fn push(self: &Arc<Self>, version: i32, config: Bytes) -> Result<i32, (i32, String)> {
        if version == Extensions::ORIGIN_CA_VERSION {
            let pem: String = serde_json::from_slice(&config).map_err(|error| (version, error.to_string()))?;
            self.learn_origin_ca(&pem);
            return Ok(self.active().version);
        }
        let superseded = |by| {
            let reason = format!("version {version} is not applied, since version {by} came meanwhile");
            Err((self.active().version, reason))
        };
        let entered = self.pushes().enter(version, config);
        let mut outcome = match entered {
            Entered::Superseded(by) => return superseded(by),
            Entered::Waits(outcome) => outcome,
            Entered::Begins(config, outcome) => {
                // On its own, since the connection that brought it may be lost before the others had their turns.
                tokio::spawn(Arc::clone(self).apply_all(version, config));
                outcome
            }
        };
        let outcome = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match outcome {
            Ok(Some(Outcome::Applied(applied))) => applied,
            Ok(Some(Outcome::Superseded(by))) => superseded(by),
            Ok(None) | Err(_) => Err((self.active().version, "the agent is stopping".to_owned())),
        }
    }

    /// Applies this configuration and those that came meanwhile.
    async fn apply_all(self: Arc<Self>, version: i32, config: Bytes) {
        let mut next = Some((version, config));
        while let Some((version, config)) = next {
            let this = Arc::clone(&self);
            // Reading files and compiling rules take their time, which the requests of this thread need not wait for.
            let applied = tokio::task::spawn_blocking(move || this.apply_pushed(version, &config)).await;
            let failed = |_| Err((self.active().version, "the configuration failed unexpectedly".to_owned()));
            next = self.pushes().ended(applied.unwrap_or_else(failed));
        }
    }

    fn pushes(&self) -> MutexGuard<'_, Pushes> {
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks, as [`Configuration::new`] does.
    fn apply_pushed(&self, version: i32, config: &[u8]) -> Result<i32, (i32, String)> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.active().version;
        if version <= current {
            return Ok(current);
        }
        let prepared = Document::from_json(config)
            .map_err(|error| error.to_string())
            .and_then(|document| self.prepare(version, document));
        match prepared {
            Ok(active) => {
                self.put(active, ConfigurationSource::Edge { version });
                Ok(version)
            }
            Err(reason) => {
                let source = ConfigurationSource::Edge { version };
                self.tell(Event::ConfigurationRefused { source, reason: reason.clone() });
                Err((current, reason))
            }
        }
    }

    /// A configuration was refused before it came here.
    pub(crate) fn refused(&self, source: ConfigurationSource, reason: String) {
        self.tell(Event::ConfigurationRefused { source, reason });
    }

    fn prepare(&self, version: i32, document: Document) -> Result<Active, String> {
        Active::prepare(version, document, &self.proxies, &self.edge, &self.issuers).map_err(|error| error.to_string())
    }

    fn put(&self, active: Active, source: ConfigurationSource) {
        let rules = active.document.rules.iter().len();
        self.metrics.config_version.set(active.version.into());
        self.active.store(Arc::new(active));
        self.tell(Event::ConfigurationApplied { source, rules });
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

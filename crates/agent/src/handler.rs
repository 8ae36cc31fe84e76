//! What is done with a request that arrives: the rules in force choose an origin, and what happens is counted and told.

mod observed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use tokio::sync::{broadcast, watch};
use wire::{Body, Handler, Interim, Kind, OriginError};

use crate::event::{ConfigurationSource, Event};
use crate::ingress::Document;
use crate::metrics::Metrics;
use crate::origin::{Origins, PrepareError, host_of};
use observed::Record;

/// Serves all connections of one agent.
pub(crate) struct Requests {
    active: ArcSwap<Active>,
    /// Held while a configuration is prepared and swapped in, so that versions stay in order.
    applying: Mutex<()>,
    /// Changes with each local configuration, which is then reported to the edge.
    local: watch::Sender<Bytes>,
    flags: BTreeMap<String, String>,
    tags: Vec<(HeaderName, HeaderValue)>,
    events: broadcast::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The configuration in force. Requests keep the one that they began with.
pub(crate) struct Active {
    /// −1: the local one (section 11.2).
    pub(crate) version: i32,
    pub(crate) document: Document,
    origins: Origins,
}

impl Active {
    fn prepare(version: i32, document: Document) -> Result<Self, PrepareError> {
        let origins = Origins::prepare(&document.rules)?;
        Ok(Self { version, document, origins })
    }
}

impl Requests {
    pub(crate) fn new(
        document: Document,
        flags: BTreeMap<String, String>,
        tags: Vec<(HeaderName, HeaderValue)>,
        events: broadcast::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PrepareError> {
        let report = document.report(&flags);
        let active = ArcSwap::from_pointee(Active::prepare(-1, document)?);
        let (local, _) = watch::channel(report);
        Ok(Self { active, applying: Mutex::new(()), local, flags, tags, events, metrics })
    }

    pub(crate) fn active(&self) -> arc_swap::Guard<Arc<Active>> {
        self.active.load()
    }

    /// The report of the local configuration (section 11.3), now and after each change.
    pub(crate) fn local_report(&self) -> watch::Receiver<Bytes> {
        self.local.subscribe()
    }

    /// Puts a local configuration in force, unless the edge manages it.
    ///
    /// Reads files (`caPool`, the system's roots).
    pub(crate) fn apply_local(&self, document: Document) -> Result<(), String> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active().version >= 0 {
            return Err("the edge manages this tunnel's configuration; the local rules are not used".to_owned());
        }
        let report = document.report(&self.flags);
        let active = Active::prepare(-1, document).map_err(|error| error.to_string())?;
        self.put(active, ConfigurationSource::File);
        self.local.send_replace(report);
        Ok(())
    }

    /// Puts a pushed configuration in force by the version rules of section 11.2. Answers the version now in force.
    fn apply_pushed(&self, version: i32, config: &[u8]) -> Result<i32, (i32, String)> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.active().version;
        if version <= current {
            return Ok(current);
        }
        let prepared = Document::from_json(config)
            .map_err(|error| error.to_string())
            .and_then(|document| Active::prepare(version, document).map_err(|error| error.to_string()));
        match prepared {
            Ok(active) => {
                self.put(active, ConfigurationSource::Edge { version });
                Ok(version)
            }
            Err(reason) => {
                self.tell(Event::ConfigurationRefused {
                    source: ConfigurationSource::Edge { version },
                    reason: reason.clone(),
                });
                Err((current, reason))
            }
        }
    }

    fn put(&self, active: Active, source: ConfigurationSource) {
        let rules = active.document.rules.iter().len();
        self.metrics.config_version.set(active.version.into());
        self.active.store(Arc::new(active));
        self.tell(Event::ConfigurationApplied { source, rules });
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

impl Handler for Requests {
    async fn exchange(
        &self,
        kind: Kind,
        mut request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, OriginError> {
        let active = self.active.load_full();
        let host = host_of(request.uri(), request.headers());
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (rule, _) = active.document.rules.find(host, request.uri().path());
        let mut record = Record::start(kind, &request, host, rule, &self.events, &self.metrics);
        for (name, value) in &self.tags {
            request.headers_mut().insert(name, value.clone());
        }
        match active.origins.get(rule).exchange(kind, request, interim).await {
            Ok(response) => Ok(record.observe(response)),
            Err(error) => {
                record.failed(&error);
                Err(error)
            }
        }
    }

    async fn update_configuration(&self, version: i32, config: Bytes) -> Result<i32, (i32, String)> {
        // Reads files (roots, `caPool`): some milliseconds, and only when the configuration changes.
        self.apply_pushed(version, &config)
    }
}

//! What is done with a request that arrives: the rules in force choose an origin, and what happens is counted and told.

mod carried;
mod configuration;
mod observed;
mod pushes;
mod refused;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use tokio::sync::broadcast;
use wire::{
    Body, ByteStream, Destination, Handler, Interim, Kind, OriginError, OriginFault, StreamRefusal, StreamRequest,
};

use crate::event::Event;
use crate::inspector::Inspector;
use crate::metrics::{Method, Metrics};
use crate::origin::host_of;
use carried::{Carried, StreamRecord};
pub(crate) use configuration::Configuration;
use observed::Record;
use refused::refused;

/// Serves all connections of one agent.
pub(crate) struct Requests {
    pub(crate) configuration: Arc<Configuration>,
    /// Added to every request.
    pub(crate) tags: Vec<(HeaderName, HeaderValue)>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    /// Sees every request, if there is one.
    pub(crate) inspector: Option<Arc<Inspector>>,
}

impl Requests {
    pub(crate) fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// The answer of the origin that the rules choose.
    pub(crate) async fn answer(
        &self,
        kind: Kind,
        mut request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, OriginError> {
        let active = self.configuration.active();
        let host = host_of(request.uri(), request.headers());
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (rule, _) = active.document.rules.find(host, request.uri().path());
        let mut record = Record::start(kind, &request, host, rule, &self.events, &self.metrics);
        if let Some(guard) = active.guards.get(rule)
            && let Err(refusal) = guard.admit(request.headers()).await
        {
            return refused(request.method(), refusal, record);
        }
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
}

impl Handler for Requests {
    async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, OriginError> {
        match &self.inspector {
            None => self.answer(kind, request, interim).await,
            Some(inspector) => inspector.observe(kind, request, |request| self.answer(kind, request, interim)).await,
        }
    }

    async fn stream(&self, request: StreamRequest) -> Result<ByteStream, StreamRefusal> {
        let Destination::Service(service) = &request.destination else {
            let text = format!(
                "this agent leads to the services of its rules, and not to addresses such as {}",
                request.destination
            );
            return Err(OriginError::new(OriginFault::Unsupported, text).into());
        };
        let active = self.configuration.active();
        let (index, rule) = active.document.rules.find(service, "/");
        let mut record = StreamRecord::start(service, request.flow, index, &self.events, &self.metrics);
        let connected = if rule.options.access.required {
            let text = "the rule demands an identity assertion (access), which a byte stream has no place for";
            Err(OriginError::new(OriginFault::Unsupported, text))
        } else {
            active.origins.get(index).connect().await
        };
        match connected {
            Ok(origin) => Ok(ByteStream::wrap(Carried::new(origin, record))),
            Err(error) => {
                record.failed(&error);
                Err(error.into())
            }
        }
    }

    async fn update_configuration(&self, version: i32, config: Bytes) -> Result<i32, (i32, String)> {
        let applying = async { Ok::<_, Infallible>(self.configuration.push(version, config).await) };
        // One that is refused is an answer, no failure of the call.
        let Ok(applied) = self.metrics.rpc_server.observe(Method::CONFIGURATION, applying).await;
        applied
    }
}

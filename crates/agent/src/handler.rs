//! What is done with a request that arrives: the rules in force choose an origin, and what happens is counted and told.

mod carried;
mod configuration;
mod flows;
mod observed;
mod pushes;
mod refused;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use tokio::sync::broadcast;
use wire::{
    Body, ByteStream, Destination, FlowRequest, FlowService, Handler, Interim, Kind, OriginError, OriginFault,
    StreamRefusal, StreamRequest,
};

use crate::event::Event;
use crate::inspector::Inspector;
use crate::metrics::{Method, Metrics};
use crate::origin::{self, Peer, host_of};
use carried::{Carried, StreamRecord};
use configuration::Active;
pub(crate) use configuration::Configuration;
use flows::FlowRecord;
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
    /// Flows of datagrams, and streams to addresses, that are under way.
    pub(crate) flows: Arc<AtomicU64>,
}

/// Flows of datagrams at once, whatever the configuration says: each holds a descriptor, of which the system gives tens of
/// thousands.
const MAX_FLOWS: u64 = 10_000;

/// Counts a flow until it is dropped.
struct Room(Arc<AtomicU64>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    pub(crate) fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Room for one more flow to this destination, if it may have any at all.
    fn room(&self, active: &Active, destination: &Destination) -> Result<Room, StreamRefusal> {
        let routing = &active.document.warp_routing;
        let mut most = MAX_FLOWS;
        if let Destination::Address(address) = destination {
            if !routing.enabled {
                let text = format!(
                    "this agent leads to the services of its rules, and to addresses such as {address} only with \
                     `warp-routing: enabled: true` in its configuration"
                );
                return Err(OriginError::new(OriginFault::Unsupported, text).into());
            }
            if routing.max_active_flows > 0 {
                most = most.min(routing.max_active_flows);
            }
        }
        let room = Room(Arc::clone(&self.flows));
        if self.flows.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(StreamRefusal::TooMany(format!(
                "{most} flows are under way, which is as many as there may be"
            )));
        }
        Ok(room)
    }

    /// A byte stream to an address of a private network (section 5.5).
    async fn private_stream(
        &self,
        active: &Active,
        address: SocketAddr,
        flow: String,
    ) -> Result<ByteStream, StreamRefusal> {
        let room = self.room(active, &Destination::Address(address))?;
        let mut record = StreamRecord::start(&address.to_string(), flow, None, &self.events, &self.metrics);
        match origin::connect_to(address, &active.document.warp_routing).await {
            Ok(origin) => Ok(ByteStream::wrap(Carried::new(origin, record).with(room))),
            Err(error) => {
                record.failed(&error);
                Err(error.into())
            }
        }
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
        let host = host.unwrap_or_default();
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
        match active.origins.get(rule).exchange(kind, &mut request, interim).await {
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
        let recorded = self.inspector.as_ref().and_then(|inspector| inspector.begin(kind, &request, None));
        match recorded {
            None => self.answer(kind, request, interim).await,
            // Boxed, because few requests are recorded when there are many, and all would have to hold the room for it.
            Some((_, recording)) => {
                Box::pin(recording.through(request, |request| self.answer(kind, request, interim))).await
            }
        }
    }

    async fn stream(&self, request: StreamRequest) -> Result<ByteStream, StreamRefusal> {
        let active = self.configuration.active();
        let service = match &request.destination {
            Destination::Service(service) => service,
            Destination::Address(address) => return self.private_stream(&active, *address, request.flow).await,
        };
        let (index, rule) = active.document.rules.find(service, "/");
        let mut record = StreamRecord::start(service, request.flow, Some(index), &self.events, &self.metrics);
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

    async fn flow(&self, request: FlowRequest) -> Result<FlowService, StreamRefusal> {
        let FlowRequest { destination, flow, idle } = request;
        let active = self.configuration.active();
        let room = self.room(&active, &destination)?;
        let found = match &destination {
            Destination::Service(service) => Some(active.document.rules.find(service, "/")),
            Destination::Address(_) => None,
        };
        let index = found.map(|(index, _)| index);
        let mut record = FlowRecord::start(destination.to_string(), flow, index, &self.events, &self.metrics);
        let opened = match (&destination, found) {
            (Destination::Address(address), _) => Peer::at(*address).await,
            (Destination::Service(_), Some((_, rule))) if rule.options.access.required => {
                let text = "the rule demands an identity assertion (access), which datagrams have no place for";
                Err(OriginError::new(OriginFault::Unsupported, text))
            }
            (Destination::Service(_), found) => {
                let index = found.map(|(index, _)| index).expect("each service has a rule, at least the last one");
                active.origins.get(index).open().await
            }
        };
        match opened {
            Ok(peer) => Ok(Box::new(move |flow| {
                Box::pin(async move {
                    let _room = room;
                    flows::carry(flow, peer, record, idle).await
                })
            })),
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

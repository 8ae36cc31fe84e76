//! Byte streams of visitors: who may come in, over which connection they go, and how they end.

pub(crate) mod proxy_header;
mod visitor;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry::{Passthrough, Port, PortOptions, Registry, Snapshot};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use uuid::Uuid;
use wire::{ByteStream, Destination, ExchangeError, StreamRequest};

use crate::Limits;
use crate::defence::Defence;
use crate::dispatch::{Carrier as _, Pool as _};
use crate::fair::Fairness;
use crate::metrics::{Metrics, StreamEnd};
use crate::tunnels::Tunnels;
pub(crate) use visitor::Visitor;

/// Longer than agents try to connect (30 s), so that visitors wait no longer for what nobody tries any more.
const CONNECT: Duration = Duration::from_secs(35);

/// A longer time without a byte is not told from for ever, and too long a one has no end on the clock.
const LONGEST_IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Carries byte streams to the services of tunnels.
pub(crate) struct Streams {
    pub(crate) registry: Registry,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    /// How many each tunnel has.
    pub(crate) open: Mutex<HashMap<Uuid, usize>>,
    pub(crate) fairness: Fairness,
}

/// Where a byte stream is to go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) tunnel: Uuid,
    /// By which the tunnel's agents find the service, or an address that they reach by themselves.
    pub(crate) service: String,
    pub(crate) options: PortOptions,
}

impl Target {
    /// For agents.
    pub(crate) fn destination(&self) -> Destination {
        match self.service.parse() {
            Ok(address) => Destination::Address(address),
            Err(_) => Destination::Service(self.service.clone()),
        }
    }

    /// Whether this port still leads here, and in the same way.
    pub(crate) fn is_still(&self, port: &Port) -> bool {
        self.tunnel == port.tunnel
            && self.service == port.service
            && self.options.proxy_protocol == port.options.proxy_protocol
    }
}

impl From<&Port> for Target {
    fn from(port: &Port) -> Self {
        Self { tunnel: port.tunnel, service: port.service.clone(), options: port.options.clone() }
    }
}

impl From<&Passthrough> for Target {
    fn from(name: &Passthrough) -> Self {
        Self { tunnel: name.tunnel, service: name.hostname.to_string(), options: name.options.clone() }
    }
}

/// A visitor that may come in; counts until this is dropped.
pub(crate) struct Admitted {
    streams: Arc<Streams>,
    target: Target,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.streams.open().entry(self.target.tunnel) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl Streams {
    /// Lets a visitor in if there is room, and it may come here.
    pub(crate) fn admit(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        target: Target,
        remote: SocketAddr,
    ) -> Result<Admitted, Defence> {
        if !Self::allows(snapshot, target.tunnel, remote) {
            return Err(Defence::NotAllowed);
        }
        let mut open = self.open();
        let count = open.entry(target.tunnel).or_default();
        if *count >= target.options.max_connections {
            return Err(Defence::PortFull);
        }
        *count += 1;
        drop(open);
        Ok(Admitted { streams: Arc::clone(self), target })
    }

    /// Whether the rules of a tunnel let this visitor in.
    pub(crate) fn allows(snapshot: &Snapshot, tunnel: Uuid, remote: SocketAddr) -> bool {
        snapshot.access(tunnel).is_none_or(|access| {
            // Who has to say a PIN or a password cannot do so here.
            access.allows(remote.ip()) && access.pin.is_none() && access.basic.is_empty()
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects over some connection of the tunnel. Nothing of the visitor's is under way yet, so any may be tried.
    async fn connect(&self, tunnel: Uuid, request: &StreamRequest) -> Result<ByteStream, (StreamEnd, String)> {
        let pool = self.tunnels.pool(tunnel);
        let mut tried = Vec::new();
        let mut reason = "no connector of its tunnel is connected".to_owned();
        for _ in 0..self.limits.attempts {
            let picked = match pool.pick(&tried) {
                Some(picked) => Some(picked),
                None => pool.await_one(&tried, self.limits.reconnect_wait).await,
            };
            let Some(carrier) = picked else { break };
            tried.push(carrier.identity());
            match carrier.connect_stream(request).await {
                Ok(stream) => return Ok(stream),
                Err(ExchangeError::Origin(error)) => return Err((StreamEnd::Failed, error.text)),
                Err(error) => reason = error.to_string(),
            }
        }
        Err((StreamEnd::NoConnector, reason))
    }
}

impl Admitted {
    /// Carries the visitor's bytes until both ways have ended, or one of the parties is gone.
    pub(crate) async fn carry(self, visitor: Visitor, remote: SocketAddr) {
        let end = self.run(visitor, remote).await;
        self.streams.metrics.stream(end);
    }

    async fn run(&self, mut visitor: Visitor, remote: SocketAddr) -> StreamEnd {
        let Target { tunnel, service, options } = &self.target;
        let request = StreamRequest { destination: self.target.destination(), flow: remote.to_string() };
        let mut stream = match timeout(CONNECT, self.streams.connect(*tunnel, &request)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((end, reason))) => {
                tracing::info!(%tunnel, service, %reason, "a visitor's connection leads nowhere");
                return end;
            }
            Err(_) => return StreamEnd::Failed,
        };
        self.streams.fairness.prove(remote.ip());
        let mut first = Vec::new();
        if let (Some(version), Ok(here)) = (options.proxy_protocol, visitor.local_address()) {
            first = proxy_header::header(version, remote, here);
        }
        first.extend_from_slice(&visitor.take_read());
        if !first.is_empty() && stream.write_all(&first).await.is_err() {
            return StreamEnd::Cut;
        }
        let activity = visitor.activity();
        let idle = Duration::from_secs(options.idle_seconds).min(LONGEST_IDLE);
        tokio::select! {
            relayed = ByteStream::wrap(visitor).relay(stream) => match relayed {
                Ok(_) => StreamEnd::Ended,
                Err(_) => StreamEnd::Cut,
            },
            () = activity.pause_of(idle), if !idle.is_zero() => StreamEnd::Idle,
        }
    }
}

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use rand::Rng as _;
use tokio::time::timeout;
use uuid::Uuid;
use wire::{Body, ExchangeError, Interim, Kind};

use super::{Live, Tunnels};
use crate::dispatch::{Carrier, Pool, least_loaded};

/// The connections of one tunnel, to choose from.
pub(crate) struct TunnelPool {
    tunnels: Arc<Tunnels>,
    tunnel: Uuid,
}

impl TunnelPool {
    pub(super) fn new(tunnels: Arc<Tunnels>, tunnel: Uuid) -> Self {
        Self { tunnels, tunnel }
    }
}

impl Pool for TunnelPool {
    type Carrier = Arc<Live>;

    fn pick(&self, tried: &[Uuid]) -> Option<Arc<Live>> {
        let live = self.tunnels.live(self.tunnel);
        let pick = |untried: bool| {
            let loads = live.iter().map(|live| {
                let takes = live.connection.is_open() && !(untried && tried.contains(&live.id));
                takes.then(|| live.connection.in_flight())
            });
            least_loaded(loads, |below| rand::rng().random_range(0..below)).map(|index| Arc::clone(&live[index]))
        };
        pick(true).or_else(|| if tried.is_empty() { None } else { pick(false) })
    }

    async fn await_one(&self, time: Duration) -> Option<Arc<Live>> {
        let mut arrivals = self.tunnels.arrivals.subscribe();
        if !self.is_coming_back() {
            return None;
        }
        let found = async {
            loop {
                if let Some(carrier) = self.pick(&[]) {
                    return Some(carrier);
                }
                arrivals.changed().await.ok()?;
            }
        };
        timeout(time, found).await.ok().flatten()
    }
}

impl TunnelPool {
    /// The last connection went, or began to go, a moment ago.
    fn is_coming_back(&self) -> bool {
        let memory = self.tunnels.memory;
        let is_here = |live: &Arc<Live>| live.connection.is_open() || live.leaving_since().elapsed() < memory;
        self.tunnels.live(self.tunnel).iter().any(is_here) || self.tunnels.read().was_connected(self.tunnel, memory)
    }
}

impl Carrier for Arc<Live> {
    fn id(&self) -> Uuid {
        self.id
    }

    async fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, ExchangeError> {
        self.connection.exchange(kind, request, interim).await
    }
}

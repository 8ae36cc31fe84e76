use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use rand::Rng as _;
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use wire::{Body, ExchangeError, Interim, Kind};

use super::{Live, Tunnels};
use crate::dispatch::{Carrier, Identity, Pool, Retry, least_loaded};

/// A connection that has failed a request is known to be closed after this time, if it is; if not, the same request may try it again.
const SETTLES: Duration = Duration::from_millis(250);

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

/// The least loaded of those that fit.
fn least(live: &[Arc<Live>], fits: impl Fn(&Live) -> bool) -> Option<Arc<Live>> {
    let loads = live.iter().map(|live| {
        let takes = live.connection.is_open() && fits(live);
        takes.then(|| live.connection.in_flight())
    });
    least_loaded(loads, |below| rand::rng().random_range(0..below)).map(|index| Arc::clone(&live[index]))
}

impl Pool for TunnelPool {
    type Carrier = Arc<Live>;

    fn pick(&self, tried: &[Identity]) -> Option<Arc<Live>> {
        let live = self.tunnels.live(self.tunnel);
        let pick = |fits: &dyn Fn(&Live) -> bool| least(&live, |live| !live.is_doubted() && fits(live));
        if tried.is_empty() {
            return pick(&|_| true);
        }
        // Where one connection of a connector has failed, the others are likely to: each costs the visitor the time to find out.
        pick(&|live| tried.iter().all(|tried| tried.connector != live.connector))
            .or_else(|| pick(&|live| tried.iter().all(|tried| tried.connection != live.id)))
    }

    fn has_other(&self, tried: &[Identity]) -> bool {
        let is_other = |live: &Arc<Live>| tried.iter().all(|tried| tried.connection != live.id);
        let live = self.tunnels.live(self.tunnel);
        live.iter().any(|live| live.connection.is_open() && is_other(live) && !live.is_doubted())
    }

    fn retried(&self, why: Retry) {
        self.tunnels.retried(why);
    }

    async fn await_one(&self, tried: &[Identity], time: Duration) -> Option<Arc<Live>> {
        let mut arrivals = self.tunnels.arrivals.subscribe();
        if !self.is_coming_back() {
            return None;
        }
        let found = async {
            let mut pause = pin!(sleep(if tried.is_empty() { Duration::ZERO } else { SETTLES }));
            loop {
                let again = if pause.is_elapsed() { self.pick(&[]) } else { None };
                if let Some(carrier) = self.pick(tried).or(again) {
                    return Some(carrier);
                }
                tokio::select! {
                    arrived = arrivals.changed() => arrived.ok()?,
                    () = &mut pause, if !pause.is_elapsed() => (),
                    // Nothing announces that one is doubted no more.
                    () = sleep(SETTLES), if pause.is_elapsed() => (),
                }
            }
        };
        let found = timeout(time, found).await.ok().flatten();
        // Time is up: one that is doubted is better than none.
        found.or_else(|| {
            least(&self.tunnels.live(self.tunnel), |live| tried.iter().all(|tried| tried.connection != live.id))
        })
    }
}

impl TunnelPool {
    /// Whether a connection takes requests of a connector of which no connection is doubted: one that vanished is found out on one connection
    /// after the other, and each costs a visitor the time.
    pub(crate) fn is_trusted(&self) -> bool {
        let live = self.tunnels.live(self.tunnel);
        let open = || live.iter().filter(|live| live.connection.is_open());
        let doubted: Vec<_> = open().filter(|live| live.is_doubted()).map(|live| live.connector).collect();
        open().any(|live| !doubted.contains(&live.connector))
    }

    /// There is a connection, or the last one went, or began to go, a moment ago.
    pub(crate) fn is_coming_back(&self) -> bool {
        let memory = self.tunnels.memory;
        let is_here = |live: &Arc<Live>| live.connection.is_open() || live.leaving_since().elapsed() < memory;
        self.tunnels.live(self.tunnel).iter().any(is_here) || self.tunnels.read().was_connected(self.tunnel, memory)
    }
}

impl Carrier for Arc<Live> {
    fn identity(&self) -> Identity {
        Identity { connection: self.id, connector: self.connector }
    }

    fn signs_of_life(&self) -> u64 {
        self.connection.signs_of_life()
    }

    fn ask_for_life(&self) -> Duration {
        self.connection.ask_for_life()
    }

    fn doubt(&self) {
        tracing::debug!(connection = %self.id, "nothing is heard from the agent");
        self.doubted.store(self.connection.signs_of_life(), Ordering::Relaxed);
    }

    fn is_doubted(&self) -> bool {
        Live::is_doubted(self)
    }

    fn exchange(
        &self,
        kind: Kind,
        request: Request<Body>,
        interim: Interim,
    ) -> impl Future<Output = Result<Response<Body>, ExchangeError>> + Send {
        self.connection.exchange(kind, request, interim)
    }
}

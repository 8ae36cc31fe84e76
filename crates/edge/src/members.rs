//! A load balancer's members as [`dispatch`](crate::dispatch) asks them: one after the other, over the connections of a tunnel or at
//! an address.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Directs, Place, Security};
use balance::{Member, Plan, Standing, Target, UnderWay, Visitor, Walk};
use http::header::SET_COOKIE;
use http::uri::Authority;
use http::{Request, Response, Uri};
use jiff::Timestamp;
use registry::{Snapshot, Zone};
use tokio::time::timeout;
use uuid::Uuid;
use wire::{Body, ExchangeError, Interim, Kind, OriginError, OriginFault};

use crate::dispatch::{Carrier, Identity, Pool, Retry};
use crate::tunnels::{Live, Tunnels};

/// Between two looks at whether a member that has not answered yet is still well.
const LOOK: Duration = Duration::from_secs(1);

/// The ways to members that this node has.
pub(crate) struct Ways<'a> {
    pub(crate) tunnels: &'a Arc<Tunnels>,
    pub(crate) directs: &'a Arc<Directs>,
    pub(crate) snapshot: &'a Snapshot,
    /// How members at addresses are spoken to.
    pub(crate) security: Security,
}

/// The members of one load balancer, for one request.
pub(crate) struct Members<'a> {
    plan: &'a Plan,
    ways: Ways<'a>,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    walk: Walk<'a>,
    at: Option<At<'a>>,
    /// The connection that was handed out last.
    latest: Option<Identity>,
    /// Connections that have failed the request; one that an origin behind it has failed is as good as any.
    lost: Vec<Identity>,
    /// The request may go to another member, and that counts already.
    may_go: bool,
}

/// The member whose turn it is.
struct At<'a> {
    member: &'a Arc<Member>,
    under_way: UnderWay,
    /// Nothing was sent to it yet.
    is_fresh: bool,
}

/// How members at addresses of this zone are spoken to: as its setting `ssl` says.
pub(crate) fn security(zone: Option<&Zone>, is_secure: bool) -> Security {
    match zone.and_then(|zone| zone.setting("ssl")) {
        _ if !is_secure => Security::Plain,
        Some("off" | "flexible") => Security::Plain,
        Some("strict") => Security::Verified,
        _ => Security::Unverified,
    }
}

impl<'a> Members<'a> {
    /// For this visitor.
    pub(crate) fn new(plan: &'a Plan, visitor: &Visitor<'_>, ways: Ways<'a>) -> Self {
        let now = Timestamp::now();
        plan.count_request(now);
        let walk = plan.walk(visitor, now, rand::random());
        Self { plan, ways, state: Mutex::new(State { walk, at: None, latest: None, lost: Vec::new(), may_go: false }) }
    }

    /// Tells the member's answer, and the visitor where to come again. What counts as under way until the answer has ended is among the
    /// answer's extensions.
    pub(crate) fn answered(self, answer: &mut Response<Body>, is_secure: bool) {
        let State { walk, at, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(At { mut under_way, .. }) = at else { return };
        under_way.answered(answer.status(), Timestamp::now());
        if let Some(cookie) = walk.cookie(is_secure) {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        answer.extensions_mut().insert(Arc::new(under_way));
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tunnel can take a request here. One with rules of its own about who may visit it is nobody else's member: the rules
    /// would not be asked.
    fn is_linked(&self, tunnel: Uuid) -> bool {
        self.ways.snapshot.access(tunnel).is_none() && self.ways.tunnels.pool(tunnel).pick(&[]).is_some()
    }

    /// Whether the request may go to another member than before, which counts.
    fn takes_retry(&self, state: &mut State<'a>) -> bool {
        std::mem::take(&mut state.may_go) || self.plan.may_retry(Timestamp::now())
    }

    /// The same, and nothing says that its agent may be gone.
    fn is_trusted(&self, tunnel: Uuid) -> bool {
        self.ways.snapshot.access(tunnel).is_none() && self.ways.tunnels.pool(tunnel).is_trusted()
    }

    /// Goes on to the next member, if there is one.
    fn turn(&self, state: &mut State<'a>) -> bool {
        let mut best = state.walk.clone();
        let trusted = if best.is_bound() { None } else { best.next(|tunnel| self.is_trusted(tunnel)) };
        // A doubt is less than to know that somebody is not well.
        let trusted = trusted.filter(|member| is_well(member));
        let next = match trusted {
            Some(member) => {
                state.walk = best;
                Some(member)
            }
            None => state.walk.next(|tunnel| self.is_linked(tunnel)),
        };
        state.at = next.map(|member| At { member, under_way: member.begin(), is_fresh: true });
        state.at.is_some()
    }

    /// A way to the member whose turn it is, but for those that have failed; `any` is one of a connector, too, of which another connection
    /// has.
    fn way(&self, state: &mut State<'a>, any: bool) -> Option<Way> {
        let at = state.at.as_mut()?;
        let member = Arc::clone(at.member);
        let is_fresh = std::mem::take(&mut at.is_fresh);
        if !is_fresh && is_down(&member) {
            return None;
        }
        let over = match &member.target {
            Target::Tunnel(tunnel) => {
                let live = self.ways.tunnels.pool(*tunnel).pick(&state.lost)?;
                let is_suspect = state.lost.iter().any(|lost| lost.connector == live.identity().connector);
                if is_suspect && !any {
                    return None;
                }
                Over::Tunnel(live)
            }
            Target::Address(..) | Target::Name(..) if !is_fresh => return None,
            Target::Address(address, port) => self.direct(address_text(*address), *port)?,
            Target::Name(name, port) => self.direct(name.to_string(), *port)?,
        };
        let way = Way { member, over, looks: AtomicU64::new(0) };
        state.latest = Some(way.identity());
        Some(way)
    }

    fn direct(&self, host: String, port: u16) -> Option<Over> {
        let text = if port == 0 { host } else { format!("{host}:{port}") };
        let place = Place { security: self.ways.security, authority: Authority::try_from(text).ok()? };
        Some(Over::Direct(Arc::clone(self.ways.directs), place))
    }
}

fn address_text(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn is_well(member: &Member) -> bool {
    matches!(member.vitals().standing(Timestamp::now()), Standing::Well(_))
}

fn is_down(member: &Member) -> bool {
    matches!(member.vitals().standing(Timestamp::now()), Standing::Down)
}

impl Pool for Members<'_> {
    type Carrier = Way;

    fn pick(&self, _: &[Identity]) -> Option<Way> {
        let mut state = self.state();
        loop {
            if let Some(way) = self.way(&mut state, false) {
                return Some(way);
            }
            if state.at.is_some() {
                // Where one connection of a connector has failed, the others are likely to, and each costs the visitor the time to find out.
                let has_next = state.walk.has_next(|tunnel| self.is_linked(tunnel));
                let goes = has_next && self.takes_retry(&mut state);
                if !goes && let Some(way) = self.way(&mut state, true) {
                    return Some(way);
                }
                if has_next && !goes {
                    return None;
                }
            }
            if !self.turn(&mut state) {
                return None;
            }
        }
    }

    /// Who is told that there is another one leaves for it, so what that takes is taken here: of those who wait for a member that has
    /// fallen silent, only as many leave as may go again.
    fn has_other(&self, tried: &[Identity]) -> bool {
        let mut state = self.state();
        let of_tunnel = state.at.as_ref().filter(|at| !is_down(at.member)).and_then(|at| at.member.target.tunnel());
        of_tunnel.is_some_and(|tunnel| self.ways.tunnels.pool(tunnel).has_other(tried))
            || (state.walk.has_next(|tunnel| self.is_linked(tunnel)) && {
                state.may_go = self.takes_retry(&mut state);
                state.may_go
            })
    }

    fn retried(&self, why: Retry) {
        self.ways.tunnels.retried(why);
        let mut state = self.state();
        if why != Retry::Origin {
            let latest = state.latest.take();
            state.lost.extend(latest);
        }
    }

    fn origin_failed(&self, fault: OriginFault) {
        let failure = match fault {
            OriginFault::Refused
            | OriginFault::ConnectTimeout
            | OriginFault::Unreachable
            | OriginFault::TlsHandshake
            | OriginFault::TlsCertificate => balance::Failure::Connect,
            OriginFault::ResponseTimeout => balance::Failure::Late,
            OriginFault::Closed | OriginFault::Nonsense | OriginFault::Unknown => balance::Failure::Reset,
            OriginFault::Unsupported => return,
        };
        if let Some(at) = &mut self.state().at {
            at.under_way.failed(failure, Timestamp::now());
        }
    }

    fn turns(&self) -> bool {
        let mut state = self.state();
        // What nobody can use is not taken from others.
        state.walk.has_next(|tunnel| self.is_linked(tunnel)) && self.takes_retry(&mut state) && self.turn(&mut state)
    }

    async fn await_one(&self, tried: &[Identity], time: Duration) -> Option<Way> {
        let mut arrivals = self.ways.tunnels.arrivals();
        let mut tunnels = self.plan.members().filter_map(|member| member.target.tunnel());
        if !tunnels.any(|tunnel| self.ways.tunnels.pool(tunnel).is_coming_back()) {
            return None;
        }
        let found = async {
            loop {
                {
                    let mut state = self.state();
                    state.walk.again();
                    state.at = None;
                }
                if let Some(way) = self.pick(tried) {
                    return Some(way);
                }
                arrivals.changed().await.ok()?;
            }
        };
        timeout(time, pin!(found)).await.ok().flatten()
    }
}

/// A way to a member.
pub(crate) struct Way {
    member: Arc<Member>,
    over: Over,
    looks: AtomicU64,
}

enum Over {
    Tunnel(Arc<Live>),
    Direct(Arc<Directs>, Place),
}

impl Carrier for Way {
    fn identity(&self) -> Identity {
        match &self.over {
            Over::Tunnel(live) => live.identity(),
            Over::Direct(..) => {
                let id = Uuid::from_u64_pair(0, self.member.id.bits());
                Identity { connection: id, connector: id }
            }
        }
    }

    fn signs_of_life(&self) -> u64 {
        match &self.over {
            Over::Tunnel(live) => live.signs_of_life(),
            // Nobody at an address can be asked whether it is there, but by a question about its health.
            Over::Direct(..) => self.looks.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn ask_for_life(&self) -> Duration {
        match &self.over {
            Over::Tunnel(live) => live.ask_for_life(),
            Over::Direct(..) => LOOK,
        }
    }

    fn doubt(&self) {
        if let Over::Tunnel(live) = &self.over {
            live.doubt();
        }
    }

    /// A member that turns out not to be well gives those up that still wait for it, if somebody else may answer them.
    fn is_doubted(&self) -> bool {
        let is_doubted = match &self.over {
            Over::Tunnel(live) => Carrier::is_doubted(live),
            Over::Direct(..) => false,
        };
        is_doubted || is_down(&self.member)
    }

    async fn exchange(
        &self,
        kind: Kind,
        mut request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, ExchangeError> {
        if let Some(host) = &self.member.host {
            *request.uri_mut() = at_host(request.uri(), host).map_err(ExchangeError::Origin)?;
        }
        match &self.over {
            Over::Tunnel(live) => live.exchange(kind, request, interim).await,
            Over::Direct(directs, place) => {
                directs.exchange(place, kind, request, interim).await.map_err(ExchangeError::Origin)
            }
        }
    }
}

/// The same path at another host.
fn at_host(uri: &Uri, host: &str) -> Result<Uri, OriginError> {
    let mut parts = uri.clone().into_parts();
    let bad = |error: &dyn std::fmt::Display| {
        OriginError::new(OriginFault::Unsupported, format!("the member's Host header {host:?} is no host: {error}"))
    };
    parts.authority = Some(Authority::try_from(host).map_err(|error| bad(&error))?);
    Uri::from_parts(parts).map_err(|error| bad(&error))
}

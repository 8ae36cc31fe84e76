//! Keeps what is registered as it is wanted: each service has a tunnel and an agent of its own, so that none disturbs another one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use agent::edge::{Discovery, EdgeName};
use agent::{Agent, Config, Protocol, Running};
use anyhow::Context as _;
use certs::tls::Roots;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use wire::identity::{Credentials, TunnelSecret};

use super::failures::{Failures, PAUSES};
use super::service::Service;
use crate::bootstrap::{self, Known};
use crate::problem::Problem;
use crate::screen::Screen;
use crate::v4::{Api, Refusal, encode};
use crate::{connector, report};

/// For a first connection, before the name leads there; whoever takes longer is connected some time later.
const CONNECTING: Duration = Duration::from_secs(5);
/// What is wanted again while it is being removed is looked at after this time.
const LOOK: Duration = Duration::from_secs(5);
/// The edge's code for what it has not (any more).
const NO_OBJECT: i64 = 7003;

/// What is registered, and how.
pub(super) struct Keeper {
    edge: Arc<Edge>,
    known: Known,
    protocol: Protocol,
    grace: Duration,
    screen: Screen,
    /// By their tunnels' names.
    registered: BTreeMap<String, Registered>,
    /// Those that are about to be gone: their names cannot be given again before they are.
    leaving: HashMap<String, Leaving>,
    /// Those that are not registered.
    failures: Failures,
}

/// The ids of zones by their names, and which names are none, as they were asked for in one round.
type Zones = HashMap<String, Option<String>>;

/// Whom to ask.
struct Edge {
    api: Api,
    account: String,
}

/// A service that is served.
struct Registered {
    service: Service,
    tunnel: Uuid,
    connector: Uuid,
    zone: String,
    agent: Running,
}

/// A service that is being removed.
struct Leaving {
    task: JoinHandle<()>,
    /// As long as it is there, what fails is tried again.
    again: Option<oneshot::Sender<()>>,
}

impl Keeper {
    /// At this edge, which is asked where agents dial.
    pub(super) async fn new(api: Api, protocol: Protocol, grace: Duration, screen: Screen) -> anyhow::Result<Self> {
        let known = bootstrap::ask(api.origin(), api.trust()).await?;
        let account = api.account().await?;
        Ok(Self {
            edge: Arc::new(Edge { api, account }),
            known,
            protocol,
            grace,
            screen,
            registered: BTreeMap::new(),
            leaving: HashMap::new(),
            failures: Failures::default(),
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.registered.len()
    }

    /// Takes away what is not wanted any more, and adds what is. Answers when to do it again, unless all is as it is wanted; a
    /// problem is told once. What another service follows in the same place, as in a pool, goes after that is there: visitors always find one of them.
    pub(super) async fn settle(&mut self, wanted: &BTreeMap<String, Service>) -> Option<Instant> {
        self.leaving.retain(|_, leaving| !leaving.task.is_finished());
        let (followed, unfollowed) = self.gone(wanted);
        for name in unfollowed {
            self.remove(&name);
        }
        self.failures.keep(wanted);
        let (mut zones, mut again) = (Zones::new(), None);
        for (name, service) in wanted {
            let is_there = self.registered.get(name).is_some_and(|there| there.service == *service);
            if is_there {
                continue;
            }
            let later = self.failures.due(name).filter(|due| *due > Instant::now());
            let due = if let Some(leaving) = self.leaving.get_mut(name) {
                // What is left of it is wanted again.
                leaving.again = None;
                Some(Instant::now() + LOOK)
            } else if later.is_some() {
                later
            } else if let Err(problem) = self.add(service, &mut zones).await {
                self.tell_problem(service, &problem);
                self.failures.due(name)
            } else {
                None
            };
            again = again.into_iter().chain(due).min();
        }
        for name in followed {
            self.remove(&name);
        }
        again
    }

    /// What is not wanted any more: where another one comes to the same place, and the rest.
    fn gone(&self, wanted: &BTreeMap<String, Service>) -> (Vec<String>, Vec<String>) {
        let is_kept = |name, it: &Registered| wanted.get(name).is_some_and(|other| other.is_named_as(&it.service));
        // Of one tunnel only one can be there at once: the former goes first.
        let is_followed = |name, it: &Registered| {
            !wanted.contains_key(name) && wanted.values().any(|other| other.is_named_as(&it.service))
        };
        let gone = self.registered.iter().filter(|(name, it)| !is_kept(name.as_str(), it));
        let (followed, unfollowed): (Vec<_>, Vec<_>) = gone.partition(|(name, it)| is_followed(name.as_str(), it));
        let names = |all: Vec<(&String, _)>| all.into_iter().map(|(name, _)| name.clone()).collect();
        (names(followed), names(unfollowed))
    }

    fn tell_problem(&mut self, service: &Service, problem: &anyhow::Error) {
        let reason: Vec<String> = problem.chain().map(ToString::to_string).collect();
        let reason = reason.join(": ");
        if !self.failures.note(service, &reason, Instant::now()) {
            return;
        }
        self.tell("failed", service, Some(&reason));
        self.screen.say(format!("{} is not registered yet: {reason}", service.hostname));
    }

    fn tell(&self, state: &str, service: &Service, reason: Option<&str>) {
        let Service { hostname, url, pool, labels, tunnel } = service;
        self.screen.event(&json!({
            "event": "service", "time": report::now(), "state": state, "hostname": hostname, "url": url, "pool": pool,
            "labels": labels, "tunnel": tunnel, "reason": reason,
        }));
    }

    /// Serves it, and has its name lead there once it is connected. One that only leads elsewhere now is served in the place of the former,
    /// which ends after that.
    async fn add(&mut self, service: &Service, zones: &mut Zones) -> anyhow::Result<()> {
        let edge = Arc::clone(&self.edge);
        let zone = edge.zone_of(&service.hostname, zones).await?.ok_or_else(|| {
            let advice = "`snicket dns` lists the zones; `snicket dns create ZONE` makes one";
            Problem::new(format!("{} lies in no zone of the edge", service.hostname), advice)
        })?;
        let (credentials, is_made) = edge.tunnel(service).await?;
        let tunnel = credentials.tunnel;
        let (agent, connector) = self.serve(service, credentials).await?;
        // Whoever takes longer is connected some time later.
        let _ = timeout(CONNECTING, agent.ready()).await;
        let new = Registered { service: service.clone(), tunnel, connector, zone: zone.clone(), agent };
        let former = self.registered.remove(&service.tunnel);
        if former.is_none()
            && let Err(problem) = edge.lead(service, tunnel, &zone).await
        {
            if is_made {
                self.forget(new, Duration::ZERO);
            } else {
                new.agent.shutdown(Duration::ZERO).await;
            }
            return Err(problem);
        }
        if let Some(former) = former {
            let grace = self.grace;
            // Its requests may take their time.
            tokio::spawn(async move { former.agent.shutdown(grace).await });
        }
        self.registered.insert(service.tunnel.clone(), new);
        self.failures.forget(&service.tunnel);
        self.tell("registered", service, None);
        let pool = service.pool.as_ref().map(|pool| format!(", in the pool {pool}")).unwrap_or_default();
        self.screen.say(format!("{} leads to {}{pool}", service.hostname, service.url));
        Ok(())
    }

    async fn serve(&self, service: &Service, credentials: Credentials) -> anyhow::Result<(Running, Uuid)> {
        let config = config(&self.known, self.protocol, service, credentials)?;
        let connector = config.connector;
        let agent = Agent::start(config, None).await.context("its agent cannot start")?;
        Ok((agent, connector))
    }

    /// Takes it away, in the background: its requests may take their time.
    fn remove(&mut self, name: &str) {
        let Some(there) = self.registered.remove(name) else { return };
        self.tell("removed", &there.service, None);
        self.screen.say(format!("{} leads to {} no more", there.service.hostname, there.service.url));
        self.forget(there, self.grace);
    }

    /// Removes what was made for it, again and again until the edge has done it.
    fn forget(&mut self, there: Registered, grace: Duration) {
        let edge = Arc::clone(&self.edge);
        let (again, mut enough) = oneshot::channel();
        let name = there.service.tunnel.clone();
        let task = tokio::spawn(async move {
            let mut pause = PAUSES.0;
            while let Err(problem) = edge.forget(&there, grace).await {
                let (hostname, problem) = (&there.service.hostname, format!("{problem:#}"));
                tracing::warn!(hostname, problem, ?pause, "something of the service is left at the edge");
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                    _ = &mut enough => return,
                }
            }
        });
        self.leaving.insert(name, Leaving { task, again: Some(again) });
    }

    /// Stops serving all, whose names stay for the next start; pools go on without them.
    pub(super) async fn leave(mut self) {
        for leaving in self.leaving.values_mut() {
            leaving.again = None;
        }
        let mut tasks: JoinSet<()> = JoinSet::new();
        for (_, there) in self.registered {
            let (edge, grace) = (Arc::clone(&self.edge), self.grace);
            tasks.spawn(async move {
                if let Some(pool) = &there.service.pool
                    && let Err(error) = edge.api.leave_pool(&there.zone, there.tunnel, pool, there.connector).await
                {
                    tracing::warn!(pool, %error, "the pool still has this service among its members");
                }
                there.agent.shutdown(grace).await;
            });
        }
        while tasks.join_next().await.is_some() {}
        for (_, leaving) in self.leaving {
            let _ = leaving.task.await;
        }
    }
}

/// The configuration of a service's agent.
fn config(known: &Known, protocol: Protocol, service: &Service, credentials: Credentials) -> anyhow::Result<Config> {
    let edges = known.tunnel.iter().map(|address| address.parse()).collect::<Result<Vec<EdgeName>, _>>();
    let edges = edges.context(Problem::new("the edge tells no address for agents", "update the edge"))?;
    let document = connector::single(&service.url, agent::ingress::Overrides::default())?;
    let mut config = connector::config(credentials, edges, Roots::Pem(known.ca.clone()), document)?;
    config.discovery = Discovery::of(&known.domain, &config.edge);
    config.protocol = protocol;
    Ok(config)
}

impl Edge {
    /// The zone that a name lies in: its own or that of the nearest parent.
    async fn zone_of(&self, name: &str, zones: &mut Zones) -> anyhow::Result<Option<String>> {
        for name in crate::v4::with_parents(name) {
            let zone = match zones.get(name) {
                Some(known) => known.clone(),
                None => zones.entry(name.to_owned()).insert_entry(self.api.zone_id(name).await?).get().clone(),
            };
            if zone.is_some() {
                return Ok(zone);
            }
        }
        Ok(None)
    }

    /// The service's tunnel with its labels, and whether it was made, as there was none.
    async fn tunnel(&self, service: &Service) -> anyhow::Result<(Credentials, bool)> {
        let name = &service.tunnel;
        let query = format!("is_deleted=false&name={}", encode(name));
        if let Some(there) = self.api.tunnels(&self.account, &query).await?.into_iter().next() {
            if there.labels != service.labels {
                self.api.label(&self.account, there.id, &service.labels).await?;
            }
            let token = self.api.token(&self.account, there.id).await?;
            let credentials = Credentials::from_token(token.reveal()).context("the edge's token cannot be read")?;
            return Ok((credentials, false));
        }
        let secret = TunnelSecret::generate();
        let made = self.api.create(&self.account, name, &secret.to_base64(), &service.labels).await?;
        Ok((Credentials { account_tag: self.account.clone(), tunnel: made.id, secret, endpoint: None }, true))
    }

    /// Has the name lead to the tunnel.
    async fn lead(&self, service: &Service, tunnel: Uuid, zone: &str) -> anyhow::Result<()> {
        match &service.pool {
            Some(pool) => self.api.route_lb(zone, tunnel, &service.hostname, pool).await.map(drop),
            None => self.api.route_dns(zone, tunnel, &service.hostname, false).await.map(drop),
        }
    }

    /// Removes what was made for a service, unless another machine serves it under the same name; first the name, then the agent, once its
    /// requests have ended.
    async fn forget(&self, there: &Registered, grace: Duration) -> anyhow::Result<()> {
        let connectors = or_gone(self.api.connectors(&self.account, there.tunnel).await);
        let is_alone = connectors.as_ref().is_ok_and(|all| all.iter().all(|other| other.id == there.connector));
        let unnamed = if is_alone { or_gone(self.unname(there).await) } else { connectors.map(drop) };
        there.agent.shutdown(grace).await;
        unnamed?;
        if is_alone {
            or_gone(self.api.delete(&self.account, there.tunnel, true).await)?;
        }
        Ok(())
    }

    async fn unname(&self, there: &Registered) -> anyhow::Result<()> {
        match &there.service.pool {
            Some(pool) => self.api.leave_pool(&there.zone, there.tunnel, pool, there.connector).await.map(drop),
            None => self.api.remove_route(there.tunnel, &there.service.hostname).await,
        }
    }
}

/// What is not there any more needs no removal.
fn or_gone<T: Default>(answer: anyhow::Result<T>) -> anyhow::Result<T> {
    match answer {
        Err(error) if error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.has(&[NO_OBJECT])) => {
            Ok(T::default())
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::Said;
    use super::*;

    #[test]
    fn agents_follow_the_nodes_of_an_edge_elsewhere() {
        let said = Said { hostname: "app.example.com", url: "http://localhost:3000", ..Said::default() };
        let service = Service::new(said).unwrap();
        for (tunnel, domain) in [("192.0.2.1:7844", Some("edge.example.com")), ("127.0.0.1:7844", None)] {
            let known = Known {
                domain: "edge.example.com".to_owned(),
                tunnel: vec![tunnel.to_owned()],
                https: String::new(),
                http: String::new(),
                ca: String::new(),
            };
            let secret = TunnelSecret::generate();
            let credentials = Credentials { account_tag: "a".to_owned(), tunnel: Uuid::nil(), secret, endpoint: None };
            let config = config(&known, Protocol::Auto, &service, credentials).unwrap();
            assert_eq!(config.discovery.as_ref().map(Discovery::domain), domain, "{tunnel}");
        }
    }
}

//! Three nodes before a pool of five members, and what can become of a member.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Host, LIMIT, Mood, Network, Origin, Process, until};
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep_until;

use crate::cluster::{Counter, Nodes};
use crate::load;
use crate::report::{Member, PoolRow, Row};
use crate::rows::BOTH;

const NODES: u8 = 3;
/// Members behind tunnels, one agent each; the first of all.
const TUNNELS: usize = 3;
/// Members at addresses.
const ADDRESSES: usize = 2;
const MEMBERS: usize = TUNNELS + ADDRESSES;
/// The name that the load balancer serves.
const NAME: &str = "pool.localhost";
/// Between two changes of what changes all the time.
const PACE: Duration = Duration::from_secs(1);
/// How often it is looked at who was asked.
const LOOK: Duration = Duration::from_millis(50);
/// What visitors ask for; everything else is questions about health.
const PATHS: [&str; 4] = ["/slow", "/echo", "/drip", "/ws"];
/// Transports of cases in which no tunnel breaks.
const QUIC: &[&str] = &["quic"];

/// Something that goes wrong with a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The agent of the first member.
    AgentKilled,
    /// The cable of the first member's agent.
    AgentCutOff,
    /// The origin of this member, for connections are refused.
    Down(usize),
    Stalls(usize),
    Fails(usize),
    /// Away every other second.
    Flaps(usize),
    NodeKilled,
    /// All origins, but for the one in the pool of last resort.
    Empty,
    /// Weights of members, each second other ones.
    Weights,
    /// The share of one label's value, each second another one.
    Labels,
}

/// What the table has a line of for each transport.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) fault: Fault,
    pub(crate) transports: &'static [&'static str],
    lasts: Duration,
    note: &'static str,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        what: "five members: one's agent killed (-9), started again after 15 s",
        fault: Fault::AgentKilled,
        transports: BOTH,
        lasts: Duration::from_secs(15),
        note: "What ran over the agent ends with it. Over HTTP/2 its connections are closed, and nobody is led to \
            it from then on. Over QUIC nothing tells of it but silence: GETs leave after 1.5 s of it, and POSTs \
            that it may have seen are lost.",
    },
    Case {
        what: "five members: cable of one's agent pulled for 20 s",
        fault: Fault::AgentCutOff,
        transports: BOTH,
        lasts: Duration::from_secs(20),
        note: "As above, over either transport: nothing tells of it but silence, of 2 s over HTTP/2. What was under \
            way goes on when the cable is back in time.",
    },
    Case {
        what: "five members: origin of one behind a tunnel down for 15 s",
        fault: Fault::Down(0),
        transports: BOTH,
        lasts: Duration::from_secs(15),
        note: "The agent says at once that nobody takes the connection, and another member gets the request, \
            whatever it is, until the monitor has found the member down.",
    },
    Case {
        what: "five members: one at an address down for 15 s",
        fault: Fault::Down(TUNNELS),
        transports: QUIC,
        lasts: Duration::from_secs(15),
        note: "As above.",
    },
    Case {
        what: "five members: one behind a tunnel stalls for 15 s",
        fault: Fault::Stalls(0),
        transports: QUIC,
        lasts: Duration::from_secs(15),
        note: "Requests that wait for it go to another member as soon as the monitor has found it down, if they may \
            be repeated; POSTs and WebSockets wait until it is back.",
    },
    Case {
        what: "five members: one at an address stalls for 15 s",
        fault: Fault::Stalls(TUNNELS),
        transports: QUIC,
        lasts: Duration::from_secs(15),
        note: "As above.",
    },
    Case {
        what: "five members: one answers 500 for 15 s",
        fault: Fault::Fails(TUNNELS),
        transports: QUIC,
        lasts: Duration::from_secs(15),
        note: "A 500 is an answer, and the visitor's to judge: it is passed on, until visitors' requests or the \
            monitor have shown the member to be down.",
    },
    Case {
        what: "five members: one is away every other second for 15 s",
        fault: Fault::Flaps(TUNNELS),
        transports: QUIC,
        lasts: Duration::from_secs(15),
        note: "Each second begins with requests that go on to another member; a download that takes a second may be cut when the next one begins.",
    },
    Case {
        what: "five members: one node of three killed (-9), started again after 5 s",
        fault: Fault::NodeKilled,
        transports: BOTH,
        lasts: Duration::from_secs(5),
        note: "What was under way at the node ends with it; visitors go to the next one.",
    },
    Case {
        what: "five members: all down for 10 s",
        fault: Fault::Empty,
        transports: QUIC,
        lasts: Duration::from_secs(10),
        note: "Until the monitor has found them all down, and the pool of last resort is asked, requests meet up to \
            four members that are down, and only so many go again that an outage is not multiplied.",
    },
    Case {
        what: "five members: weights changed each second",
        fault: Fault::Weights,
        transports: QUIC,
        lasts: Duration::from_secs(30),
        note: "Nothing breaks.",
    },
    Case {
        what: "five members: share of one label changed each second, 10 %, 50 %, none, all",
        fault: Fault::Labels,
        transports: QUIC,
        lasts: Duration::from_secs(30),
        note: "Nothing breaks.",
    },
];

/// One row's world.
struct Pool {
    nodes: Nodes,
    transport: &'static str,
    /// Where agents are, and how they are started again.
    hosts: Vec<Host>,
    tokens: Vec<String>,
    agents: Vec<Process>,
    /// Of the members, and last the one of the pool of last resort.
    origins: Vec<Option<Arc<Origin>>>,
    addresses: Vec<SocketAddr>,
    /// The paths of the pool and its members, as the API has them.
    path: String,
    members: Vec<Value>,
}

impl Pool {
    async fn start(network: &Network, transport: &'static str) -> Option<Self> {
        let mut hosts = network.hosts(NODES + 1 + TUNNELS as u8);
        let agents = hosts.split_off(usize::from(NODES) + 1);
        let members = hosts.split_off(usize::from(NODES));
        let nodes = Nodes::start(hosts, members, &["--origin-networks", "10.99.0.0/24"]).await?;
        let mut origins = Vec::new();
        for _ in 0..=MEMBERS {
            origins.push(Some(Arc::new(Origin::start_on((Host::SWITCH, 0).into()).await)));
        }
        let addresses = origins.iter().flatten().map(|origin| origin.address()).collect();
        let mut pool = Self {
            nodes,
            transport,
            hosts: agents,
            tokens: Vec::new(),
            agents: Vec::new(),
            origins,
            addresses,
            path: String::new(),
            members: Vec::new(),
        };
        for number in 0..TUNNELS {
            let name = format!("member-{number}");
            let token = pool.nodes.edges[0].named_tunnel(&name, &format!("{name}.localhost")).await;
            pool.tokens.push(token.display().to_string());
            let agent = pool.agent(number).await;
            pool.agents.push(agent);
        }
        pool.configure().await;
        pool.nodes.all_serve(NAME).await;
        pool.all_well().await;
        Some(pool)
    }

    async fn agent(&self, number: usize) -> Process {
        let service = format!("http://{}", self.addresses[number]);
        self.nodes.agent(&self.hosts[number], self.transport, &self.tokens[number], &service).await
    }

    async fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let words = ["api", method, path, "-d", &body];
        let said = match body.as_str() {
            "null" => self.nodes.edges[0].said(&words[..3]).await,
            _ => self.nodes.edges[0].said(&words).await,
        };
        let answer: Value = serde_json::from_str(&said).unwrap();
        answer["result"].clone()
    }

    /// The load balancer, its pools, and a monitor that asks every second.
    async fn configure(&mut self) {
        let zone = self.api("GET", "/zones?name=localhost", &Value::Null).await[0].clone();
        let account = format!("/accounts/{}", zone["account"]["id"].as_str().unwrap());
        let balancing = format!("{account}/load_balancers");
        let tunnels = self.api("GET", &format!("{account}/cfd_tunnel?is_deleted=false"), &Value::Null).await;
        let id = |name: &str| tunnels.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap()["id"].clone();
        for number in 0..TUNNELS {
            let name = format!("member-{number}");
            let address = format!("{}.cfargotunnel.com", id(&name).as_str().unwrap());
            let release = if number == 0 { "canary" } else { "stable" };
            self.members.push(json!({ "name": name, "address": address, "labels": { "release": release } }));
        }
        let at = |number: usize, address: SocketAddr| {
            let (ip, port) = (address.ip().to_string(), address.port());
            json!({
                "name": format!("member-{number}"), "address": ip, "port": port, "labels": { "release": "stable" },
            })
        };
        for number in TUNNELS..MEMBERS {
            self.members.push(at(number, self.addresses[number]));
        }
        let monitor = json!({
            "type": "http", "path": "/health", "expected_codes": "200", "interval": 1, "timeout": 1, "retries": 0,
            "consecutive_down": 2, "consecutive_up": 2,
        });
        let monitor = self.api("POST", &format!("{balancing}/monitors"), &monitor).await["id"].clone();
        let pool = json!({ "name": "web", "origins": self.members, "monitor": monitor });
        let pool = self.api("POST", &format!("{balancing}/pools"), &pool).await["id"].clone();
        let last = json!({ "name": "last", "origins": [at(MEMBERS, self.addresses[MEMBERS])] });
        let last = self.api("POST", &format!("{balancing}/pools"), &last).await["id"].clone();
        let balancer = json!({
            "name": NAME, "default_pools": [pool], "fallback_pool": last, "proxied": true,
            "adaptive_routing": { "failover_across_pools": true },
        });
        let zone = zone["id"].as_str().unwrap();
        // The origins have no TLS.
        self.api("PATCH", &format!("/zones/{zone}/settings/ssl"), &json!({ "value": "flexible" })).await;
        self.api("POST", &format!("/zones/{zone}/load_balancers"), &balancer).await;
        self.path = format!("{balancing}/pools/{}", pool.as_str().unwrap());
    }

    /// Waits until all members are found well.
    async fn all_well(&self) {
        until(2 * LIMIT, "all members are well", async || {
            let health = self.api("GET", &format!("{}/health", self.path), &Value::Null).await;
            let text = health.to_string();
            text.matches("\"healthy\":true").count() > MEMBERS && !text.contains("\"healthy\":false")
        })
        .await;
    }

    async fn down(&mut self, member: usize) {
        drop(self.origins[member].take());
        let address = self.addresses[member];
        let refused = async || tokio::net::TcpStream::connect(address).await.is_err();
        until(LIMIT, "the origin is gone", refused).await;
    }

    async fn up(&mut self, member: usize) {
        self.origins[member] = Some(Arc::new(Origin::start_on(self.addresses[member]).await));
    }

    fn fare(&self, member: usize, mood: Mood) {
        self.origins[member].as_ref().expect("it is up").fare(mood);
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::AgentKilled => self.agents[0].kill().await,
            Fault::AgentCutOff => self.hosts[0].cut(),
            Fault::Down(member) | Fault::Flaps(member) => self.down(member).await,
            Fault::Stalls(member) => self.fare(member, Mood::Stalls),
            Fault::Fails(member) => self.fare(member, Mood::Fails),
            Fault::NodeKilled => self.nodes.edges[0].kill().await,
            Fault::Empty => {
                for member in 0..MEMBERS {
                    self.down(member).await;
                }
            }
            Fault::Weights | Fault::Labels => (),
        }
    }

    /// Goes on until then.
    async fn last(&mut self, fault: Fault, until: Instant) {
        for round in 0.. {
            match fault {
                Fault::Flaps(member) if self.origins[member].is_some() => self.down(member).await,
                Fault::Flaps(member) => self.up(member).await,
                Fault::Weights => {
                    for (number, member) in self.members.iter_mut().enumerate() {
                        // One in turn is to have nothing, the others have more and more.
                        member["weight"] = json!(((number + round) % MEMBERS) as f32 / (MEMBERS - 1) as f32);
                    }
                    self.api("PATCH", &self.path, &json!({ "origins": self.members })).await;
                }
                Fault::Labels => {
                    let (stable, canary) = [(90, 10), (50, 50), (100, 0), (0, 100)][round % 4];
                    let weights = json!({ "stable": stable, "canary": canary });
                    let steering = json!({ "label_steering": { "key": "release", "weights": weights } });
                    self.api("PATCH", &self.path, &steering).await;
                }
                _ => return sleep_until(until.into()).await,
            }
            let next = Instant::now() + PACE;
            if next >= until {
                return sleep_until(until.into()).await;
            }
            sleep_until(next.into()).await;
        }
    }

    async fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::AgentKilled => self.agents[0] = self.agent(0).await,
            Fault::AgentCutOff => self.hosts[0].mend(),
            Fault::Stalls(member) | Fault::Fails(member) => self.fare(member, Mood::Well),
            Fault::NodeKilled => self.nodes.edges[0].start_again().await,
            Fault::Down(_) | Fault::Flaps(_) | Fault::Empty => {
                for member in 0..MEMBERS {
                    if self.origins[member].is_none() {
                        self.up(member).await;
                    }
                }
            }
            Fault::Weights | Fault::Labels => {
                for member in &mut self.members {
                    member["weight"] = json!(1);
                }
                let usual = json!({ "origins": self.members, "label_steering": null });
                self.api("PATCH", &self.path, &usual).await;
            }
        }
    }
}

impl Fault {
    /// Whose health it is about.
    fn member(self) -> Option<usize> {
        match self {
            Self::AgentKilled | Self::AgentCutOff | Self::Empty => Some(0),
            Self::Down(member) | Self::Stalls(member) | Self::Fails(member) | Self::Flaps(member) => Some(member),
            Self::NodeKilled | Self::Weights | Self::Labels => None,
        }
    }

    /// Nothing breaks.
    pub(crate) fn is_mild(self) -> bool {
        matches!(self, Self::Weights | Self::Labels)
    }
}

/// How many requests of visitors an origin has seen.
fn visits(origin: &Origin) -> usize {
    PATHS.iter().map(|path| origin.requests_for(path)).sum()
}

/// Looks when an origin is asked by a visitor; answers when it was.
fn await_visit(origin: Arc<Origin>) -> JoinHandle<Instant> {
    let before = visits(&origin);
    tokio::spawn(async move {
        while visits(&origin) == before {
            tokio::time::sleep(LOOK).await;
        }
        Instant::now()
    })
}

/// Looks how many requests the nodes send again; keeps the last moment at which it were more.
fn watch_retries(counters: Vec<Counter>) -> (Arc<Mutex<Option<Instant>>>, AbortHandle) {
    let moment = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&moment);
    let watch = tokio::spawn(async move {
        let mut counters: Vec<_> = counters.into_iter().map(|counter| (counter.read(), counter)).collect();
        loop {
            tokio::time::sleep(4 * LOOK).await;
            let looked = tokio::task::spawn_blocking(move || {
                let mut is_more = false;
                for (before, counter) in &mut counters {
                    // A node that is started again begins at 0.
                    let now = counter.read();
                    is_more |= now > *before;
                    *before = now;
                }
                (counters, is_more)
            });
            let is_more;
            (counters, is_more) = looked.await.unwrap();
            if is_more {
                *kept.lock().unwrap() = Some(Instant::now());
            }
        }
    });
    (moment, watch.abort_handle())
}

/// One line of the table; `None`: not possible here, which has been said.
pub(crate) async fn row(network: &Network, case: &Case, transport: &'static str, time: Duration) -> Option<PoolRow> {
    let fault = case.fault;
    let mut pool = Pool::start(network, transport).await?;
    let began = Instant::now();
    let over = began + time;
    let load = tokio::spawn(load::load(pool.nodes.doors(NAME), time));
    sleep_until((began + time / 5).into()).await;
    // The counters of a node that is killed go with it.
    let mut retried = if fault == Fault::NodeKilled { pool.nodes.retries_at(0) } else { 0 };
    let (last_retry, watch) = watch_retries(pool.nodes.counters());
    let struck = Instant::now();
    pool.strike(fault).await;
    pool.last(fault, struck + case.lasts.min(time * 3 / 5)).await;
    pool.mend(fault).await;
    let mended = Instant::now();
    let last_retry = *last_retry.lock().unwrap();
    watch.abort();
    let origin = fault.member().and_then(|member| pool.origins[member].clone());
    let back = origin.map(await_visit);
    let visits = load.await.unwrap();
    let back = match back {
        Some(back) if back.is_finished() => Some(back.await.unwrap() - mended),
        Some(back) => {
            back.abort();
            None
        }
        None => None,
    };
    retried += pool.nodes.retries();
    pool.nodes.all_serve(NAME).await;
    pool.all_well().await;
    pool.nodes.end(pool.agents.iter_mut()).await;
    network.no_hosts();
    let row = Row { what: case.what, transport, note: case.note, visits, retried, began, over, mended };
    let out = row.last_harmed(struck..mended).max(last_retry).map_or(Duration::ZERO, |last| last - struck);
    Some(PoolRow { row, member: fault.member().map(|_| Member { out, back }) })
}

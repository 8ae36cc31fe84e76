//! Pools with their members.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use registry::LabelWord;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Api, MOST_PAGES, PER_PAGE};
use crate::problem::Problem;

/// A pool as the API shows it to people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether visitors are led there.
    pub(crate) enabled: bool,
    /// Whether enough of its members are well.
    pub(crate) healthy: bool,
    /// How many are enough.
    pub(crate) minimum_origins: usize,
    /// What asks the members for their health.
    pub(crate) monitor: Option<String>,
    /// How one of them is chosen.
    pub(crate) policy: String,
    /// Which share the members with each value of a label get.
    pub(crate) label_steering: Option<Split>,
    /// The names that lead there.
    pub(crate) load_balancers: Vec<String>,
    /// Whose counts and history these are.
    pub(crate) counted_by: CountedBy,
    /// Its members.
    pub(crate) members: Vec<Member>,
}

/// How visitors are shared out by a label.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Split {
    /// The label.
    pub(crate) key: LabelWord,
    /// By its values.
    pub(crate) weights: BTreeMap<LabelWord, f64>,
}

/// The node that was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CountedBy {
    /// Which.
    pub(crate) node: String,
    /// Its place.
    pub(crate) location: String,
}

/// A member of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its id.
    pub(crate) id: String,
    /// For people; may be empty.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) address: String,
    /// 0: that of the protocol.
    pub(crate) port: u16,
    /// What it is told of the host.
    pub(crate) host: Option<String>,
    /// The tunnel behind which it is.
    pub(crate) tunnel_id: Option<String>,
    /// The name of that.
    pub(crate) tunnel_name: Option<String>,
    /// Whether visitors are led there.
    pub(crate) enabled: bool,
    /// Since when they are not.
    pub(crate) disabled_at: Option<Timestamp>,
    /// Its share, compared with those of the others.
    pub(crate) weight: f64,
    /// Whether it is well, as far as is known.
    pub(crate) healthy: bool,
    /// Why it is not.
    pub(crate) reason: Option<String>,
    /// Since when.
    pub(crate) since: Option<Timestamp>,
    /// Whether its tunnel has a connection.
    pub(crate) link: Option<String>,
    /// Whether it answers as its monitor wants.
    pub(crate) probe: Option<String>,
    /// What it answered its monitor with.
    pub(crate) response_code: Option<u16>,
    /// How soon.
    pub(crate) rtt_ms: Option<u64>,
    /// How many nodes say so.
    pub(crate) voices: Option<Value>,
    /// Requests that it answered through the node that was asked.
    pub(crate) requests: u64,
    /// Those of the latest minutes.
    pub(crate) recent_requests: u64,
    /// Its value of the label by which visitors are shared out.
    pub(crate) label: Option<LabelWord>,
    /// By the weights.
    pub(crate) wanted_share: Option<f64>,
    /// Of the recent requests.
    pub(crate) served_share: Option<f64>,
    /// When it turned well or not, the last change first.
    pub(crate) history: Vec<Change>,
}

/// A member turned well, or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    /// When.
    pub(crate) at: Timestamp,
    /// What it has been since.
    pub(crate) healthy: bool,
    /// Why it is not.
    pub(crate) reason: Option<String>,
}

impl Member {
    /// Where it is, with its port if it has one of its own.
    pub(crate) fn place(&self) -> String {
        match (&self.tunnel_name, self.port) {
            (Some(tunnel), _) => format!("tunnel {tunnel}"),
            (None, 0) => self.address.clone(),
            (None, port) if self.address.contains(':') => format!("[{}]:{port}", self.address),
            (None, port) => format!("{}:{port}", self.address),
        }
    }

    /// What people call it.
    pub(crate) fn title(&self) -> String {
        if self.name.is_empty() { self.place() } else { self.name.clone() }
    }

    /// Whether somebody means this one.
    fn is(&self, text: &str) -> bool {
        [&self.name, &self.id, &self.address].contains(&&text.to_owned()) || self.place() == text
    }
}

impl Pool {
    /// The member that is meant by a name, an id or an address.
    pub(crate) fn member(&self, text: &str) -> anyhow::Result<&Member> {
        let mut found = self.members.iter().filter(|member| member.is(text));
        let advice = format!("`snicket pools show {}` shows its members, with --json with their ids", self.name);
        match (found.next(), found.next()) {
            (Some(member), None) => Ok(member),
            (None, _) => Err(Problem::new(format!("the pool {} has no member {text:?}", self.name), advice).into()),
            (Some(_), Some(_)) => {
                Err(Problem::usage(format!("the pool {} has several members {text:?}", self.name), advice).into())
            }
        }
    }
}

impl Api {
    /// All pools, by name.
    pub(crate) async fn pools(&self) -> anyhow::Result<Vec<Pool>> {
        let mut all: Vec<Pool> = Vec::new();
        for page in 1..=MOST_PAGES {
            let path = format!("/pools?page={page}&per_page={PER_PAGE}");
            let mut read: Vec<Pool> = self.own(Method::GET, &path, None).await?;
            let count = read.len();
            all.append(&mut read);
            if count < PER_PAGE {
                break;
            }
        }
        Ok(all)
    }

    /// A pool by its name or id.
    pub(crate) async fn pool(&self, name: &str) -> anyhow::Result<Pool> {
        let pools = self.pools().await?;
        pools.into_iter().find(|pool| pool.name == name || pool.id == name).ok_or_else(|| {
            let what = format!("there is no pool {name:?} at {}", self.origin());
            let advice =
                "`snicket pools` lists those that exist; `snicket tunnel route lb TUNNEL HOSTNAME POOL` makes one";
            Problem::new(what, advice).into()
        })
    }

    /// Adds a member, said as the v4 API has it.
    pub(crate) async fn add_member(&self, pool: &Pool, origin: Value) -> anyhow::Result<Pool> {
        self.own(Method::POST, &format!("/pools/{}/members", pool.id), Some(origin)).await
    }

    /// Changes what is said of a member.
    pub(crate) async fn change_member(&self, pool: &Pool, member: &Member, change: Value) -> anyhow::Result<Pool> {
        self.own(Method::PATCH, &format!("/pools/{}/members/{}", pool.id, member.id), Some(change)).await
    }

    /// Takes a member out of its pool.
    pub(crate) async fn remove_member(&self, pool: &Pool, member: &Member) -> anyhow::Result<Pool> {
        self.own(Method::DELETE, &format!("/pools/{}/members/{}", pool.id, member.id), None).await
    }

    /// Has visitors led to a pool, or not.
    pub(crate) async fn enable_pool(&self, pool: &Pool, enabled: bool) -> anyhow::Result<()> {
        self.change_pool(pool, json!({ "enabled": enabled })).await
    }

    /// Shares a pool's visitors out by a label, or by none.
    pub(crate) async fn split_pool(&self, pool: &Pool, split: Option<&Split>) -> anyhow::Result<()> {
        self.change_pool(pool, json!({ "label_steering": split })).await
    }

    async fn change_pool(&self, pool: &Pool, change: Value) -> anyhow::Result<()> {
        let path = format!("/accounts/{}/load_balancers/pools/{}", self.account().await?, pool.id);
        self.call::<Value>(Method::PATCH, &path, Some(change)).await.map(drop)
    }
}

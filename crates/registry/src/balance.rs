//! Load balancing, as it is configured: [`LoadBalancer`]s lead the visitors of a name to [`Pool`]s of origins, and [`Monitor`]s
//! say how these are asked for their health. [`PoolHealth`] is what is known of a pool, by
//! what the nodes that ask report. Asking and leading are the business of the room `balance`.

mod change;
mod change_load_balancer;
mod change_pool;
mod health;
mod joining;
mod label_steering;
mod load_balancer;
mod member;
mod monitor;
pub(crate) mod number;
mod pool;
mod region;
mod rule;
mod steering;

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::resource::{Key, Resource};
use crate::{CommitError, Hostname, LoadBalancerId, PoolId};

pub(crate) use change::take_turn;
pub use health::{HealthChange, Link, MemberHealth, MemberReport, PoolHealth, PoolReport, Probe};
pub(crate) use health::{agreed, unasked};
pub use joining::Joined;
pub use label_steering::LabelSteering;
pub use load_balancer::{LoadBalancer, LoadBalancerTerms};
pub use member::MemberId;
pub use monitor::{Monitor, MonitorTerms, MonitorType};
pub use pool::{
    LoadShedding, Notices, NotificationFilter, Origin, OriginHeader, OriginPolicy, OriginSteering, Pool, PoolTerms,
    SessionShedding, SheddingPolicy,
};
pub use region::REGIONS;
pub use rule::{FixedResponse, Overrides, Rule};
pub use steering::{
    AdaptiveRouting, Affinity, AffinityAttributes, Failover, LocationMode, LocationStrategy, PreferEcs, RandomSteering,
    SameSite, Secure, Steering, SteeringPolicy,
};

/// What people write about something, at most.
const MAX_DESCRIPTION_CHARS: usize = 1000;

/// What something is to be will not do; the text names the member and says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTerms(Box<str>);

impl BadTerms {
    /// With this message.
    pub fn new(message: impl Display) -> Self {
        Self(message.to_string().into())
    }

    /// About a member.
    fn of(member: impl Display, problem: impl Display) -> Self {
        Self::new(format_args!("{member}: {problem}"))
    }
}

/// Why nothing of load balancing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BalanceError {
    /// There is no such thing; it is named with its kind.
    #[error("there is no {0}")]
    NotFound(String),
    /// It is not valid.
    #[error(transparent)]
    Bad(#[from] BadTerms),
    /// Another one has the name.
    #[error("there is {0} already")]
    NameTaken(String),
    /// It cannot be removed while others need it.
    #[error("it is in use and cannot be removed: {} refer to it; change these first", listed(.0))]
    Referenced(Vec<Referrer>),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What refers to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Referrer {
    /// A pool.
    Pool {
        /// Which.
        id: PoolId,
        /// Its name.
        name: Box<str>,
    },
    /// A load balancer.
    LoadBalancer {
        /// Which.
        id: LoadBalancerId,
        /// Its name.
        name: Hostname,
    },
}

impl Display for Referrer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool { id, name } => write!(f, "pool {name} ({id})"),
            Self::LoadBalancer { id, name } => write!(f, "load balancer {name} ({id})"),
        }
    }
}

/// In a message, which is to be read.
fn listed(referrers: &[Referrer]) -> String {
    const NAMED: usize = 10;
    let named: Vec<_> = referrers.iter().take(NAMED).map(ToString::to_string).collect();
    match referrers.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Is written with each change of load balancing, so that these happen one after the other, whoever makes them: what a change
/// was decided on, such as that nothing refers to what it removes, is then still so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {}

impl Resource for Turn {
    const KIND: &'static str = "balance";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &"turn")
    }
}

/// Refuses a text that is too long, or has control characters but for those of lines.
fn check_text(member: &str, text: &str, most: usize) -> Result<(), BadTerms> {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if text.chars().count() > most || text.chars().any(is_odd) {
        return Err(BadTerms::of(member, format_args!("at most {most} characters are wanted, none of them a control")));
    }
    Ok(())
}

/// Refuses a number outside of its bounds.
fn check_number(member: &str, number: u32, least: u32, most: u32) -> Result<(), BadTerms> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(BadTerms::of(member, format_args!("a whole number from {least} to {most} is wanted")))
}

/// Refuses a number outside of 0 to this one.
fn check_share(member: &str, number: f64, most: f64) -> Result<(), BadTerms> {
    if (0.0..=most).contains(&number) {
        return Ok(());
    }
    Err(BadTerms::of(member, format_args!("a number from 0 to {most} is wanted")))
}

//! One service, as a file or a container says it. Pure.

use registry::{Hostname, Labels, PoolTerms};
use uuid::Uuid;

use crate::connector;
use crate::node::host_name;

/// What is reached by a public name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// Names its tunnel, and with that itself: whoever has the same is the same service.
    pub(super) tunnel: String,
    /// The public name.
    pub(super) hostname: String,
    /// Where it is.
    pub(super) url: String,
    /// The pool behind the name, which it shares with others.
    pub(super) pool: Option<String>,
    /// Its tunnel's, by which a pool may share visitors out.
    pub(super) labels: Labels,
}

/// What somebody says of a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Said<'a> {
    pub(super) hostname: &'a str,
    pub(super) url: &'a str,
    pub(super) pool: Option<&'a str>,
    pub(super) labels: Labels,
    /// Tells it from others of the same pool on this machine; its URL, if there is nothing.
    pub(super) instance: Option<&'a str>,
}

impl Service {
    /// Of one agent: each is a tunnel with connections of its own.
    pub(super) const MOST: usize = 100;
    /// Begins the names of tunnels that are made for services, and removed with them.
    const PREFIX: &str = "service-";

    /// A service that can be registered, or which of its parts cannot.
    pub(super) fn new(said: Said<'_>) -> Result<Self, (&'static str, String)> {
        let hostname = Hostname::parse(said.hostname).map_err(|problem| ("hostname", problem.to_string()))?;
        if hostname.wildcard_parent().is_some() {
            return Err(("hostname", "a service has a name of its own, without *".to_owned()));
        }
        connector::single(said.url, agent::ingress::Overrides::default())
            .map_err(|error| ("url", format!("{error:#}")))?;
        if !said.url.contains("://") && !said.url.starts_with("unix") {
            return Err(("url", "write for example http://localhost:3000".to_owned()));
        }
        let tunnel = match said.pool {
            None => format!("{}{hostname}", Self::PREFIX),
            Some(pool) => {
                PoolTerms::check_name("pool", pool).map_err(|problem| ("pool", problem.to_string()))?;
                let machine = host_name().unwrap_or_else(|| "here".to_owned());
                let of_url = || Uuid::new_v5(&Uuid::NAMESPACE_URL, said.url.as_bytes()).simple().to_string();
                let instance = said.instance.map_or_else(of_url, str::to_owned);
                let instance: String = instance.chars().take(12).collect();
                format!("{}{pool}-{machine}-{instance}", Self::PREFIX)
            }
        };
        let (hostname, url) = (hostname.as_str().to_owned(), said.url.to_owned());
        Ok(Self { tunnel, hostname, url, pool: said.pool.map(str::to_owned), labels: said.labels })
    }

    /// Whether the other one is in the same place for visitors, and only leads elsewhere behind it.
    pub(super) fn is_named_as(&self, other: &Self) -> bool {
        (&self.hostname, &self.pool) == (&other.hostname, &other.pool)
    }
}

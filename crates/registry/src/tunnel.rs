use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::balance::take_turn;
use crate::name::BadName;
use crate::record::{Draft, RecordEdit, RecordError};
use crate::resource::{NameClaim, Resource, Versioned};
use crate::route::write_route;
use crate::{
    CommitError, ConfigSource, Hostname, ItemKind, Labels, Registry, Secret, Snapshot, Transaction, Tunnel, TunnelName,
    Zone, ZoneId, words,
};

/// A tunnel to be made.
#[derive(Debug, Clone)]
pub struct NewTunnel {
    /// Unique among the tunnels that are not deleted.
    pub name: TunnelName,
    /// `None`: a random one.
    pub secret: Option<Secret>,
    /// Who configures its connectors.
    pub config_source: ConfigSource,
    /// What is said of it.
    pub labels: Labels,
}

/// What is to be otherwise with a tunnel; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct TunnelChange {
    /// Its name.
    pub name: Option<TunnelName>,
    /// Its secret.
    pub secret: Option<Secret>,
    /// What is said of it, all of it.
    pub labels: Option<Labels>,
}

/// Why a tunnel was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Another tunnel has the name.
    #[error("there is a tunnel named {0} already; choose another name, or delete that one first")]
    NameTaken(TunnelName),
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NotFound(Uuid),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a tunnel was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteTunnelError {
    /// No such tunnel.
    #[error("there is no tunnel {0}")]
    NotFound(Uuid),
    /// It has connections.
    #[error("the tunnel has {0} live connections; stop its connectors first, or delete with cascade (-f)")]
    Connected(usize),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a quick tunnel is to be called.
#[derive(Debug, Clone)]
pub enum QuickName {
    /// Two random words.
    Random,
    /// One label under the domain.
    Wished {
        /// The label.
        label: String,
        /// The secret of the tunnel, if the caller has one: with it, asking again for one's own name succeeds.
        secret: Option<Secret>,
    },
}

/// Why a quick tunnel was not made.
#[derive(Debug, thiserror::Error)]
pub enum QuickTunnelError {
    /// The name is in use.
    #[error("{0} is taken; choose another name")]
    Taken(Hostname),
    /// The wished name is not a label.
    #[error("{0}")]
    BadName(#[from] BadName),
    /// The domain is no zone here.
    #[error("{0} is not a domain of this edge")]
    NoZone(Hostname),
    /// Too many quick tunnels exist.
    #[error("this edge has {0} quick tunnels, which is the most it takes; stop some, or use a named tunnel")]
    TooMany(usize),
    /// Its record cannot be written.
    #[error("the name cannot be led to the tunnel: {0}")]
    Record(RecordError),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<RecordError> for QuickTunnelError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Commit(error) => error.into(),
            other => Self::Record(other),
        }
    }
}

/// Why a connection may not serve a tunnel. Peers are told no more than "unauthorized"; logs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelRefused {
    /// No such tunnel.
    #[error("no such tunnel")]
    Unknown,
    /// It was deleted.
    #[error("the tunnel is deleted")]
    Deleted,
    /// The account is not the tunnel's.
    #[error("the account is not the tunnel's")]
    WrongAccount,
    /// The secret is not the tunnel's.
    #[error("the secret is not the tunnel's")]
    WrongSecret,
}

/// An agent comes within seconds for the tunnel that it asked for. Those who ask and never come must not hold the places
/// of all others for long.
const UNSERVED_QUICK_TUNNEL: SignedDuration = SignedDuration::from_hours(1);

/// What is removed of a tunnel in one transaction; etcd takes 128 operations in one, a record comes with its zone, and the
/// tunnel itself needs some.
const BELONGINGS: usize = 50;

impl Registry {
    /// More quick tunnels than this are not made: whoever may make them need not prove anything, and each costs memory.
    pub const MAX_QUICK_TUNNELS: usize = 10_000;

    /// Makes a tunnel.
    ///
    /// # Errors
    /// The name is taken, or the engine fails.
    pub async fn create_tunnel(&self, now: Timestamp, new: NewTunnel) -> Result<Tunnel, TunnelError> {
        let tunnel = Tunnel {
            id: Uuid::new_v4(),
            name: new.name,
            secret: new.secret.unwrap_or_else(Secret::random),
            created_at: now,
            deleted_at: None,
            config_source: new.config_source,
            quick: None,
            labels: new.labels,
        };
        self.change(|snapshot, transaction| {
            claim_name(snapshot, transaction, &tunnel.name, tunnel.id)?;
            transaction.put(&tunnel);
            Ok(tunnel.clone())
        })
        .await
    }

    /// Gives a tunnel another name, another secret or other labels. Connections stay.
    ///
    /// # Errors
    /// No such tunnel, the name is taken, or the engine fails.
    pub async fn change_tunnel(&self, id: Uuid, change: TunnelChange) -> Result<Tunnel, TunnelError> {
        let TunnelChange { name, secret, labels } = change;
        self.change(|snapshot, transaction| {
            let old = snapshot.live_tunnel(id).ok_or(TunnelError::NotFound(id))?;
            let mut new = old.value.clone();
            if let Some(name) = name.clone().filter(|name| *name != old.name) {
                claim_name(snapshot, transaction, &name, id)?;
                release_name(snapshot, transaction, old);
                new.name = name;
            }
            if let Some(secret) = secret.clone() {
                new.secret = secret;
            }
            if let Some(labels) = labels.clone().filter(|labels| *labels != old.labels) {
                new.labels = labels;
                // Pools lead to their members by these.
                take_turn(snapshot, transaction);
            }
            if new != old.value {
                transaction.expect(old).put(&new);
            }
            Ok(new)
        })
        .await
    }

    /// Deletes a tunnel: it stays listed, its name is free again, its routes, configuration, access rules and ports are gone. Deleting it
    /// again changes nothing. Without `cascade` it must have no connections; with it, closing them is the caller's
    /// part.
    ///
    /// # Errors
    /// No such tunnel, it has connections, or the engine fails.
    pub async fn delete_tunnel(&self, now: Timestamp, id: Uuid, cascade: bool) -> Result<Tunnel, DeleteTunnelError> {
        let deleted = self
            .change(|snapshot, transaction| {
                let old = snapshot.tunnel(id).ok_or(DeleteTunnelError::NotFound(id))?;
                if old.deleted_at.is_some() {
                    return Ok(old.value.clone());
                }
                let connections = snapshot.connections(id).count();
                if connections > 0 && !cascade {
                    return Err(DeleteTunnelError::Connected(connections));
                }
                release_name(snapshot, transaction, old);
                remove_belongings(snapshot, transaction, id);
                let new = Tunnel { deleted_at: Some(now), ..old.value.clone() };
                transaction.expect(old).put(&new);
                Ok(new)
            })
            .await?;
        self.remove_leftovers(id).await?;
        Ok(deleted)
    }

    /// Removes what a tunnel that was deleted still has: more than goes with it at once, or what another writer gave it
    /// meanwhile. From then on nobody leads a name to it but by hand.
    async fn remove_leftovers(&self, tunnel: Uuid) -> Result<(), CommitError> {
        let remove = |snapshot: &Snapshot, transaction: &mut Transaction| -> Result<bool, CommitError> {
            remove_belongings(snapshot, transaction, tunnel);
            Ok(!transaction.writes.is_empty())
        };
        while self.change(remove).await? || self.await_zones_of(tunnel).await? {}
        Ok(())
    }

    /// Waits for those who hold zones with names of this tunnel, and answers whether there was anybody.
    async fn await_zones_of(&self, tunnel: Uuid) -> Result<bool, CommitError> {
        let snapshot = self.snapshot();
        let held: Vec<_> =
            snapshot.routes_of(tunnel).map(|route| route.zone).filter(|id| is_held(&snapshot, *id)).collect();
        for zone in &held {
            self.released(*zone).await?;
        }
        Ok(!held.is_empty())
    }

    /// Makes a quick tunnel with a host name directly under this domain, routed to it.
    ///
    /// # Errors
    /// The wished name is taken or not a label, the domain is no zone, there are too many, or the engine fails.
    pub async fn create_quick_tunnel(
        &self,
        now: Timestamp,
        domain: &Hostname,
        name: QuickName,
    ) -> Result<Tunnel, QuickTunnelError> {
        let (wished, wished_secret) = match name {
            QuickName::Random => (None, None),
            QuickName::Wished { label, secret } => (Some(domain.child(&label)?), secret),
        };
        let id = Uuid::new_v4();
        let secret = wished_secret.clone().unwrap_or_else(Secret::random);
        let no_zone = || QuickTunnelError::NoZone(domain.clone());
        let zone = self.snapshot().zone_of(domain.as_str()).ok_or_else(no_zone)?.id;
        self.in_zone(zone, |snapshot, transaction| {
            let zone = snapshot.zone(zone).ok_or_else(no_zone)?;
            let hostname = match &wished {
                Some(hostname) => hostname.clone(),
                None => free_hostname(snapshot, zone, domain)?,
            };
            if let Some(tunnel) = snapshot.route_exactly(&hostname).and_then(|route| snapshot.live_tunnel(route.tunnel))
            {
                let own = tunnel.quick.as_ref() == Some(&hostname) && wished_secret.as_ref() == Some(&tunnel.secret);
                return if own { Ok(tunnel.value.clone()) } else { Err(QuickTunnelError::Taken(hostname)) };
            }
            if snapshot.has_addresses(zone, &hostname) {
                return Err(QuickTunnelError::Taken(hostname));
            }
            if snapshot.quick_count() >= Self::MAX_QUICK_TUNNELS {
                return Err(QuickTunnelError::TooMany(Self::MAX_QUICK_TUNNELS));
            }
            let tunnel = Tunnel {
                id,
                name: TunnelName::parse(hostname.as_str())?,
                secret: secret.clone(),
                created_at: now,
                deleted_at: None,
                config_source: ConfigSource::Local,
                quick: Some(hostname.clone()),
                labels: Labels::default(),
            };
            claim_name(snapshot, transaction, &tunnel.name, id)
                .map_err(|_| QuickTunnelError::Taken(hostname.clone()))?;
            write_route(snapshot, transaction, now, zone, &hostname, id)?;
            transaction.expect(zone).put(&tunnel);
            Ok(tunnel)
        })
        .await
    }

    /// Removes quick tunnels that have had no connection for this long, and answers which; those that never had one last
    /// an hour at most. Time before the registry was opened does not count, so that a restart gives every agent the same
    /// time to come back. Connections to all nodes count; while what the other nodes say is not known, none is removed.
    /// Several nodes may do this at once.
    ///
    /// # Errors
    /// The engine fails; those removed until then stay so.
    pub async fn sweep_quick_tunnels(&self, now: Timestamp, idle: SignedDuration) -> Result<Vec<Uuid>, CommitError> {
        let mut removed = Vec::new();
        if !self.sees_all_nodes() {
            return Ok(removed);
        }
        let candidates: Vec<Uuid> = self.snapshot().quick_tunnels().collect();
        for id in candidates {
            let opened_at = self.opened_at();
            let gone = self
                .change(|snapshot, transaction| {
                    let Some(tunnel) = snapshot.tunnel(id).filter(|_| !snapshot.is_connected(id)) else {
                        return Ok::<bool, CommitError>(false);
                    };
                    let activity = snapshot.activity(id);
                    let left_at = activity.and_then(|activity| activity.inactive_at);
                    let since = tunnel.created_at.max(opened_at).max(left_at.unwrap_or(tunnel.created_at));
                    let is_unserved = activity.is_none() && tunnel.created_at >= opened_at;
                    let life = if is_unserved { idle.min(UNSERVED_QUICK_TUNNEL) } else { idle };
                    if now.duration_since(since) < life {
                        return Ok(false);
                    }
                    release_name(snapshot, transaction, tunnel);
                    remove_belongings(snapshot, transaction, id);
                    transaction.expect(tunnel).delete(&tunnel.key());
                    Ok(true)
                })
                .await?;
            if gone {
                self.remove_leftovers(id).await?;
                removed.push(id);
            }
        }
        Ok(removed)
    }
}

/// Two random words, and after some misses a number as well.
fn free_hostname(snapshot: &Snapshot, zone: &Zone, domain: &Hostname) -> Result<Hostname, QuickTunnelError> {
    const PLAIN_TRIES: usize = 8;
    for attempt in 0..2 * PLAIN_TRIES {
        let mut label = words::two();
        if attempt >= PLAIN_TRIES {
            label = format!("{label}-{}", rand::random_range(100..1_000_000));
        }
        let hostname = domain.child(&label)?;
        if !snapshot.has_addresses(zone, &hostname) && snapshot.claim_of(hostname.as_str()).is_none() {
            return Ok(hostname);
        }
    }
    Err(QuickTunnelError::TooMany(snapshot.quick_count()))
}

fn claim_name(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    name: &TunnelName,
    tunnel: Uuid,
) -> Result<(), TunnelError> {
    if snapshot.claim_of(name.as_str()).is_some() {
        return Err(TunnelError::NameTaken(name.clone()));
    }
    let claim = NameClaim { name: name.clone(), tunnel };
    transaction.expect_absent(&claim.key()).put(&claim);
    Ok(())
}

fn release_name(snapshot: &Snapshot, transaction: &mut Transaction, tunnel: &Tunnel) {
    if let Some(claim) = snapshot.claim_of(tunnel.name.as_str()).filter(|claim| claim.tunnel == tunnel.id) {
        transaction.expect(claim).delete(&claim.key());
    }
}

/// Removes a tunnel's routes (of names and of private addresses), configuration, access rules and ports, if they are
/// still as they were read; no more of them than [`BELONGINGS`].
fn remove_belongings(snapshot: &Snapshot, transaction: &mut Transaction, tunnel: Uuid) {
    let configuration = snapshot.configuration(tunnel).map(|entry| (entry.key(), entry.revision));
    let access = snapshot.access_entry(tunnel).map(|entry| (entry.key(), entry.revision));
    let ports = snapshot.ports_of(tunnel).map(|port| (port.key(), port.revision));
    let names = snapshot.passthrough_of(tunnel).map(|name| (name.key(), name.revision));
    let routes = snapshot.items(ItemKind::PrivateRoute, None);
    let routes = routes.filter(|item| item.private_route().is_some_and(|route| route.tunnel == tunnel));
    let routes = routes.map(|item| (item.key(), item.revision));
    let all = configuration.into_iter().chain(access).chain(ports).chain(names).chain(routes);
    let mut left = BELONGINGS;
    for (key, revision) in all.take(BELONGINGS) {
        transaction.expect_at(&key, revision).delete(&key);
        left -= 1;
    }
    for (zone, record) in snapshot.routes_of(tunnel).take(left).map(|route| (route.zone, route.record)) {
        let Some(zone) = snapshot.zone(zone).filter(|zone| zone.hold.is_none()) else { continue };
        let mut draft = Draft::new(snapshot, zone, Timestamp::UNIX_EPOCH);
        // A record that is gone is what is wanted, and so few names are never too large.
        if draft.edit(&RecordEdit::Delete(record), record).is_ok()
            && transaction.expect(zone).put_changes(&draft.changes()).is_err()
        {
            break;
        }
    }
}

fn is_held(snapshot: &Snapshot, zone: ZoneId) -> bool {
    snapshot.zone(zone).is_some_and(|zone| zone.hold.is_some())
}

impl Snapshot {
    /// A tunnel by its id, unless it is deleted.
    pub fn live_tunnel(&self, id: Uuid) -> Option<&Arc<Versioned<Tunnel>>> {
        self.tunnel(id).filter(|tunnel| tunnel.deleted_at.is_none())
    }

    /// Checks that whoever shows this secret may serve the tunnel. Takes the same time for every wrong secret.
    ///
    /// # Errors
    /// They may not, and why.
    pub fn authenticate(&self, account_tag: &str, tunnel: Uuid, secret: &[u8]) -> Result<&Tunnel, TunnelRefused> {
        let tunnel = self.tunnel(tunnel).ok_or(TunnelRefused::Unknown)?;
        if !tunnel.secret.matches(secret) {
            return Err(TunnelRefused::WrongSecret);
        }
        if self.account().id.to_string() != account_tag {
            return Err(TunnelRefused::WrongAccount);
        }
        if tunnel.deleted_at.is_some() {
            return Err(TunnelRefused::Deleted);
        }
        Ok(tunnel)
    }
}

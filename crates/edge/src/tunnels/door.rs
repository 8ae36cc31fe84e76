use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use registry::{AuthorityPurpose, ConfigSource, ConfigurationError, TunnelRefused};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use wire::registration::{LocalConfiguration, Refused, Registered, Registration};
use wire::{Connection, Extensions, Registrar};

use super::{Tunnels, managed};
use crate::listen::Place;

/// When an agent whose tunnel or secret is not known may ask again: a tunnel that was made a moment ago is known by
/// then.
const RETRY_UNKNOWN: Duration = Duration::from_secs(10);
/// When an agent may ask again whose tunnel has no room for it.
const RETRY_FULL: Duration = Duration::from_secs(60);
/// When an agent may come back to a node that is stopping: it has stopped by then, and another one answers.
const RETRY_STOPPING: Duration = Duration::from_secs(1);

/// Lets one connection of an agent in, and notes when it leaves.
pub(crate) struct Door {
    tunnels: Arc<Tunnels>,
    /// Held until the connection is registered.
    waiting: Mutex<Option<Place>>,
    registered: watch::Sender<Option<Uuid>>,
}

impl Door {
    /// For a connection that takes one of the places of those that are not registered.
    pub(crate) fn new(tunnels: Arc<Tunnels>, place: Place) -> Arc<Self> {
        Arc::new(Self { tunnels, waiting: Mutex::new(Some(place)), registered: watch::Sender::new(None) })
    }

    /// Waits until the connection is registered.
    pub(crate) async fn registered(&self) {
        // The sender lives as long as `self`.
        let _ = self.registered.subscribe().wait_for(Option::is_some).await;
    }

    /// The connection is, or was, registered.
    pub(crate) fn is_registered(&self) -> bool {
        self.registered.borrow().is_some()
    }

    fn refusal(&self, registration: &Registration) -> Option<Refused> {
        if self.tunnels.stop.is_draining() {
            // Any other cause ends a reference agent that has not been connected before.
            let cause = format!("{}: this node is stopping, another one will answer", Refused::UNAUTHORIZED);
            return Some(Refused { cause, retry_after: Some(RETRY_STOPPING) });
        }
        let snapshot = self.tunnels.registry.snapshot();
        let known =
            snapshot.authenticate(&registration.account_tag, registration.tunnel, registration.secret.as_bytes());
        let Registration { tunnel, connector, .. } = registration;
        let Err(refused) = known else {
            return self.tunnels.is_full(registration).then(|| {
                tracing::warn!(%tunnel, %connector, "the limit of connections of one tunnel is reached");
                // As above, an agent with any other cause might not stay until there is room.
                let cause = format!("{}: the tunnel has too many connections", Refused::UNAUTHORIZED);
                Refused { cause, retry_after: Some(RETRY_FULL) }
            });
        };
        tracing::info!(%tunnel, %connector, reason = %refused, "an agent was refused");
        Some(Refused {
            cause: format!("{}: the tunnel or its secret is not known here", Refused::UNAUTHORIZED),
            retry_after: match refused {
                TunnelRefused::Unknown | TunnelRefused::WrongAccount | TunnelRefused::WrongSecret => {
                    Some(RETRY_UNKNOWN)
                }
                TunnelRefused::Deleted => None,
            },
        })
    }
}

impl Registrar for Door {
    async fn register(&self, registration: Registration, connection: Connection) -> Result<Registered, Refused> {
        let refused = self.refusal(&registration);
        self.tunnels.metrics.registration(refused.is_none());
        if let Some(refused) = refused {
            return Err(refused);
        }
        let (live, replaced) = self.tunnels.accept(&registration, connection);
        if let Some(replaced) = replaced {
            replaced.connection.close("the agent has made this connection anew");
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.registered.send_replace(Some(live.id));
        tracing::info!(
            tunnel = %registration.tunnel,
            connector = %registration.connector,
            connection = %live.id,
            index = live.index,
            transport = %live.connection.transport(),
            version = registration.version,
            "an agent is connected"
        );
        let snapshot = self.tunnels.registry.snapshot();
        let connection = live.id;
        let remotely_managed =
            snapshot.tunnel(registration.tunnel).is_some_and(|tunnel| tunnel.config_source == ConfigSource::Cloudflare);
        if let Some(configuration) = managed(&snapshot, registration.tunnel) {
            self.tunnels.push(live, configuration);
        }
        // The tunnel may have been deleted between the check and the entry in the table, when nobody could close it.
        self.tunnels
            .close_if_gone(registration.tunnel, snapshot.tunnel(registration.tunnel).map(|tunnel| &tunnel.value));
        let extensions = Extensions::from_features(registration.features.iter().map(String::as_str));
        let origin_ca = snapshot.authority(AuthorityPurpose::Origin).filter(|_| extensions.origin_ca);
        Ok(Registered {
            connection,
            location: self.tunnels.location.clone(),
            remotely_managed,
            origin_ca: origin_ca.map(|authority| authority.trusted(Timestamp::now())),
        })
    }

    async fn local_configuration(&self, connection: Uuid, configuration: LocalConfiguration) -> Result<(), String> {
        let tunnel = self.tunnels.read().owners.get(&connection).copied();
        let tunnel = tunnel.ok_or("the connection is not registered")?;
        let document = serde_json::from_slice(&configuration).map_err(|error| format!("not JSON: {error}"))?;
        let written = self
            .tunnels
            .registry
            .put_configuration(Timestamp::now(), tunnel, document, ConfigSource::Local, None)
            .await;
        match written {
            // The edge manages the tunnel by now, and has pushed its own configuration.
            Ok(_) | Err(ConfigurationError::ManagedAtEdge) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn closed(&self, connection: Uuid, reason: &str) {
        let mut table = self.tunnels.write();
        if table.remove(connection, Instant::now()) {
            tracing::info!(%connection, reason, "an agent's connection has ended");
        }
    }
}

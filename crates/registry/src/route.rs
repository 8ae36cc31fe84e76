use jiff::Timestamp;
use uuid::Uuid;

use crate::record::{Draft, NewRecord, Record, RecordContent, RecordEdit, RecordError, RecordType, host_within};
use crate::{CommitError, Hostname, RecordId, Registry, Snapshot, Transaction, Zone, ZoneId};

/// A host name that leads to a tunnel, because of a proxied CNAME record that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The host name, or a wildcard.
    pub hostname: Hostname,
    /// Where it leads.
    pub tunnel: Uuid,
    /// The zone whose record it is.
    pub zone: ZoneId,
    /// The record.
    pub record: RecordId,
    /// When the record was made.
    pub created_at: Timestamp,
}

/// What writing a route did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteWrite {
    /// There was none of that name.
    New,
    /// It led elsewhere before.
    Updated,
    /// It led there already.
    Unchanged,
}

/// Why a route was not written or removed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The host name is not in the zone.
    #[error("{hostname} does not lie in the zone {zone}")]
    OutsideZone {
        /// The host name.
        hostname: Hostname,
        /// The zone's name.
        zone: Hostname,
    },
    /// No such zone.
    #[error("there is no zone {0}")]
    NoZone(ZoneId),
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NoTunnel(Uuid),
    /// The name leads to another tunnel.
    #[error("{hostname} leads to the tunnel {tunnel} already; overwrite it (--overwrite-dns), or choose another name")]
    Taken {
        /// The host name.
        hostname: Hostname,
        /// Where it leads.
        tunnel: Uuid,
    },
    /// A record says that the name leads elsewhere.
    #[error("there is a record of type {kind} for {hostname}; overwrite it (--overwrite-dns), or choose another name")]
    InTheWay {
        /// The host name.
        hostname: Hostname,
        /// What is there.
        kind: RecordType,
    },
    /// No such route.
    #[error("there is no route for {0}")]
    NotFound(Hostname),
    /// The record cannot be written.
    #[error(transparent)]
    Record(RecordError),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<RecordError> for RouteError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Commit(error) => error.into(),
            RecordError::NoZone(id) => Self::NoZone(id),
            other => Self::Record(other),
        }
    }
}

impl Registry {
    /// Leads a host name (or wildcard) to a tunnel. A name that leads elsewhere is changed only with `overwrite`.
    ///
    /// # Errors
    /// No such zone or tunnel, the name is outside the zone or taken, or the engine fails.
    pub async fn put_route(
        &self,
        now: Timestamp,
        zone: ZoneId,
        hostname: Hostname,
        tunnel: Uuid,
        overwrite: bool,
    ) -> Result<RouteWrite, RouteError> {
        self.in_zone(zone, |snapshot, transaction| {
            let zone = snapshot.zone(zone).ok_or(RouteError::NoZone(zone))?;
            let Some(host) = host_within(hostname.as_str(), &zone.name) else {
                return Err(RouteError::OutsideZone { hostname: hostname.clone(), zone: zone.name.clone() });
            };
            let target = snapshot.live_tunnel(tunnel).ok_or(RouteError::NoTunnel(tunnel))?;
            let records = snapshot.record_set(zone.id, host).map_or(&[][..], |set| &set.records[..]);
            // A route to a tunnel that is gone is in nobody's way.
            let is_left = |record: &Record| record.tunnel().is_some_and(|id| snapshot.live_tunnel(id).is_none());
            let mut leading = records.iter().filter(|record| record.content.kind().is_address() && !is_left(record));
            let write = match leading.next().map(|record| (record.tunnel(), record.content.kind())) {
                Some((Some(there), _)) if there == tunnel => return Ok(RouteWrite::Unchanged),
                Some((Some(tunnel), _)) if !overwrite => {
                    return Err(RouteError::Taken { hostname: hostname.clone(), tunnel });
                }
                Some((None, kind)) if !overwrite => {
                    return Err(RouteError::InTheWay { hostname: hostname.clone(), kind });
                }
                Some(_) => RouteWrite::Updated,
                None => RouteWrite::New,
            };
            transaction.expect(zone).expect(target);
            write_route(snapshot, transaction, now, zone, &hostname, tunnel)?;
            Ok(write)
        })
        .await
    }

    /// Removes the record that leads a name to a tunnel.
    ///
    /// # Errors
    /// There is none, or the engine fails.
    pub async fn delete_route(&self, hostname: &Hostname) -> Result<(), RouteError> {
        let none = || RouteError::NotFound(hostname.clone());
        let (zone, record) =
            self.snapshot().route_exactly(hostname).map(|route| (route.zone, route.record)).ok_or_else(none)?;
        match self.edit_records(Timestamp::UNIX_EPOCH, zone, &[RecordEdit::Delete(record)]).await {
            Ok(_) => Ok(()),
            Err(RecordError::NotFound(_) | RecordError::NoZone(_)) => Err(none()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes the record that leads a name to a tunnel, in place of those that lead it elsewhere, if what is there under its name
/// is still what the snapshot has.
pub(crate) fn write_route(
    snapshot: &Snapshot,
    transaction: &mut Transaction,
    now: Timestamp,
    zone: &Zone,
    hostname: &Hostname,
    tunnel: Uuid,
) -> Result<(), RecordError> {
    let mut draft = Draft::new(snapshot, zone, now);
    draft.replace_addresses(&leading_record(hostname.clone(), tunnel)?, RecordId::at(now))?;
    transaction.put_changes(&draft.changes())
}

/// The record that leads a name to a tunnel.
pub(crate) fn leading_record(hostname: Hostname, tunnel: Uuid) -> Result<NewRecord, RecordError> {
    let content = RecordContent::parse(RecordType::Cname, &Record::tunnel_target(tunnel), None, None)?;
    Ok(NewRecord::new(hostname, content).with_proxied(true)?)
}

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::ConnectionRecord;
use crate::shared::Shared;

/// Keeps a connection listed. Dropping it takes the connection off the list.
pub struct Presence {
    shared: Arc<Shared>,
    tunnel: Uuid,
    id: Uuid,
}

impl Presence {
    pub(crate) fn new(shared: Arc<Shared>, connection: ConnectionRecord) -> Self {
        let (tunnel, id) = (connection.tunnel, connection.id);
        shared.update_own(|snapshot| snapshot.add_connection(connection));
        Self { shared, tunnel, id }
    }

    /// Notes which configuration the connector says it has in force.
    pub fn set_config_version(&self, version: i32) {
        self.shared.update_own(|snapshot| snapshot.set_config_version(self.tunnel, self.id, version));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // The clock is read here since a drop cannot be handed the time; the time is for display, and for ending quick
        // tunnels that were left.
        let now = Timestamp::now();
        self.shared.update_own(|snapshot| snapshot.remove_connection(self.tunnel, self.id, now));
    }
}

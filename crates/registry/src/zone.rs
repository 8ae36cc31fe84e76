use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::resource::Resource;
use crate::{AccountId, CommitError, Hostname, Registry, Zone, ZoneId};

impl Registry {
    /// The zone of this name, made if there is none.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn ensure_zone(&self, now: Timestamp, name: &Hostname) -> Result<Zone, CommitError> {
        self.change(|snapshot, transaction| {
            if let Some(zone) = snapshot.zone_named(name.as_str()) {
                return Ok(zone.value.clone());
            }
            let id = ZoneId::of(snapshot.account().id, name);
            let zone = Zone { id, name: name.clone(), created_at: now };
            transaction.expect_absent(&zone.key()).put(&zone);
            Ok(zone)
        })
        .await
    }
}

impl ZoneId {
    /// A zone's id follows from its account and name, so that two nodes that make the same zone at once make one.
    fn of(account: AccountId, name: &Hostname) -> Self {
        let digest: [u8; 32] = Sha256::digest(format!("{account}/{name}")).into();
        let (half, _) = digest.split_at(16);
        Self::from_bytes(half.try_into().expect("16 bytes were split off"))
    }
}

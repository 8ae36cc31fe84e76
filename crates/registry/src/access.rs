use policy::Access;
use uuid::Uuid;

use crate::resource::{Resource, TunnelAccess};
use crate::{CommitError, Registry};

/// Why the rules of a tunnel were not written.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NotFound(Uuid),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Gives a tunnel these rules in place of those that it had. Without any, everybody may visit it.
    ///
    /// # Errors
    /// No such tunnel, or the engine fails.
    pub async fn put_access(&self, tunnel: Uuid, rules: Access) -> Result<(), AccessError> {
        self.change(|snapshot, transaction| {
            let owner = snapshot.live_tunnel(tunnel).ok_or(AccessError::NotFound(tunnel))?;
            let old = snapshot.access_entry(tunnel);
            let present = old.map(|old| &old.rules);
            if present.map_or(rules.is_empty(), |present| *present == rules) {
                return Ok(());
            }
            let new = TunnelAccess { tunnel, rules: rules.clone() };
            match old {
                Some(old) => transaction.expect(old),
                None => transaction.expect_absent(&new.key()),
            };
            transaction.expect(owner);
            if rules.is_empty() {
                transaction.delete(&new.key());
            } else {
                transaction.put(&new);
            }
            Ok(())
        })
        .await
    }
}

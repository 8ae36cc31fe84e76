use jiff::Timestamp;
use uuid::Uuid;

use crate::resource::Resource;
use crate::{BadTerms, CommitError, ConfigSource, Configuration, Registry, Tunnel};

/// A configuration as it is after writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationWrite {
    /// What is in force now.
    pub configuration: Configuration,
    /// Whether anything changed; the same document again changes nothing, not even the version.
    pub changed: bool,
}

/// Why a configuration was not written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// No such tunnel, or it is deleted.
    #[error("there is no tunnel {0}")]
    NotFound(Uuid),
    /// The caller knew another version.
    #[error("the configuration is at version {0} by now; read it again and decide anew")]
    Moved(i32),
    /// An agent reported its own configuration, but the edge manages this tunnel.
    #[error("the configuration of this tunnel is managed at the edge")]
    ManagedAtEdge,
    /// It is not valid.
    #[error(transparent)]
    Bad(#[from] BadTerms),
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Writes a tunnel's configuration. From [`ConfigSource::Cloudflare`], the tunnel is managed at the edge from then
    /// on; from [`ConfigSource::Local`] it is only noted, unless the tunnel is managed at the edge. The document must
    /// be checked already.
    ///
    /// # Errors
    /// No such tunnel, the present version (0: none) is not `if_match`, the tunnel is managed at the edge, or the
    /// engine fails.
    pub async fn put_configuration(
        &self,
        now: Timestamp,
        tunnel: Uuid,
        document: serde_json::Value,
        source: ConfigSource,
        if_match: Option<i32>,
    ) -> Result<ConfigurationWrite, ConfigurationError> {
        self.edit_configuration(now, tunnel, source, if_match, &mut |_| Ok(document.clone())).await
    }

    /// [`Registry::put_configuration`] with what `edit` makes of the present one; it is asked again when somebody else
    /// was faster.
    ///
    /// # Errors
    /// As there, or those of `edit`.
    pub async fn edit_configuration(
        &self,
        now: Timestamp,
        tunnel: Uuid,
        source: ConfigSource,
        if_match: Option<i32>,
        edit: &mut (dyn FnMut(Option<&Configuration>) -> Result<serde_json::Value, ConfigurationError> + Send),
    ) -> Result<ConfigurationWrite, ConfigurationError> {
        self.change(|snapshot, transaction| {
            let owner = snapshot.live_tunnel(tunnel).ok_or(ConfigurationError::NotFound(tunnel))?;
            let old = snapshot.configuration(tunnel);
            let present = old.map_or(0, |old| old.version);
            if if_match.is_some_and(|wanted| wanted != present) {
                return Err(ConfigurationError::Moved(present));
            }
            if source == ConfigSource::Local && owner.config_source == ConfigSource::Cloudflare {
                return Err(ConfigurationError::ManagedAtEdge);
            }
            let document = edit(old.map(|old| &old.value))?;
            if let Some(old) = old.filter(|old| old.document == document && old.source == source) {
                return Ok(ConfigurationWrite { configuration: old.value.clone(), changed: false });
            }
            let version = present.saturating_add(1);
            let configuration = Configuration { tunnel, version, document, source, created_at: now };
            match old {
                Some(old) => transaction.expect(old),
                None => transaction.expect_absent(&configuration.key()),
            };
            transaction.expect(owner).put(&configuration);
            if owner.config_source != source {
                transaction.put(&Tunnel { config_source: source, ..owner.value.clone() });
            }
            Ok(ConfigurationWrite { configuration, changed: true })
        })
        .await
    }
}

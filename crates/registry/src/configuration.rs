use jiff::Timestamp;
use uuid::Uuid;

use crate::{CommitError, ConfigSource, Configuration, Registry};

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
    /// The engine failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Registry {
    /// Writes a tunnel's configuration. From [`ConfigSource::Cloudflare`], the tunnel is managed at the edge from then on; from
    /// [`ConfigSource::Local`] it is only noted, unless the tunnel is managed at the edge. The document must be checked already.
    ///
    /// # Errors
    /// No such tunnel, the present version (0: none) is not `if_match`, the tunnel is managed at the edge, or the engine fails.
    pub async fn put_configuration(
        &self,
        now: Timestamp,
        tunnel: Uuid,
        document: serde_json::Value,
        source: ConfigSource,
        if_match: Option<i32>,
    ) -> Result<ConfigurationWrite, ConfigurationError> {
        let _ = (now, tunnel, document, source, if_match);
        todo!()
    }
}

//! What `snicket http` and `tcp` keep between runs, so that the same origin has the same name and port again.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::identity::{Credentials, TunnelSecret};

use crate::problem::Problem;
use crate::secret::write_private;

/// The directory in the state directory.
pub(crate) const DIRECTORY: &str = "shared";

/// A quick tunnel that was made before.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The edge, for people who look into the file.
    edge: String,
    /// The public name.
    pub(crate) hostname: String,
    account_tag: String,
    tunnel: Uuid,
    secret: String,
    /// The public port, for a TCP service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

impl Remembered {
    /// What is to be kept.
    pub(crate) fn new(edge: &str, hostname: &str, credentials: &Credentials, port: Option<u16>) -> Self {
        Self {
            edge: edge.to_owned(),
            hostname: hostname.to_owned(),
            account_tag: credentials.account_tag.clone(),
            tunnel: credentials.tunnel,
            secret: credentials.secret.to_base64(),
            port,
        }
    }

    /// The file for this edge and name, or origin when no name was wished for.
    pub(crate) fn path(state: &Path, edge: &str, key: &str) -> PathBuf {
        state
            .join(DIRECTORY)
            .join(format!("{}.json", Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{edge} {key}").as_bytes())))
    }

    /// What was kept; a damaged file counts as none, since it can be made anew.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Keeps it.
    pub(crate) fn store(&self, path: &Path) -> anyhow::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self).context("texts are JSON")?)
    }

    /// The right to serve the tunnel.
    pub(crate) fn credentials(&self) -> anyhow::Result<Credentials> {
        let secret = TunnelSecret::from_base64(&self.secret).context(Problem::new(
            "a remembered secret is damaged",
            "remove the directory `shared` in $XDG_STATE_HOME/snicket",
        ))?;
        Ok(Credentials { account_tag: self.account_tag.clone(), tunnel: self.tunnel, secret, endpoint: None })
    }

    /// The first label of the name.
    pub(crate) fn label(&self) -> &str {
        self.hostname.split('.').next().unwrap_or(&self.hostname)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_again_and_stays_private() {
        let state = tempfile::tempdir().unwrap();
        let credentials = Credentials {
            account_tag: "account".into(),
            tunnel: Uuid::from_u128(7),
            secret: TunnelSecret::generate(),
            endpoint: None,
        };
        let path = Remembered::path(state.path(), "edge", "http://localhost:3000");
        assert_ne!(path, Remembered::path(state.path(), "edge", "http://localhost:3001"));
        assert!(Remembered::load(&path).is_none());
        Remembered::new("edge", "two-words.localhost", &credentials, Some(20_000)).store(&path).unwrap();
        let again = Remembered::load(&path).unwrap();
        assert_eq!(again.credentials().unwrap(), credentials);
        assert_eq!((again.label(), again.port), ("two-words", Some(20_000)));
        assert!(!crate::secret::is_exposed(&path).unwrap());
    }
}

//! How programs on one machine find the edge that runs there: `edge.json` in its data directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::paths;
use crate::problem::Problem;
use crate::secret::write_private;
use crate::v4::api_url;

/// The file's name in the data directory of an edge.
const FILE: &str = "edge.json";

/// What an edge says of itself to others on its machine. Holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalEdge {
    /// Its process.
    pub(crate) pid: u32,
    /// Names under this one lead to it.
    pub(crate) domain: String,
    /// Visitors without TLS.
    pub(crate) http: SocketAddr,
    /// Visitors with TLS.
    pub(crate) https: SocketAddr,
    /// Agents; even and odd places form two regions.
    pub(crate) tunnel: Vec<SocketAddr>,
    /// The REST API, a URL without the path.
    pub(crate) api: String,
    /// The certificate authority's certificate.
    pub(crate) ca: PathBuf,
    /// Holds the API token.
    pub(crate) token_file: PathBuf,
}

/// The file while the edge runs; removed when dropped.
#[derive(Debug)]
pub(crate) struct Announcement(PathBuf);

impl LocalEdge {
    /// Writes the file for as long as the answer lives.
    pub(crate) fn announce(&self, directory: &Path) -> anyhow::Result<Announcement> {
        let path = directory.join(FILE);
        let text = serde_json::to_vec_pretty(self).context("an edge's addresses are plain JSON")?;
        write_private(&path, &text)?;
        Ok(Announcement(path))
    }

    /// The edge of this data directory, if one says that it runs. A file left by a process that was killed counts as
    /// none.
    pub(crate) fn find(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| {
                    Problem::new(
                        format!("cannot read {}", path.display()),
                        "run as the user who runs the edge, or give --edge and --ca",
                    )
                });
            }
        };
        let edge: Self = serde_json::from_slice(&text).with_context(|| {
            Problem::new(format!("{} is damaged", path.display()), "restart the edge; it writes the file anew")
        })?;
        Ok(edge.is_alive().then_some(edge))
    }

    /// The edge on this machine, unless `api` names the API of another one.
    pub(crate) fn meant(api: Option<&str>) -> anyhow::Result<Option<Self>> {
        let local = Self::find(&paths::edge_data())?;
        Ok(local.filter(|local| api.is_none_or(|url| local.has_api(url))))
    }

    /// Whether this edge's API is meant, however its URL is written. By name only with TLS, where the certificate shows
    /// that it is this edge, since its token may be sent there.
    pub(crate) fn has_api(&self, url: &str) -> bool {
        let (Ok(asked), Ok(own)) = (api_url(url), api_url(&self.api)) else { return false };
        let named = asked.host_str().is_some_and(|host| {
            host.strip_suffix(&self.domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let same_port = asked.port_or_known_default() == own.port_or_known_default();
        asked == own || (asked.scheme() == "https" && own.scheme() == "https" && named && same_port)
    }

    /// Where systems show processes as files, a killed edge is told from a running one.
    fn is_alive(&self) -> bool {
        let processes = Path::new("/proc/self");
        !processes.exists() || Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(pid: u32) -> LocalEdge {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        LocalEdge {
            pid,
            domain: "localhost".into(),
            http: address,
            https: address,
            tunnel: vec![address],
            api: "http://127.0.0.1:1".into(),
            ca: "/ca.pem".into(),
            token_file: "/api-token".into(),
        }
    }

    #[test]
    fn an_edge_is_found_while_it_runs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(LocalEdge::find(directory.path()).unwrap().is_none());
        let announcement = edge(std::process::id()).announce(directory.path()).unwrap();
        assert_eq!(LocalEdge::find(directory.path()).unwrap().unwrap().domain, "localhost");
        drop(announcement);
        assert!(LocalEdge::find(directory.path()).unwrap().is_none());
    }

    #[test]
    fn an_api_is_known_however_it_is_written() {
        let plain = edge(1);
        for url in ["127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/client/v4"] {
            assert!(plain.has_api(url), "{url}");
        }
        for url in ["http://127.0.0.1:2", "https://a.localhost:1", "https://edge.example:1", ""] {
            assert!(!plain.has_api(url), "{url}");
        }
        let public = LocalEdge { domain: "edge.example".into(), api: "https://192.0.2.1:7845".into(), ..edge(1) };
        for url in ["edge.example", "https://api.edge.example:7845/client/v4"] {
            assert!(public.has_api(url), "{url}");
        }
        for url in ["http://edge.example:7845", "https://edge.example", "https://knowledge.example:7845"] {
            assert!(!public.has_api(url), "{url}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_edge_that_was_killed_is_not_found() {
        let directory = tempfile::tempdir().unwrap();
        // Process ids end well below this number.
        let _announcement = edge(u32::MAX).announce(directory.path()).unwrap();
        assert!(LocalEdge::find(directory.path()).unwrap().is_none());
    }
}

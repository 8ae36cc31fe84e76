//! The life of a connection at the edge.

use tokio::sync::watch;

/// Life of a connection at the edge: open -> draining -> closed, or at once from open to closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes requests.
    Open,
    /// Takes no new requests; closes when the last one is done.
    Draining,
    /// Closes now, or is gone.
    Closed(String),
}

impl Phase {
    /// Whether it takes requests; if not, why.
    pub(crate) fn open(&self) -> Result<(), String> {
        match self {
            Self::Open => Ok(()),
            Self::Draining => Err("the connection takes no new requests".into()),
            Self::Closed(reason) => Err(format!("the connection is closed: {reason}")),
        }
    }
}

/// Waits until a connection takes no more requests, and says why.
pub(crate) async fn unavailable(phase: &mut watch::Receiver<Phase>) -> String {
    match phase.wait_for(|phase| *phase != Phase::Open).await {
        Ok(phase) => phase.open().err().unwrap_or_default(),
        Err(_) => "the connection is gone".into(),
    }
}

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::{NodeId, PoolId};

/// What an engine's live entry is about. Everything of one node has its id in it, so that no two nodes ever write one
/// entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LiveKey {
    /// A node: `nodes/NODE`.
    Node(NodeId),
    /// A connection: `connections/NODE/TUNNEL/ID`.
    Connection { node: NodeId, tunnel: Uuid, id: Uuid },
    /// What a node finds out of a pool: `health/NODE/POOL`.
    Health { node: NodeId, pool: PoolId },
}

impl LiveKey {
    /// Whose it is.
    pub(crate) fn node(&self) -> NodeId {
        match self {
            Self::Node(node) | Self::Connection { node, .. } | Self::Health { node, .. } => *node,
        }
    }
}

impl fmt::Display for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "nodes/{node}"),
            Self::Connection { node, tunnel, id } => write!(f, "connections/{node}/{tunnel}/{id}"),
            Self::Health { node, pool } => write!(f, "health/{node}/{pool}"),
        }
    }
}

/// The key is of no kind that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownKey;

impl FromStr for LiveKey {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or(UnknownKey);
        let kind = part()?;
        let node = part()?.parse().map_err(|_| UnknownKey)?;
        let key = match kind {
            "nodes" => Self::Node(node),
            "connections" => {
                let (tunnel, id) = (part()?, part()?);
                let uuid = |text: &str| text.parse().map_err(|_| UnknownKey);
                Self::Connection { node, tunnel: uuid(tunnel)?, id: uuid(id)? }
            }
            "health" => Self::Health { node, pool: part()?.parse().map_err(|_| UnknownKey)? },
            _ => return Err(UnknownKey),
        };
        if parts.next().is_some() { Err(UnknownKey) } else { Ok(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_being_written_and_read() {
        let node = NodeId::random();
        let connection = LiveKey::Connection { node, tunnel: Uuid::new_v4(), id: Uuid::new_v4() };
        let health = LiveKey::Health { node, pool: PoolId::from_bytes([7; 16]) };
        for key in [LiveKey::Node(node), connection, health] {
            assert_eq!(key.to_string().parse(), Ok(key));
            assert_eq!(key.node(), node);
        }
    }

    #[test]
    fn other_keys_are_passed_over() {
        let node = NodeId::random();
        for other in [
            "",
            "nodes",
            "nodes/x",
            &format!("nodes/{node}/x"),
            &format!("locks/{node}"),
            "connections/x/y/z",
            &format!("health/{node}/x"),
        ] {
            assert_eq!(other.parse::<LiveKey>(), Err(UnknownKey), "{other}");
        }
    }
}

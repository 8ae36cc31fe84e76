//! An origin as a member of its pool. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pool::{Origin, Pool};
use crate::{BadId, PoolId};

/// An origin of a pool, written as 16 lower-case hexadecimal digits. It follows from the pool and from where the origin is, so that
/// all nodes have the same, whatever else of the pool is changed. Nobody else can tell the place from it, nor the other way round
/// without the pool's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberId(u64);

impl MemberId {
    /// Of an origin of this pool.
    pub fn of(pool: PoolId, origin: &Origin) -> Self {
        let mut hash = Sha256::new();
        let network = origin.virtual_network_id.map(|network| network.to_string()).unwrap_or_default();
        let host = origin.header.host.first().map(|host| &**host).unwrap_or_default();
        // None of these has a line's end in it.
        hash.update(format!("{pool}\n{}\n{}\n{host}\n{network}", origin.address, origin.port));
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(bytes))
    }

    /// Its bits, which are as good as random.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl Pool {
    /// Its origins with their ids.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Origin)> {
        self.terms.origins.iter().map(|origin| (MemberId::of(self.id, origin), origin))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MemberId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() != 16 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(BadId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| BadId)
    }
}

impl TryFrom<String> for MemberId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<MemberId> for String {
    fn from(id: MemberId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_follows_from_pool_and_place_and_survives_being_written() {
        let origin = |value| serde_json::from_value::<Origin>(value).unwrap();
        let pool = PoolId::from_bytes([1; 16]);
        let id = MemberId::of(pool, &origin(json!({ "address": "192.0.2.1" })));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id, MemberId::of(pool, &origin(json!({ "address": "192.0.2.1", "name": "a", "weight": 0.5 }))));
        for other in [
            json!({ "address": "192.0.2.2" }),
            json!({ "address": "192.0.2.1", "port": 80 }),
            json!({ "address": "192.0.2.1", "header": { "Host": ["a.test"] } }),
            json!({ "address": "192.0.2.1", "virtual_network_id": "11111111-2222-4333-8444-555555555555" }),
        ] {
            assert_ne!(id, MemberId::of(pool, &origin(other)));
        }
        assert_ne!(id, MemberId::of(PoolId::from_bytes([2; 16]), &origin(json!({ "address": "192.0.2.1" }))));
        for bad in ["", "1", "000000000000000G", "+000000000000001"] {
            assert_eq!(bad.parse::<MemberId>(), Err(BadId), "{bad}");
        }
    }
}

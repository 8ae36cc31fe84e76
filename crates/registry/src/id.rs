use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 32 lower-case hexadecimal digits are wanted")]
pub struct BadId;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u128);

        impl $name {
            /// A new id that nobody can guess.
            pub fn random() -> Self {
                Self(rand::random())
            }

            /// The id with these bits.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// Its bits.
            pub fn to_bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

hex_id! {
    /// An account, written as 32 lower-case hexadecimal digits.
    AccountId
}
hex_id! {
    /// A zone, written as 32 lower-case hexadecimal digits.
    ZoneId
}
hex_id! {
    /// An API token (not its secret), written as 32 lower-case hexadecimal digits.
    TokenId
}

hex_id! {
    /// A policy of an API token, written as 32 lower-case hexadecimal digits.
    PolicyId
}
hex_id! {
    /// One process of the edge, written as 32 lower-case hexadecimal digits. A node that is started again is another one.
    NodeId
}
hex_id! {
    /// Something that is kept as a checked document, written as 32 lower-case hexadecimal digits or as a UUID of
    /// version 7. Ids made later are larger, to the millisecond.
    ItemId
}
hex_id! {
    /// A load balancer, written as 32 lower-case hexadecimal digits. Ids made later are larger, to the millisecond.
    LoadBalancerId
}
hex_id! {
    /// A health check of pools, written as 32 lower-case hexadecimal digits. Ids made later are larger, to the millisecond.
    MonitorId
}
hex_id! {
    /// A pool of origins, written as 32 lower-case hexadecimal digits. Ids made later are larger, to the millisecond.
    PoolId
}
hex_id! {
    /// An entry of the audit log, written as 32 lower-case hexadecimal digits. Ids made later are larger, to the millisecond.
    AuditId
}
hex_id! {
    /// A DNS record, written as 32 lower-case hexadecimal digits. Ids made later are larger, to the millisecond.
    RecordId
}

/// The bits behind the time, in ids that begin with it.
const RANDOM_BITS: u32 = 80;

macro_rules! begins_with_time {
    ($($name:ident),+) => {
        $(impl $name {
            /// A new id that nobody can guess, of what was made at this time.
            pub(crate) fn at(now: Timestamp) -> Self {
                let millisecond = u128::try_from(now.as_millisecond()).unwrap_or_default();
                let random = rand::random::<u128>() >> (u128::BITS - RANDOM_BITS);
                Self(millisecond << RANDOM_BITS | random)
            }
        })+
    };
}

begins_with_time!(AuditId, MonitorId, PoolId, LoadBalancerId, RecordId);

impl ItemId {
    /// A new id that nobody can guess, of what was made at this time.
    pub(crate) fn at(now: Timestamp) -> Self {
        let millisecond = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let random: [u8; 10] = rand::random();
        Self::of_uuid(uuid::Builder::from_unix_timestamp_millis(millisecond, &random).into_uuid())
    }

    pub(crate) fn of_uuid(id: Uuid) -> Self {
        Self(id.as_u128())
    }

    pub(crate) fn uuid(self) -> Uuid {
        Uuid::from_u128(self.0)
    }
}

impl RecordId {
    /// So many new ids, in order, of records made at this time one after the other.
    pub(crate) fn ascending(now: Timestamp, count: usize) -> Vec<Self> {
        let mut ids: Vec<_> = (0..count).map(|_| Self::at(now)).collect();
        ids.sort_unstable();
        ids
    }
}

fn parse(text: &str) -> Result<u128, BadId> {
    if text.len() != 32 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(BadId);
    }
    u128::from_str_radix(text, 16).map_err(|_| BadId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_being_written_and_read() {
        let id = ZoneId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ZoneId(7).to_string(), "00000000000000000000000000000007");
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "7",
            "0000000000000000000000000000000G",
            "+0000000000000000000000000000007",
            "ABCDEF00000000000000000000000007",
        ] {
            assert_eq!(text.parse::<AccountId>(), Err(BadId), "{text}");
        }
    }
}

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

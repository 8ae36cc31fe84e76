//! Datagrams of a connection over QUIC (section 8), as bytes: [`v2`], whose type is the last byte, and [`v3`], whose type is
//! the first.
//!
//! Which version a connection speaks follows from what its agent announced, for the connection's whole life. Of ICMP only
//! the frame is known here: neither end of ours carries it.

pub mod v2;
pub mod v3;

/// The feature with which an agent asks for version 3 (section 9.1); `support_datagram_v2` is always beside it.
pub const V3_FEATURE: &str = "support_datagram_v3_2";

/// Bytes of the longest payload that a stock end carries; it drops what is longer.
pub const STOCK_PAYLOAD: usize = 1280;

/// Which format the datagrams of a connection have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// Sessions are made by RPC.
    #[default]
    V2,
    /// Sessions are made by datagrams.
    V3,
}

impl Version {
    /// The version that an agent with these features speaks.
    pub fn from_features<'a>(features: impl IntoIterator<Item = &'a str>) -> Self {
        let newer = features.into_iter().any(|feature| feature == V3_FEATURE);
        if newer { Self::V3 } else { Self::V2 }
    }
}

/// Why a datagram was dropped unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It ends before its fixed part does.
    #[error("the datagram is too short for its type")]
    TooShort,
    /// A type, or an answer, that the version does not have.
    #[error("the datagram has the unknown type or code {0:#04x}")]
    Unknown(u8),
    /// A destination with port 0.
    #[error("the datagram's destination is no address")]
    Destination,
}

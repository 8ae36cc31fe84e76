//! Version 2 (section 8.1): what a datagram is about stands at its end.

use bytes::{BufMut as _, Bytes, BytesMut};
use uuid::Uuid;

use super::DatagramError;

/// Bytes that follow a session's payload: the session and the type.
pub const OVERHEAD: usize = ID + 1;

const ID: usize = 16;
/// Trace id, span id and flags.
const IDENTITY: usize = 25;

const PAYLOAD: u8 = 0;
const PACKET: u8 = 1;
const TRACED_PACKET: u8 = 2;
const SPANS: u8 = 3;

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// The payload of a session.
    Payload(Uuid, Bytes),
    /// An IP packet with ICMP.
    Packet(Bytes),
    /// The same with the identity of a trace behind it; to agents only.
    TracedPacket(Bytes, [u8; IDENTITY]),
    /// What a trace found, with its identity; to the edge only.
    Spans(Bytes, [u8; IDENTITY]),
}

impl Datagram {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Payload(session, payload) => self::payload(*session, payload),
            Self::Packet(packet) => joined(packet, &[], PACKET),
            Self::TracedPacket(packet, identity) => joined(packet, identity, TRACED_PACKET),
            Self::Spans(spans, identity) => joined(spans, identity, SPANS),
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is too short for its type, or of a type that there is not.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DatagramError> {
        let [kind] = cut(&mut bytes)?;
        Ok(match kind {
            PAYLOAD => {
                let session = cut::<ID>(&mut bytes)?;
                Self::Payload(Uuid::from_bytes(session), bytes)
            }
            PACKET => Self::Packet(bytes),
            TRACED_PACKET => {
                let identity = cut(&mut bytes)?;
                Self::TracedPacket(bytes, identity)
            }
            SPANS => {
                let identity = cut(&mut bytes)?;
                Self::Spans(bytes, identity)
            }
            other => return Err(DatagramError::Unknown(other)),
        })
    }
}

/// The datagram that carries a session's payload.
pub fn payload(session: Uuid, payload: &[u8]) -> Bytes {
    joined(payload, session.as_bytes(), PAYLOAD)
}

fn joined(content: &[u8], behind: &[u8], kind: u8) -> Bytes {
    let mut bytes = BytesMut::with_capacity(content.len() + behind.len() + 1);
    bytes.put_slice(content);
    bytes.put_slice(behind);
    bytes.put_u8(kind);
    bytes.freeze()
}

/// Cuts so many bytes off the end.
fn cut<const N: usize>(bytes: &mut Bytes) -> Result<[u8; N], DatagramError> {
    let start = bytes.len().checked_sub(N).ok_or(DatagramError::TooShort)?;
    <[u8; N]>::try_from(&bytes.split_off(start)[..]).map_err(|_| DatagramError::TooShort)
}

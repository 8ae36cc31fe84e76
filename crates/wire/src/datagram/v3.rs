//! Version 3 (section 8.2): what a datagram is about stands at its beginning, and sessions are made by datagrams, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use uuid::Uuid;

use super::DatagramError;

/// Bytes in front of a session's payload: the type and the session.
pub const OVERHEAD: usize = 1 + ID;

const ID: usize = 16;

const REGISTRATION: u8 = 0;
const PAYLOAD: u8 = 1;
const PACKET: u8 = 2;
const RESPONSE: u8 = 3;

const IPV6: u8 = 1 << 0;
const TRACED: u8 = 1 << 1;
const BUNDLED: u8 = 1 << 2;

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// Asks for a session; to agents only.
    Registration(Registration),
    /// The payload of a session.
    Payload(Uuid, Bytes),
    /// An IP packet with ICMP.
    Packet(Bytes),
    /// The answer to a registration; to the edge only.
    Response(Response),
}

/// Asks for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The session's id.
    pub session: Uuid,
    /// Where it leads.
    pub destination: SocketAddr,
    /// Whole seconds without a datagram after which it ends; zero leaves that to the agent.
    pub idle: Duration,
    /// Without effect.
    pub traced: bool,
    /// The first payload. The reference agent does not deliver it, so nobody relies on it.
    pub bundled: Option<Bytes>,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The session's id.
    pub session: Uuid,
    /// How it went.
    pub code: Code,
    /// More about it, for people; may be empty. Beyond 65,535 bytes it is cut.
    pub text: Bytes,
}

/// How a registration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The session is there.
    Ready,
    /// The destination cannot be reached.
    Unreachable,
    /// The socket could not be made.
    NoSocket,
    /// There are as many sessions as there may be.
    TooMany,
    /// Something else.
    Other,
}

impl Code {
    fn byte(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Unreachable => 1,
            Self::NoSocket => 2,
            Self::TooMany => 3,
            Self::Other => 0xff,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ready, Self::Unreachable, Self::NoSocket, Self::TooMany, Self::Other]
            .into_iter()
            .find(|code| code.byte() == byte)
    }
}

impl Datagram {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Registration(registration) => registration.encode(),
            Self::Payload(session, payload) => self::payload(*session, payload),
            Self::Packet(packet) => {
                let mut bytes = BytesMut::with_capacity(1 + packet.len());
                bytes.put_u8(PACKET);
                bytes.put_slice(packet);
                bytes.freeze()
            }
            Self::Response(response) => response.encode(),
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is too short for its type, or of a type or code that there is not.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DatagramError> {
        Ok(match bytes.try_get_u8().map_err(|_| DatagramError::TooShort)? {
            REGISTRATION => Self::Registration(Registration::decode(bytes)?),
            PAYLOAD => {
                let session = id(&mut bytes)?;
                Self::Payload(session, bytes)
            }
            PACKET => Self::Packet(bytes),
            RESPONSE => Self::Response(Response::decode(bytes)?),
            other => return Err(DatagramError::Unknown(other)),
        })
    }
}

/// The datagram that carries a session's payload.
pub fn payload(session: Uuid, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(OVERHEAD + payload.len());
    bytes.put_u8(PAYLOAD);
    bytes.put_slice(session.as_bytes());
    bytes.put_slice(payload);
    bytes.freeze()
}

impl Registration {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(64);
        let ip = self.destination.ip().to_canonical();
        let mut flags = if ip.is_ipv6() { IPV6 } else { 0 };
        if self.traced {
            flags |= TRACED;
        }
        if self.bundled.is_some() {
            flags |= BUNDLED;
        }
        bytes.put_u8(REGISTRATION);
        bytes.put_u8(flags);
        bytes.put_u16(self.destination.port());
        bytes.put_u16(u16::try_from(self.idle.as_secs()).unwrap_or(u16::MAX));
        bytes.put_slice(self.session.as_bytes());
        match ip {
            IpAddr::V4(ip) => bytes.put_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.put_slice(&ip.octets()),
        }
        if let Some(bundled) = &self.bundled {
            bytes.put_slice(bundled);
        }
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<Self, DatagramError> {
        let short = |_| DatagramError::TooShort;
        let flags = bytes.try_get_u8().map_err(short)?;
        let port = bytes.try_get_u16().map_err(short)?;
        let idle = bytes.try_get_u16().map_err(short)?;
        let session = id(&mut bytes)?;
        let ip: IpAddr = if flags & IPV6 == 0 {
            Ipv4Addr::from_bits(bytes.try_get_u32().map_err(short)?).into()
        } else {
            Ipv6Addr::from_bits(bytes.try_get_u128().map_err(short)?).to_canonical()
        };
        if port == 0 {
            return Err(DatagramError::Destination);
        }
        Ok(Self {
            session,
            destination: SocketAddr::new(ip, port),
            idle: Duration::from_secs(idle.into()),
            traced: flags & TRACED != 0,
            bundled: (flags & BUNDLED != 0).then_some(bytes),
        })
    }
}

impl Response {
    fn encode(&self) -> Bytes {
        let text = &self.text[..self.text.len().min(usize::from(u16::MAX))];
        let mut bytes = BytesMut::with_capacity(20 + text.len());
        bytes.put_u8(RESPONSE);
        bytes.put_u8(self.code.byte());
        bytes.put_slice(self.session.as_bytes());
        bytes.put_u16(u16::try_from(text.len()).expect("was cut to that"));
        bytes.put_slice(text);
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<Self, DatagramError> {
        let code = bytes.try_get_u8().map_err(|_| DatagramError::TooShort)?;
        let code = Code::from_byte(code).ok_or(DatagramError::Unknown(code))?;
        let session = id(&mut bytes)?;
        let length = usize::from(bytes.try_get_u16().map_err(|_| DatagramError::TooShort)?);
        if length > bytes.len() {
            return Err(DatagramError::TooShort);
        }
        Ok(Self { session, code, text: bytes.split_to(length) })
    }
}

fn id(bytes: &mut Bytes) -> Result<Uuid, DatagramError> {
    bytes.try_get_u128().map(Uuid::from_u128).map_err(|_| DatagramError::TooShort)
}

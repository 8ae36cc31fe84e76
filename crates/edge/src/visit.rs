use std::net::SocketAddr;

use http::{HeaderValue, Request};
use quinn::crypto::rustls::HandshakeData;
use rustls::{NamedGroup, ProtocolVersion, ServerConnection};
use wire::{Body, Interim, Kind};

/// One request of a visitor, whatever protocol it came by.
pub(crate) struct Visit {
    /// A request, or a WebSocket whose bytes are the two bodies.
    pub(crate) kind: Kind,
    /// As the visitor sent it. The first poll of its body is what asks a visitor for it who waits to be asked
    /// (`expect: 100-continue`).
    pub(crate) request: Request<Body>,
    /// Where interim answers of the origin go.
    pub(crate) interim: Interim,
    /// Who sent it.
    pub(crate) caller: Caller,
    /// [`Caller::address`]; made once for all requests of a connection.
    pub(crate) address: HeaderValue,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The visitor's address.
    pub(crate) remote: SocketAddr,
    /// How the connection is encrypted, if it is.
    pub(crate) tls: Option<Tls>,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The protocol's version.
    pub(crate) version: ProtocolVersion,
    /// The visitor has said which name it looks for.
    pub(crate) has_name: bool,
    /// How the keys were agreed on.
    pub(crate) key_exchange: KeyExchange,
}

/// How keys were agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyExchange {
    /// In this group.
    Group(NamedGroup),
    /// The library does not say.
    Untold,
}

impl Tls {
    /// Of a connection whose handshake is through.
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let group = connection.negotiated_key_exchange_group();
        Self {
            version: connection.protocol_version().unwrap_or(ProtocolVersion::TLSv1_3),
            has_name: connection.server_name().is_some(),
            key_exchange: group.map_or(KeyExchange::Untold, |group| KeyExchange::Group(group.name())),
        }
    }

    /// Of a QUIC connection, which has no other version.
    pub(crate) fn of_quic(connection: &quinn::Connection) -> Self {
        let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        Self {
            version: ProtocolVersion::TLSv1_3,
            has_name: handshake.is_some_and(|handshake| handshake.server_name.is_some()),
            key_exchange: KeyExchange::Untold,
        }
    }

    /// The version as people know it.
    pub(crate) fn version(self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }
}

impl Caller {
    /// Whether the connection is encrypted.
    pub(crate) fn is_secure(self) -> bool {
        self.tls.is_some()
    }

    /// The visitor's address as the origin is to see it.
    pub(crate) fn address(&self) -> HeaderValue {
        let address = self.remote.ip().to_canonical().to_string();
        HeaderValue::try_from(address).expect("digits, letters and their separators")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_as_what_it_is() {
        for (remote, told) in
            [("[::ffff:192.0.2.7]:1", "192.0.2.7"), ("192.0.2.7:1", "192.0.2.7"), ("[2001:db8::7]:1", "2001:db8::7")]
        {
            assert_eq!(Caller { remote: remote.parse().unwrap(), tls: None }.address(), told);
        }
    }
}

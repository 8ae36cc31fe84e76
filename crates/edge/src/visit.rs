use std::net::SocketAddr;

use http::{HeaderValue, Request};
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
    /// The connection is encrypted.
    pub(crate) secure: bool,
}

impl Caller {
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
            assert_eq!(Caller { remote: remote.parse().unwrap(), secure: true }.address(), told);
        }
    }
}

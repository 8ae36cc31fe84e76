use std::net::SocketAddr;

use http::Request;
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
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The visitor's address.
    pub(crate) remote: SocketAddr,
    /// The connection is encrypted.
    pub(crate) secure: bool,
}

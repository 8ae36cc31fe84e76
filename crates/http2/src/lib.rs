//! HTTP/2 (RFC 9113) over any byte stream, for both ends: a pure core ([`frame`], [`hpack`], [`core`]) that turns bytes into
//! streams and back, and the thin shell over tokio around it. [`client`] and [`server`] are the entries: each gives the
//! [`Driver`] that one task polls, and handles on the streams. [`Exchanges`] are what a server's task polls beside it.
//!
//! Made for connections that carry the requests of many: what a stream has to say is written straight into the connection's
//! next write, and what comes is handed out without a queue in between.
//!
//! Left out: server push and priorities (both deprecated), and what HTTP itself says of messages, but for the lengths of
//! requests: a server hands on no more and no less than what `content-length` says.

mod core;
mod driver;
mod error;
mod exchanges;
mod frame;
mod hpack;
mod rate;
mod stream;

pub use core::{Cut, Protocol, Settings};
pub use driver::{Driver, Handle, client, server};
pub use error::{Breach, Error, Reason};
pub use exchanges::{Event, Exchanges};
pub use rate::{Bucket, Rate};
pub use stream::{Accepted, RecvStream, SendStream};

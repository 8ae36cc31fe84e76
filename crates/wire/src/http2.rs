//! The HTTP/2 transport (sections 4 and 5): over a secured TCP stream that the agent has dialled.
//!
//! The agent is the HTTP/2 server on it and the edge the client, so that each request of a visitor is one stream.

pub mod agent;
pub mod edge;

mod duplex;
mod incoming;
mod link;
mod liveness;
mod outgoing;
mod read_ahead;
mod stream;

pub use read_ahead::ReadAhead;

pub(crate) use duplex::Duplex;
pub(crate) use incoming::Incoming;
pub(crate) use link::Link;

use ::http2::{Rate, Settings};

use crate::header::Limits;

/// Bytes of one stream's body that may wait for a reader of whom nothing is known yet, or who is slow: most answers go whole.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same, at either end, for a reader who takes them as they come. At a round trip of 100 ms it allows 10 MB/s for one stream; it
/// is also the window of the reference agent.
const WIDEST_STREAM_WINDOW: u32 = 1 << 20;

/// Bytes of all bodies together that may wait at this end of a connection. As many stalled readers as fit into it, each with
/// a full stream window, hold up everybody else on the connection: hence far more than a stream's. An agent has four connections,
/// and an edge many agents: hence not more than for a hundred such readers.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// What readers who take nothing may hold of it at the edge; the other half is for everybody else.
const HELD: usize = CONNECTION_WINDOW as usize / 2;

/// Bytes of the largest frame that either end takes: a body in fewer pieces costs less, and one of this size keeps nobody
/// waiting, for 5 ms at 100 Mbit/s.
const FRAME: u32 = 64 << 10;

/// A message head's fields as HTTP/2 counts them: that of the reference agent, and room for an origin's headers, which are
/// one field once they are serialized, twice.
const HEADER_LIST: u32 = 1 << 20;
const _: () = assert!(Limits::HEADERS.serialized() < HEADER_LIST as usize / 2);

/// Streams that either end may break before the connection ends for it: what an origin sends must not end it for others, and so
/// many do not come of an origin's mistakes.
const MISTAKES: Rate = Rate { burst: 10_000, per_second: 100 };

/// Frames of an agent that carry nothing and that nothing which the edge sends calls for; more end its connection. What comes
/// with requests, such as room for their bodies or streams that are not wanted any more, is called for and does not count, however
/// busy an agent is: what is left is settings, leaves and pings of its own, of which stock agents and ours send a few
/// a minute.
const IDLE_FRAMES: Rate = Rate { burst: 10_000, per_second: 1_000 };

/// What an agent allows the edge, whom it trusts: the edge takes back streams as fast as all of its visitors do together.
fn agent_settings(streams: u32) -> Settings {
    Settings { idle_frames: None, streams, ..edge_settings() }
}

/// What the edge allows an agent.
fn edge_settings() -> Settings {
    Settings {
        stream_window: STREAM_WINDOW,
        widest_stream_window: WIDEST_STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        frame: FRAME,
        header_list: HEADER_LIST,
        streams: 0,
        mistakes: MISTAKES,
        resets: None,
        idle_frames: Some(IDLE_FRAMES),
        extended_connect: false,
        cut_headers: false,
    }
}

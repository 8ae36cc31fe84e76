//! What attackers send and what must come of it, end to end: visitors, origins and agents that break every rule, against the
//! real edge and real agents over both transports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod conformance;
mod frames;
mod framing;
mod multiplexed;
mod siege;
mod strict;

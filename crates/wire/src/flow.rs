//! Flows of datagrams: UDP through the tunnel.
//!
//! Between our own ends a flow is a byte stream whose destination's name says that it is one ([`name`]), and whose bytes are
//! datagrams with their lengths ([`Framed`]). Over QUIC, what fits into a datagram of the connection goes as one
//! (section 8), with the flow's id as the session's; the stream carries the rest, and its end is the flow's. Towards
//! addresses, a flow is a session as the reference has it, over QUIC only, and has no stream.
//!
//! Nothing here waits for whoever is slow: what finds no room is dropped, as datagrams are.

mod framed;
pub(crate) mod name;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::flight::Ticket;
use crate::quic::Datagrams;
use crate::{ByteStream, Destination};
use framed::Framed;

/// Bytes of the longest datagram: what UDP over IPv4 can carry.
pub const MAX_DATAGRAM: usize = 65_507;

/// A flow of datagrams that a visitor wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRequest {
    /// Where it is to lead.
    pub destination: Destination,
    /// Names it in the logs of both ends; may be empty. Bytes beyond 128 are cut. Does not reach stock agents.
    pub flow: String,
    /// Time without a datagram after which the agent may end it by itself. `None`: the edge ends it.
    pub idle: Option<Duration>,
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Dropped {
    /// The connection takes datagrams more slowly than they come.
    #[error("there is no room for the datagram")]
    Full,
    /// It does not fit into what the way can carry.
    #[error("the datagram is too large for the way")]
    TooLarge,
    /// The flow has ended.
    #[error("the flow has ended")]
    Ended,
}

/// What an agent does with a flow that it has accepted: it gets the tunnel's end, and carries it. If it ends the flow by
/// itself, it says why.
pub type FlowService = Box<dyn FnOnce(Flow) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send>;

/// One end of a flow. Dropping it ends the flow.
pub struct Flow {
    /// The way through datagrams of the connection.
    datagrams: Option<Datagrams>,
    /// The way through a byte stream.
    stream: Option<Framed>,
    /// Counts as a request under way, if the stream does not.
    _ticket: Option<Ticket>,
}

impl Flow {
    /// At least one way must be there.
    pub(crate) fn new(datagrams: Option<Datagrams>, stream: Option<ByteStream>, ticket: Option<Ticket>) -> Self {
        Self { datagrams, stream: stream.map(Framed::new), _ticket: ticket }
    }

    /// Sends a datagram, which is on its way when [`Flow::recv`] is polled next.
    ///
    /// # Errors
    /// It was dropped, and why. Only [`Dropped::Ended`] concerns those that follow.
    pub fn send(&mut self, payload: Bytes) -> Result<(), Dropped> {
        let sent = match &self.datagrams {
            Some(datagrams) => datagrams.send(&payload),
            None => Err(Dropped::TooLarge),
        };
        match (sent, &mut self.stream) {
            (Err(Dropped::TooLarge), Some(stream)) => stream.send(&payload),
            (sent, _) => sent,
        }
    }

    /// The next datagram; `None`: the flow has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// How many datagrams came in and found no room, since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.datagrams.as_ref().map_or(0, Datagrams::take_lost)
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(datagrams) = &mut self.datagrams
            && let Poll::Ready(received) = datagrams.poll_recv(context)
        {
            return Poll::Ready(received);
        }
        match &mut self.stream {
            Some(stream) => stream.poll(context),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").finish_non_exhaustive()
    }
}

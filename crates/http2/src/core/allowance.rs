use tokio::time::Instant;

use crate::{Breach, Bucket, Rate};

/// Frames that a stream calls for beside its messages: a window for it and for the connection at its beginning and its end.
const OF_STREAM: u32 = 4;

/// Frames that one DATA frame calls for: room for as much again, on its stream and on the connection.
const OF_DATA: u32 = 2;

/// Bytes that call for one more: who takes a large frame in pieces may say so of each, on its stream and on the connection. Stock
/// agents do of each 4 KiB, and nobody is known who does of less than one.
const BYTES: usize = 512;

/// Of a stream that this end has reset, the other end may have this many bytes to a frame under way.
const LATE_BYTES: i64 = 256;

/// What has been called for and has not come is kept up to this: more is not under way at once.
const MOST: u32 = 100_000;

/// How many frames that carry nothing are let through: those that what this end has sent calls for, and of others a rate.
pub(super) struct Allowance {
    /// What has been called for.
    due: u32,
    others: Option<Bucket>,
}

impl Allowance {
    pub(super) fn new(others: Option<Rate>, now: Instant) -> Self {
        Self { due: 0, others: others.map(|rate| Bucket::new(rate, now)) }
    }

    /// There is one more stream.
    pub(super) fn opened(&mut self) {
        self.call(OF_STREAM);
    }

    /// So many bytes have gone in a frame.
    pub(super) fn sent(&mut self, length: usize) {
        self.call(OF_DATA + (length / BYTES) as u32);
    }

    /// A question that has an answer has gone.
    pub(super) fn asked(&mut self) {
        self.call(1);
    }

    /// A stream has been reset on which the other end had so much room left, and perhaps does not know it yet.
    pub(super) fn reset(&mut self, window: i64) {
        self.call(u32::try_from(window.max(0) / LATE_BYTES).unwrap_or(MOST));
    }

    fn call(&mut self, frames: u32) {
        self.due = self.due.saturating_add(frames).min(MOST);
    }

    /// A frame has come of a kind that may be called for.
    pub(super) fn expect(&mut self, now: Instant) -> Result<(), Breach> {
        match self.due.checked_sub(1) {
            Some(due) => {
                self.due = due;
                Ok(())
            }
            None => self.spend(now),
        }
    }

    /// A frame has come that nothing calls for.
    pub(super) fn spend(&mut self, now: Instant) -> Result<(), Breach> {
        let passes = self.others.as_mut().is_none_or(|others| others.take(now));
        if passes { Ok(()) } else { Err(Breach::Idle) }
    }
}

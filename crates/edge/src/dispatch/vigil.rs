use std::time::Duration;

use tokio::time::Instant;

use super::Carrier;

/// Most answers are here by then, and cost no look at the connection.
pub(crate) const FIRST_LOOK: Duration = Duration::from_millis(250);

/// Watches the connection of a request that has no answer yet.
pub(super) struct Vigil<'a, C> {
    carrier: &'a C,
    /// When to look next.
    due: Instant,
    /// The signs of life at the last look.
    seen: Option<u64>,
}

impl<'a, C: Carrier> Vigil<'a, C> {
    /// Begins with the request.
    pub(super) fn new(carrier: &'a C, now: Instant) -> Self {
        Self { carrier, due: now + FIRST_LOOK, seen: None }
    }

    /// When to look next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Looks, if it is time; whether the connection is doubted.
    pub(super) fn is_silent(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        let signs = self.carrier.signs_of_life();
        let is_silent = self.seen == Some(signs);
        if is_silent {
            self.carrier.doubt();
        }
        self.seen = Some(signs);
        self.due = now + self.carrier.ask_for_life();
        is_silent || self.carrier.is_doubted()
    }
}

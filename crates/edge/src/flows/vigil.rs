use tokio::time::Instant;

use crate::dispatch::{Carrier, FIRST_LOOK};

/// Watches the connection of a flow whose visitor has no answer. An origin need not answer, and to the origin a flow that
/// moves is another visitor: so it moves only if the connection gives no sign of life, asked for one twice, while another
/// one, asked the second time too, does.
///
/// ```text
///            said              due           no sign
/// Resting ──────────▶ Waiting ─────▶ Asked ───────────▶ Silent ─▶ leave: still no sign, and the other gave one
///    ▲                   │             │  ◀──────────────  │
///    └───────────────────┴─────────────┴───────────────────┘      neither gave one
///            answered, or a sign
/// ```
pub(super) struct Vigil<C> {
    carrier: C,
    state: State<C>,
}

enum State<C> {
    /// Nobody waits for anything.
    Resting,
    Waiting {
        due: Instant,
    },
    Asked {
        due: Instant,
        /// The signs of life until then.
        seen: u64,
    },
    /// Doubted, and compared with another connection.
    Silent {
        due: Instant,
        seen: u64,
        other: C,
        other_seen: u64,
    },
}

impl<C: Carrier + Clone> Vigil<C> {
    pub(super) fn new(carrier: C) -> Self {
        Self { carrier, state: State::Resting }
    }

    pub(super) fn carrier(&self) -> &C {
        &self.carrier
    }

    /// Something has gone to the agent.
    pub(super) fn said(&mut self, now: Instant) {
        if matches!(self.state, State::Resting) {
            self.state = State::Waiting { due: now + FIRST_LOOK };
        }
    }

    /// Something has come from it.
    pub(super) fn answered(&mut self) {
        self.state = State::Resting;
    }

    /// When to look next, if ever.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Resting => None,
            State::Waiting { due } | State::Asked { due, .. } | State::Silent { due, .. } => Some(due),
        }
    }

    /// Looks, if it is time; the connection that the flow is to leave this one for, which has just given a sign of life.
    /// `other` chooses one that is not doubted.
    pub(super) fn leaves_for(&mut self, now: Instant, other: impl FnOnce() -> Option<C>) -> Option<C> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        let signs = self.carrier.signs_of_life();
        match &self.state {
            State::Asked { seen, .. } | State::Silent { seen, .. } if *seen != signs => self.state = State::Resting,
            State::Silent { other, other_seen, .. } if *other_seen != other.signs_of_life() => {
                return Some(other.clone());
            }
            State::Resting | State::Waiting { .. } => {
                self.state = State::Asked { due: now + self.carrier.ask_for_life(), seen: signs };
            }
            State::Asked { seen, .. } | State::Silent { seen, .. } => {
                let (seen, mut due) = (*seen, now + self.carrier.ask_for_life());
                self.carrier.doubt();
                self.state = match other() {
                    None => State::Asked { due, seen },
                    Some(other) => {
                        let other_seen = other.signs_of_life();
                        due = due.max(now + other.ask_for_life());
                        State::Silent { due, seen, other, other_seen }
                    }
                };
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    use http::{Request, Response};
    use uuid::Uuid;
    use wire::{Body, ExchangeError, Interim, Kind};

    use super::*;
    use crate::dispatch::Identity;

    const ANSWER: Duration = Duration::from_secs(2);

    /// Gives a sign of life when it is asked for one, if it is alive.
    #[derive(Clone, Default)]
    struct Fake(Arc<(AtomicU64, AtomicBool, AtomicBool)>);

    impl Fake {
        fn alive() -> Self {
            let fake = Self::default();
            fake.live(true);
            fake
        }

        fn live(&self, alive: bool) {
            self.0.1.store(alive, Ordering::Relaxed);
        }

        fn sign(&self) {
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Carrier for Fake {
        fn identity(&self) -> Identity {
            Identity { connection: Uuid::nil(), connector: Uuid::nil() }
        }

        fn signs_of_life(&self) -> u64 {
            self.0.0.load(Ordering::Relaxed)
        }

        fn ask_for_life(&self) -> Duration {
            if self.0.1.load(Ordering::Relaxed) {
                self.sign();
            }
            ANSWER
        }

        fn doubt(&self) {
            self.0.2.store(true, Ordering::Relaxed);
        }

        fn is_doubted(&self) -> bool {
            self.0.2.load(Ordering::Relaxed)
        }

        async fn exchange(&self, _: Kind, _: Request<Body>, _: Interim) -> Result<Response<Body>, ExchangeError> {
            panic!("flows ask for nothing")
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// Looks whenever it is due, and tells when the flow leaves, if it does so within an hour in which its visitor goes on
    /// talking.
    fn leaves(vigil: &mut Vigil<Fake>, start: Instant, other: &Option<Fake>) -> Option<Duration> {
        let mut now = start;
        while now < start + HOUR {
            vigil.said(now);
            now = vigil.due().expect("something was said");
            if let Some(successor) = vigil.leaves_for(now, || other.clone()) {
                let other = other.as_ref().expect("it is left for another one");
                assert!(Arc::ptr_eq(&successor.0, &other.0), "for the one that gave a sign");
                return Some(now - start);
            }
        }
        None
    }

    #[test]
    fn a_silent_connection_is_left_for_one_that_answers() {
        let (own, other) = (Fake::default(), Some(Fake::alive()));
        let mut vigil = Vigil::new(own.clone());
        assert_eq!(leaves(&mut vigil, Instant::now(), &other), Some(FIRST_LOOK + 2 * ANSWER));
        assert!(own.is_doubted());
    }

    #[test]
    fn nobody_moves_because_an_origin_is_silent_or_all_are() {
        for (own, other) in [
            (Fake::alive(), Some(Fake::alive())),
            (Fake::alive(), None),
            (Fake::default(), None),
            (Fake::default(), Some(Fake::default())),
        ] {
            assert_eq!(leaves(&mut Vigil::new(own), Instant::now(), &other), None);
        }
    }

    #[test]
    fn whoever_gives_a_sign_at_last_is_stayed_with() {
        let (own, other) = (Fake::default(), Some(Fake::alive()));
        let mut vigil = Vigil::new(own.clone());
        let start = Instant::now();
        vigil.said(start);
        for _ in 0..2 {
            let due = vigil.due().unwrap();
            assert!(vigil.leaves_for(due, || other.clone()).is_none());
        }
        assert!(own.is_doubted());
        own.sign();
        let due = vigil.due().unwrap();
        assert!(vigil.leaves_for(due, || other.clone()).is_none());
        assert_eq!(vigil.due(), None);
    }

    #[test]
    fn an_answer_ends_the_wait_and_silence_of_the_visitor_begins_none() {
        let mut vigil = Vigil::new(Fake::default());
        let start = Instant::now();
        assert_eq!(vigil.due(), None);
        vigil.said(start);
        vigil.said(start + Duration::from_millis(100));
        assert_eq!(vigil.due(), Some(start + FIRST_LOOK), "from the first that nobody has answered");
        vigil.answered();
        assert_eq!(vigil.due(), None);
        assert!(vigil.leaves_for(start + 10 * ANSWER, || Some(Fake::alive())).is_none());
    }

    #[test]
    fn one_that_comes_later_is_gone_to() {
        let own = Fake::default();
        let mut vigil = Vigil::new(own);
        let start = Instant::now();
        assert_eq!(leaves(&mut vigil, start, &None), None);
        assert!(leaves(&mut vigil, start + HOUR, &Some(Fake::alive())).is_some());
    }
}

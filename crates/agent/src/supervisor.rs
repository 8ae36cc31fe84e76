//! Which connections are dialled, where to, how and when (section 12). Pure: time and outcomes come in, [`Action`]s go
//! out.
//!
//! A slot for each parallel connection goes round:
//!
//! ```text
//!            ┌────────────── failed, lost ◀──────────────┐
//!            ▼                                           │
//! Idle ─▶ Waiting ── its time has come ─▶ Dialling ── registered ─▶ Connected
//! ```
//!
//! Slot 0 goes first; the others stay `Idle` until it has registered once. While no connection stands, slot 0 looks for
//! the edge more often than the back-off would have it, and the first to find it wakes the others.

mod places;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::Transport;

pub(crate) use places::Places;

/// A lost connection comes back within this time: soon, but not all agents of a restarted edge in one instant.
const RECONNECT_WINDOW: Duration = Duration::from_millis(500);
/// The others follow the first within this time.
const FOLLOW_WINDOW: Duration = Duration::from_millis(250);
/// The window of the pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The widest window. Half a minute keeps a fleet from hurting an edge that comes back.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// The widest window of slot 0 while no connection stands: visitors are refused meanwhile, so that the end of an outage
/// is found within seconds. One dial in about four seconds is nothing to an edge, and the other slots keep to
/// [`LONGEST_PAUSE`].
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a refusal that nothing but a person can mend.
const PERMANENT_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that an edge may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// A connection that lived this long worked; what lived shorter counts as a failure, so that one that is dropped at
/// once is not redialled in a tight loop.
const WORKED: Duration = Duration::from_secs(10);
/// QUIC connections that come to nothing in a row before HTTP/2 is tried: on some paths the handshake passes and full
/// packets do not.
const QUIC_CHANCES: u32 = 3;
/// How long QUIC is left alone after it failed where HTTP/2 worked.
pub(crate) const FALLBACK_LIFETIME: Duration = Duration::from_secs(3600);

/// How to choose between the transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// QUIC, and HTTP/2 where QUIC does not get through.
    #[default]
    Auto,
    /// HTTP/2 only.
    Http2,
    /// QUIC only.
    Quic,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial and register. Answer with [`Supervisor::registered`], [`Supervisor::dial_failed`] or
    /// [`Supervisor::refused`].
    Dial {
        index: u8,
        /// An index into the places.
        place: usize,
        transport: Transport,
        /// Failed attempts since the connection last worked.
        previous_attempts: u8,
    },
    /// QUIC failed where HTTP/2 works: say it and remember it.
    FellBack,
    /// QUIC works: forget a fallback.
    QuicWorks,
}

/// What an edge's refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another address (`EDUPCONN`).
    Elsewhere,
    /// Coming back after a time.
    Later(Duration),
    /// Coming back with the usual back-off, for the tunnel may appear soon (`Unauthorized`).
    Again,
    /// There was no answer: the same, and after some failures the other transport.
    NoAnswer,
    /// Nothing that the agent can do.
    Permanent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// `firm`: nothing but time ends it. The edge named it, or only a person can help, or the edge is there and drops
    /// what it has registered.
    Waiting {
        until: Instant,
        firm: bool,
    },
    Dialling(Transport),
    Connected {
        transport: Transport,
        since: Instant,
    },
}

#[derive(Debug)]
struct Slot {
    state: State,
    place: Option<usize>,
    failures: u32,
    /// Connections in a row that did not live.
    drops: u32,
    /// QUIC has just come to nothing, so the next attempt may be HTTP/2.
    quic_failed: bool,
}

impl State {
    fn waiting(until: Instant) -> Self {
        Self::Waiting { until, firm: false }
    }
}

/// Decides for all connections of one agent.
pub(crate) struct Supervisor {
    protocol: Protocol,
    slots: Vec<Slot>,
    places: Places,
    fallback_until: Option<Instant>,
    quic_told: bool,
    actions: Vec<Action>,
    random: StdRng,
}

impl Supervisor {
    /// Starts with slot 0. `fallback`: how much longer QUIC is to be left alone, remembered from an earlier run.
    pub(crate) fn new(
        protocol: Protocol,
        connections: u8,
        places: Places,
        fallback: Option<Duration>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let idle = || Slot { state: State::Idle, place: None, failures: 0, drops: 0, quic_failed: false };
        let mut slots: Vec<Slot> = (0..connections.max(1)).map(|_| idle()).collect();
        slots[0].state = State::waiting(now);
        Self {
            protocol,
            slots,
            places,
            fallback_until: fallback.map(|left| now + left.min(FALLBACK_LIFETIME)),
            quic_told: false,
            actions: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The places have been looked up again. `moved` says where each old place is among the new ones; connections stay
    /// where they are.
    pub(crate) fn replace_places(&mut self, places: Places, moved: &[Option<usize>]) {
        self.places = places;
        for slot in &mut self.slots {
            slot.place = slot.place.and_then(|place| moved.get(place).copied().flatten());
        }
    }

    /// What to do now, in order.
    pub(crate) fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() {
            for index in 0..self.slots.len() {
                if matches!(self.slots[index].state, State::Waiting { until, .. } if until <= now) {
                    self.dial(index, now);
                }
            }
        }
        (!self.actions.is_empty()).then(|| self.actions.remove(0))
    }

    /// When to ask again, if nothing happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = |slot: &Slot| match slot.state {
            State::Waiting { until, .. } => Some(until),
            State::Idle | State::Dialling(_) | State::Connected { .. } => None,
        };
        self.slots.iter().filter_map(waiting).min()
    }

    /// A dial brought a registered connection.
    pub(crate) fn registered(&mut self, index: u8, now: Instant) {
        let ends_outage = self.none_stands();
        let Some((slot, transport)) = self.dialling(index) else { return };
        let after_quic_failed = slot.quic_failed;
        slot.quic_failed = false;
        slot.state = State::Connected { transport, since: now };
        match transport {
            Transport::Http2 if after_quic_failed && self.may_fall_back() => {
                self.fallback_until = Some(now + FALLBACK_LIFETIME);
                self.quic_told = false;
                self.actions.push(Action::FellBack);
            }
            Transport::Quic if !self.quic_told => {
                self.quic_told = true;
                self.fallback_until = None;
                self.actions.push(Action::QuicWorks);
            }
            Transport::Http2 | Transport::Quic => {}
        }
        if ends_outage {
            for index in 0..self.slots.len() {
                self.hurry(index, FOLLOW_WINDOW, now);
            }
        }
    }

    /// A dial did not get through: TCP, TLS or the QUIC handshake.
    pub(crate) fn dial_failed(&mut self, index: u8, now: Instant) {
        let Some((slot, transport)) = self.dialling(index) else { return };
        slot.failures += 1;
        let first_quic_failure = transport == Transport::Quic && !slot.quic_failed;
        slot.quic_failed = first_quic_failure;
        // Another transport is no repetition, so it needs no pause.
        let pause = if first_quic_failure && self.may_fall_back() { Duration::ZERO } else { self.unreached(index) };
        if !pause.is_zero() {
            self.leave_place(index);
        }
        self.slots[usize::from(index)].state = State::waiting(now + pause);
    }

    /// The edge was reached, and did not register the connection.
    pub(crate) fn refused(&mut self, index: u8, refusal: Refusal, now: Instant) {
        let Some((slot, transport)) = self.dialling(index) else { return };
        slot.failures += 1;
        slot.quic_failed =
            refusal == Refusal::NoAnswer && transport == Transport::Quic && slot.failures >= QUIC_CHANCES;
        let pause = match refusal {
            Refusal::Elsewhere => {
                self.leave_place(index);
                self.backoff(index)
            }
            Refusal::Later(pause) => {
                let asked = pause.min(LONGEST_RETRY_AFTER);
                // However short a time the edge names, again and again in vain is no reason to hurry.
                self.within(asked, asked + asked / 8).max(self.backoff(index))
            }
            Refusal::Again => self.backoff(index),
            Refusal::NoAnswer => self.unreached(index),
            Refusal::Permanent => self.within(PERMANENT_PAUSE / 2, PERMANENT_PAUSE),
        };
        let firm = matches!(refusal, Refusal::Later(_) | Refusal::Permanent);
        self.slots[usize::from(index)].state = State::Waiting { until: now + pause, firm };
    }

    /// A registered connection has ended.
    pub(crate) fn lost(&mut self, index: u8, now: Instant) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        let State::Connected { transport, since } = slot.state else { return };
        let worked = now.saturating_duration_since(since) >= WORKED;
        let pause = if worked {
            (slot.failures, slot.drops) = (0, 0);
            self.within(Duration::ZERO, RECONNECT_WINDOW)
        } else {
            // Dials that failed before it was registered say nothing about it.
            slot.drops += 1;
            slot.failures = slot.drops;
            slot.quic_failed = transport == Transport::Quic && slot.failures >= QUIC_CHANCES;
            self.backoff(index)
        };
        self.slots[usize::from(index)].state = State::Waiting { until: now + pause, firm: !worked };
        if self.none_stands() {
            self.hurry(0, LONGEST_OUTAGE_PAUSE, now);
        }
    }

    fn none_stands(&self) -> bool {
        !self.slots.iter().any(|slot| matches!(slot.state, State::Connected { .. }))
    }

    /// Lets a slot that waits, or has not begun, dial within this window, unless it is to wait whatever happens.
    fn hurry(&mut self, index: usize, window: Duration, now: Instant) {
        let soon = now + self.within(Duration::ZERO, window);
        let state = &mut self.slots[index].state;
        match *state {
            State::Idle => *state = State::waiting(soon),
            State::Waiting { until, firm: false } => *state = State::waiting(until.min(soon)),
            State::Waiting { firm: true, .. } | State::Dialling(_) | State::Connected { .. } => {}
        }
    }

    fn dial(&mut self, index: usize, now: Instant) {
        let transport = self.transport_for(index, now);
        let place = match self.slots[index].place {
            Some(place) => place,
            None => self.free_place(index),
        };
        let slot = &mut self.slots[index];
        slot.place = Some(place);
        slot.state = State::Dialling(transport);
        self.actions.push(Action::Dial {
            index: u8::try_from(index).expect("slots are counted by a u8"),
            place,
            transport,
            previous_attempts: u8::try_from(slot.failures).unwrap_or(u8::MAX),
        });
    }

    fn transport_for(&mut self, index: usize, now: Instant) -> Transport {
        if self.fallback_until.is_some_and(|until| until <= now) {
            self.fallback_until = None;
        }
        match self.protocol {
            Protocol::Http2 => Transport::Http2,
            Protocol::Quic => Transport::Quic,
            Protocol::Auto if self.fallback_until.is_some() => Transport::Http2,
            Protocol::Auto if self.slots[index].quic_failed && self.may_fall_back() => Transport::Http2,
            Protocol::Auto => Transport::Quic,
        }
    }

    /// While any connection stands over QUIC, a failure is the place's and not the network's.
    fn may_fall_back(&self) -> bool {
        let over_quic = |slot: &Slot| matches!(slot.state, State::Connected { transport: Transport::Quic, .. });
        self.protocol == Protocol::Auto && !self.slots.iter().any(over_quic)
    }

    /// The least used place; among equals one of the region that is used least.
    fn free_place(&mut self, index: usize) -> usize {
        let used: Vec<usize> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .filter_map(|(_, slot)| slot.place)
            .collect();
        self.places.choose(&used, &mut self.random)
    }

    /// Gives the place up for another, unless all others are much fuller: so the last connection of a dead place goes
    /// on trying it, and finds the node when it is back.
    fn leave_place(&mut self, index: u8) {
        let index = usize::from(index);
        // Its own place counts twice, so that one which is as full is preferred.
        let used: Vec<usize> = self.slots.iter().filter_map(|slot| slot.place).chain(self.slots[index].place).collect();
        let next = self.places.choose(&used, &mut self.random);
        self.slots[index].place = Some(next);
    }

    fn dialling(&mut self, index: u8) -> Option<(&mut Slot, Transport)> {
        let slot = self.slots.get_mut(usize::from(index))?;
        match slot.state {
            State::Dialling(transport) => Some((slot, transport)),
            State::Idle | State::Waiting { .. } | State::Connected { .. } => None,
        }
    }

    /// A pause in the upper half of a window that doubles with each failure.
    fn backoff(&mut self, index: u8) -> Duration {
        let failures = self.slots[usize::from(index)].failures;
        let window = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
        self.within(window / 2, window)
    }

    /// The pause after a dial that found no edge.
    fn unreached(&mut self, index: u8) -> Duration {
        let pause = self.backoff(index);
        if index > 0 || pause <= LONGEST_OUTAGE_PAUSE || !self.none_stands() {
            return pause;
        }
        self.within(LONGEST_OUTAGE_PAUSE / 2, LONGEST_OUTAGE_PAUSE)
    }

    fn within(&mut self, from: Duration, to: Duration) -> Duration {
        from + (to - from).mul_f64(self.random.random_range(0.0..1.0))
    }
}

#[cfg(test)]
mod tests;

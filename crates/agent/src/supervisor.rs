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
/// Connections elsewhere that are enough for one to wait for its node: as many as a tunnel has to have to be safe.
const ENOUGH: usize = 2;
/// How often the window doubles unless told otherwise: half a minute at its widest keeps a fleet from hurting an edge
/// that comes back.
const DOUBLINGS: u32 = 5;
/// The widest window that can be asked for; who waits longer is taken for dead.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The widest window of slot 0 while no connection stands: visitors are refused meanwhile, so that the end of an outage
/// is found within seconds. One dial in about four seconds is nothing to an edge, and the other slots keep to
/// the back-off.
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a refusal that nothing but a person can mend.
const PERMANENT_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that an edge may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// A connection that lived this long worked; what lived shorter counts as a failure, so that one that is dropped at
/// once is not redialled in a tight loop.
const WORKED: Duration = Duration::from_secs(10);
/// What HTTP/2 leaves to QUIC when a connection over QUIC has just died of silence: QUIC needs one round trip, HTTP/2
/// two after this, so that a working QUIC wins on any path.
const SHORT_HEAD_START: Duration = Duration::from_millis(250);
/// The same where nothing speaks against QUIC: its first packet may be lost, and is sent again after a second.
const HEAD_START: Duration = Duration::from_millis(1500);
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

/// What the supervisor is to keep to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) protocol: Protocol,
    pub(crate) connections: u8,
    /// How often the window of the pauses doubles, from one second.
    pub(crate) retries: Option<u32>,
    /// QUIC may fail this often in a row before HTTP/2 is dialled at all; without it, HTTP/2 is dialled beside QUIC.
    pub(crate) max_edge_addr_retries: Option<u32>,
    /// How much longer QUIC is to be left alone, remembered from an earlier run.
    pub(crate) fallback: Option<Duration>,
}

/// How one attempt goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By this transport, and no other.
    By(Transport),
    /// By QUIC, and by HTTP/2 beside it after the head start or as soon as QUIC has failed; the first whose handshakes
    /// are done is registered. When that is HTTP/2, the attempt by QUIC goes on, for [`Supervisor::quic_judged`].
    Race { head_start: Duration },
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
        way: Way,
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
    Dialling(Way),
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
    /// Handshakes of QUIC come to nothing, so the next attempt may be HTTP/2 alone.
    quic_failed: bool,
    /// A connection over QUIC has died of silence, and none has been made since.
    doubtful: bool,
}

impl State {
    fn waiting(until: Instant) -> Self {
        Self::Waiting { until, firm: false }
    }
}

/// Decides for all connections of one agent.
pub(crate) struct Supervisor {
    protocol: Protocol,
    /// Failures in a row that QUIC has for itself before HTTP/2 is dialled beside it.
    quic_alone: u32,
    longest_pause: Duration,
    slots: Vec<Slot>,
    places: Places,
    fallback_until: Option<Instant>,
    quic_told: bool,
    actions: Vec<Action>,
    random: StdRng,
}

impl Supervisor {
    /// Starts with slot 0.
    pub(crate) fn new(plan: &Plan, places: Places, seed: u64, now: Instant) -> Self {
        let idle =
            || Slot { state: State::Idle, place: None, failures: 0, drops: 0, quic_failed: false, doubtful: false };
        let mut slots: Vec<Slot> = (0..plan.connections.max(1)).map(|_| idle()).collect();
        slots[0].state = State::waiting(now);
        Self {
            protocol: plan.protocol,
            quic_alone: plan.max_edge_addr_retries.map_or(0, |retries| retries.saturating_add(1)),
            longest_pause: doubled(FIRST_PAUSE, plan.retries.unwrap_or(DOUBLINGS)).min(LONGEST_PAUSE),
            slots,
            places,
            fallback_until: plan.fallback.map(|left| now + left.min(FALLBACK_LIFETIME)),
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

    /// A dial brought a registered connection, by this transport.
    pub(crate) fn registered(&mut self, index: u8, transport: Transport, now: Instant) {
        let ends_outage = self.none_stands();
        let Some(slot) = self.dialling(index) else { return };
        let after_quic_failed = slot.quic_failed;
        (slot.quic_failed, slot.doubtful) = (false, false);
        slot.state = State::Connected { transport, since: now };
        match transport {
            Transport::Http2 if after_quic_failed => self.fall_back(now),
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

    /// HTTP/2 won a race, and now it is known whether QUIC gets through as well.
    pub(crate) fn quic_judged(&mut self, passes: bool, now: Instant) {
        if !passes && self.fallback_until.is_none() {
            self.fall_back(now);
        }
    }

    fn fall_back(&mut self, now: Instant) {
        if self.may_fall_back() {
            self.fallback_until = Some(now + FALLBACK_LIFETIME);
            self.quic_told = false;
            self.actions.push(Action::FellBack);
        }
    }

    /// A dial did not get through: TCP, TLS or the QUIC handshake, or in a race all of them.
    pub(crate) fn dial_failed(&mut self, index: u8, now: Instant) {
        let Some(slot) = self.dialling(index) else { return };
        slot.failures += 1;
        let way = slot.state;
        // Another transport is no repetition, so it needs no pause.
        let pause = if way == State::Dialling(Way::By(Transport::Quic)) && self.may_race(index) {
            Duration::ZERO
        } else {
            self.unreached(index)
        };
        if !pause.is_zero() {
            self.leave_place(index);
        }
        self.slots[usize::from(index)].state = State::waiting(now + pause);
    }

    /// The edge was reached by this transport, and did not register the connection.
    pub(crate) fn refused(&mut self, index: u8, transport: Transport, refusal: Refusal, now: Instant) {
        let Some(slot) = self.dialling(index) else { return };
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

    /// A registered connection has ended. `silent`: because nothing was heard on it any more.
    pub(crate) fn lost(&mut self, index: u8, silent: bool, now: Instant) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        let State::Connected { transport, since } = slot.state else { return };
        slot.doubtful = silent && transport == Transport::Quic;
        let worked = now.saturating_duration_since(since) >= WORKED;
        slot.drops = if worked { 0 } else { slot.drops + 1 };
        // Dials that failed before it was registered say nothing about it.
        slot.failures = slot.drops;
        slot.quic_failed = transport == Transport::Quic && slot.failures >= QUIC_CHANCES;
        // Silence takes its time to be noticed, so that dialling again at once is no tight loop.
        let soon = worked || silent;
        let pause = if soon { self.within(Duration::ZERO, RECONNECT_WINDOW) } else { self.backoff(index) };
        self.slots[usize::from(index)].state = State::Waiting { until: now + pause, firm: !soon };
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
        let way = self.way_for(index, now);
        let place = match self.slots[index].place {
            Some(place) => place,
            None => self.free_place(index),
        };
        let slot = &mut self.slots[index];
        slot.place = Some(place);
        slot.state = State::Dialling(way);
        self.actions.push(Action::Dial {
            index: u8::try_from(index).expect("slots are counted by a u8"),
            place,
            way,
            previous_attempts: u8::try_from(slot.failures).unwrap_or(u8::MAX),
        });
    }

    fn way_for(&mut self, index: usize, now: Instant) -> Way {
        if self.fallback_until.is_some_and(|until| until <= now) {
            self.fallback_until = None;
        }
        let slot = &self.slots[index];
        match self.protocol {
            Protocol::Http2 => Way::By(Transport::Http2),
            Protocol::Quic => Way::By(Transport::Quic),
            Protocol::Auto if self.fallback_until.is_some() => Way::By(Transport::Http2),
            Protocol::Auto if slot.quic_failed && self.may_fall_back() => Way::By(Transport::Http2),
            Protocol::Auto if slot.failures < self.quic_alone => Way::By(Transport::Quic),
            Protocol::Auto if slot.doubtful => Way::Race { head_start: SHORT_HEAD_START },
            Protocol::Auto if self.may_fall_back() => Way::Race { head_start: HEAD_START },
            Protocol::Auto => Way::By(Transport::Quic),
        }
    }

    fn may_race(&self, index: u8) -> bool {
        let slot = &self.slots[usize::from(index)];
        slot.failures >= self.quic_alone && (slot.doubtful || self.may_fall_back())
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

    /// Gives the place up for another, unless all others are much fuller. The last connection of a dead place goes on
    /// trying it while enough others stand, and finds the node when it is back: nobody else would, and what comes to that
    /// node would find no connection there.
    fn leave_place(&mut self, index: u8) {
        let index = usize::from(index);
        let own = self.slots[index].place;
        let others = || self.slots.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, slot)| slot);
        let places: Vec<usize> = others().filter_map(|slot| slot.place).collect();
        let is_last = own.is_some_and(|own| !places.contains(&own));
        let stand = others().filter(|slot| matches!(slot.state, State::Connected { .. })).count();
        if is_last && stand >= ENOUGH && self.places.all_in(&places, own) {
            return;
        }
        // Its own place counts twice, so that one which is as full is preferred.
        let used: Vec<usize> = self.slots.iter().filter_map(|slot| slot.place).chain(self.slots[index].place).collect();
        let next = self.places.choose(&used, &mut self.random);
        self.slots[index].place = Some(next);
    }

    fn dialling(&mut self, index: u8) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::from(index))?;
        matches!(slot.state, State::Dialling(_)).then_some(slot)
    }

    /// A pause in the upper half of a window that doubles with each failure.
    fn backoff(&mut self, index: u8) -> Duration {
        let failures = self.slots[usize::from(index)].failures;
        let window = doubled(FIRST_PAUSE, failures.saturating_sub(1)).min(self.longest_pause);
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

fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;

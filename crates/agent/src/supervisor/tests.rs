//! Stories in virtual time, and a random walk against the rules that must always hold.

use std::collections::BTreeMap;

use super::*;

const QUIC_LIMIT: Duration = Duration::from_secs(4);

/// An agent and a network that answers its dials.
struct World {
    supervisor: Supervisor,
    start: Instant,
    now: Instant,
    /// Dials under way: when they end, by which transport, and how.
    under_way: BTreeMap<u8, (Instant, Transport, Outcome)>,
    /// What will be known of QUIC where HTTP/2 has won, and when.
    judgements: Vec<(Instant, bool)>,
    /// Attempts by a transport. A race may be two.
    log: Vec<(Duration, u8, usize, Transport)>,
    said: Vec<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Registered,
    Failed,
    Refused(Refusal),
}

impl World {
    fn new(protocol: Protocol, connections: u8, regions: &[usize], fallback: Option<Duration>) -> Self {
        Self::seeded(protocol, connections, regions, fallback, 7)
    }

    fn seeded(protocol: Protocol, connections: u8, regions: &[usize], fallback: Option<Duration>, seed: u64) -> Self {
        Self::planned(&Plan { protocol, connections, fallback, ..Plan::default() }, regions, seed)
    }

    fn planned(plan: &Plan, regions: &[usize], seed: u64) -> Self {
        let start = Instant::now();
        let supervisor = Supervisor::new(plan, Places::new(regions.to_vec()), seed, start);
        let (under_way, judgements) = (BTreeMap::new(), Vec::new());
        Self { supervisor, start, now: start, under_way, judgements, log: Vec::new(), said: Vec::new() }
    }

    /// Lets time pass; `network` says how long a dial takes and how it ends.
    fn run(&mut self, duration: Duration, mut network: impl FnMut(u8, usize, Transport) -> (Duration, Outcome)) {
        let end = self.now + duration;
        loop {
            while let Some(action) = self.supervisor.poll_action(self.now) {
                match action {
                    Action::Dial { index, place, way, .. } => {
                        let (time, transport, outcome) = self.dial(index, place, way, &mut network);
                        let before = self.under_way.insert(index, (self.now + time, transport, outcome));
                        assert_eq!(before, None, "slot {index} was dialled twice at once");
                    }
                    said => self.said.push(said),
                }
            }
            let ends = self.under_way.iter().map(|(index, (at, ..))| (*at, Some(*index))).min();
            let judged = self.judgements.iter().map(|(at, _)| (*at, None)).min();
            let wakes = self.supervisor.poll_timeout().map(|at| (at, None));
            let next = ends.into_iter().chain(judged).chain(wakes).min();
            let Some((at, ended)) = next.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            let now = self.now;
            for (_, passes) in self.judgements.extract_if(.., |(at, _)| *at <= now) {
                self.supervisor.quic_judged(passes, now);
            }
            if let Some(index) = ended {
                let (_, transport, outcome) = self.under_way.remove(&index).unwrap();
                match outcome {
                    Outcome::Registered => self.supervisor.registered(index, transport, now),
                    Outcome::Failed => self.supervisor.dial_failed(index, now),
                    Outcome::Refused(refusal) => self.supervisor.refused(index, transport, refusal, now),
                }
            }
        }
        self.now = end;
    }

    /// How long an attempt takes, what it ends by and how. Handshakes take no time here, so that QUIC wins unless it
    /// fails.
    fn dial(
        &mut self,
        index: u8,
        place: usize,
        way: Way,
        mut network: impl FnMut(u8, usize, Transport) -> (Duration, Outcome),
    ) -> (Duration, Transport, Outcome) {
        let since = self.now - self.start;
        let (transport, head_start) = match way {
            Way::By(transport) => (transport, None),
            Way::Race { head_start } => (Transport::Quic, Some(head_start)),
        };
        self.log.push((since, index, place, transport));
        let (time, outcome) = network(index, place, transport);
        let Some(head_start) = head_start.filter(|_| outcome == Outcome::Failed) else {
            return (time, transport, outcome);
        };
        let begins = head_start.min(time);
        self.log.push((since + begins, index, place, Transport::Http2));
        let (more, outcome) = network(index, place, Transport::Http2);
        if outcome == Outcome::Failed {
            return ((begins + more).max(time), Transport::Http2, outcome);
        }
        self.judgements.push((self.now + time, false));
        (begins + more, Transport::Http2, outcome)
    }

    /// All connections end, as when the edge does.
    fn lose_all(&mut self, silent: bool) {
        for index in 0..self.supervisor.slots.len() {
            self.supervisor.lost(u8::try_from(index).unwrap(), silent, self.now);
        }
    }

    fn connected(&self) -> usize {
        self.supervisor.slots.iter().filter(|slot| matches!(slot.state, State::Connected { .. })).count()
    }

    fn dials(&self, index: u8) -> Vec<Duration> {
        self.log.iter().filter(|(_, slot, ..)| *slot == index).map(|(at, ..)| *at).collect()
    }
}

fn works(_: u8, _: usize, _: Transport) -> (Duration, Outcome) {
    (Duration::from_millis(20), Outcome::Registered)
}

fn udp_blocked(_: u8, _: usize, transport: Transport) -> (Duration, Outcome) {
    match transport {
        Transport::Quic => (QUIC_LIMIT, Outcome::Failed),
        Transport::Http2 => (Duration::from_millis(20), Outcome::Registered),
    }
}

fn down(_: u8, _: usize, _: Transport) -> (Duration, Outcome) {
    (Duration::from_millis(1), Outcome::Failed)
}

#[test]
fn the_first_goes_first_and_the_others_follow() {
    let mut world = World::new(Protocol::Auto, 4, &[0, 1, 0, 1], None);
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.connected(), 4);
    assert_eq!(world.log[0].1, 0);
    assert!(world.log[1..].iter().all(|(at, ..)| *at >= Duration::from_millis(20)));
    let mut places: Vec<usize> = world.log.iter().map(|(_, _, place, _)| *place).collect();
    assert_ne!(places[0] % 2, places[1] % 2, "the second connection is in the other region");
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3], "each has a place of its own");
}

#[test]
fn fewer_places_than_connections_are_shared_evenly() {
    let mut world = World::new(Protocol::Quic, 4, &[0, 1], None);
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.log.iter().filter(|(_, _, place, _)| *place == 0).count(), 2);
    let mut world = World::new(Protocol::Quic, 4, &[0], None);
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.connected(), 4);
}

#[test]
fn where_udp_is_blocked_http2_is_there_within_two_seconds_and_said_once() {
    let mut world = World::new(Protocol::Auto, 4, &[0, 1], None);
    world.run(HEAD_START + Duration::from_millis(100), udp_blocked);
    assert_eq!((world.connected(), &world.said[..]), (1, &[][..]), "QUIC has not failed yet");
    world.run(Duration::from_secs(2), udp_blocked);
    assert_eq!(world.connected(), 4);
    world.run(Duration::from_secs(4), udp_blocked);
    assert_eq!(world.said, [Action::FellBack]);
}

#[test]
fn udp_that_is_blocked_midway_costs_less_than_a_second() {
    for seed in 0..50 {
        let mut world = World::seeded(Protocol::Auto, 4, &[0, 1], None, seed);
        world.run(Duration::from_secs(60), works);
        // Each finds out when its own time is over.
        for index in 0..4 {
            world.supervisor.lost(index, true, world.now);
            world.run(Duration::from_millis(300), udp_blocked);
        }
        world.run(Duration::from_millis(700), udp_blocked);
        assert_eq!((world.connected(), &world.said[..]), (4, &[Action::QuicWorks][..]), "seed {seed}");
        world.run(QUIC_LIMIT, udp_blocked);
        assert_eq!(world.said, [Action::QuicWorks, Action::FellBack], "seed {seed}");
        // It is remembered.
        let before = world.log.len();
        world.lose_all(false);
        world.run(Duration::from_secs(1), works);
        assert!(world.log[before..].iter().all(|(.., transport)| *transport == Transport::Http2), "seed {seed}");
    }
}

#[test]
fn silence_with_quic_intact_changes_nothing() {
    let mut world = World::new(Protocol::Auto, 4, &[0, 1], None);
    world.run(Duration::from_secs(60), works);
    world.lose_all(true);
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.connected(), 4);
    assert!(world.log.iter().all(|(.., transport)| *transport == Transport::Quic), "{:?}", world.log);
    // QUIC that was only slow is not given up for an hour.
    world.supervisor.quic_judged(true, world.now);
    world.lose_all(false);
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.log.last().unwrap().3, Transport::Quic);
    assert_eq!(world.said, [Action::QuicWorks]);
}

#[test]
fn connections_that_die_of_silence_soon_lead_to_http2() {
    // The handshake and the registration get through, and nothing after them.
    let mut world = World::new(Protocol::Auto, 1, &[0], None);
    for _ in 0..QUIC_CHANCES {
        world.run(Duration::from_secs(6), works);
        assert_eq!(world.log.last().unwrap().3, Transport::Quic);
        world.supervisor.lost(0, true, world.now);
    }
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.log.last().unwrap().3, Transport::Http2);
}

#[test]
fn retries_widen_the_pauses_and_those_of_addresses_delay_http2() {
    let plan =
        |retries, max_edge_addr_retries| Plan { connections: 2, retries, max_edge_addr_retries, ..Plan::default() };
    // The second of two connections, whose place is dead, dials as often as the pauses let it.
    let dials = |retries| {
        let mut world = World::planned(&Plan { protocol: Protocol::Http2, ..plan(retries, None) }, &[0, 1], 7);
        let mut first = None;
        world.run(Duration::from_secs(1000), |index, place, transport| {
            let alive = *first.get_or_insert(place);
            if place == alive && index == 0 { works(index, place, transport) } else { down(index, place, transport) }
        });
        world.dials(1).len()
    };
    assert!((1000..2100).contains(&dials(Some(0))), "a second at most: {}", dials(Some(0)));
    assert!((30..70).contains(&dials(None)), "half a minute: {}", dials(None));
    assert_eq!(dials(None), dials(Some(5)));
    assert!(dials(Some(9)) < 15, "eight minutes: {}", dials(Some(9)));
    assert!(dials(Some(u32::MAX)) < 15);

    let mut world = World::planned(&plan(None, Some(2)), &[0], 7);
    world.run(Duration::from_secs(60), udp_blocked);
    assert_eq!((world.connected(), &world.said[..]), (2, &[Action::FellBack][..]));
    let first = world.log.iter().position(|(.., transport)| *transport == Transport::Http2).unwrap();
    // Twice again, and then with HTTP/2 beside it.
    assert_eq!(first, 4, "{:?}", world.log);
}

#[test]
fn quic_is_tried_again_when_the_fallback_has_aged() {
    let mut world = World::new(Protocol::Auto, 1, &[0], None);
    world.run(Duration::from_secs(6), udp_blocked);
    world.supervisor.lost(0, false, world.now);
    world.run(Duration::from_secs(2), works);
    assert_eq!(world.log.last().unwrap().3, Transport::Http2);
    world.now += FALLBACK_LIFETIME;
    world.supervisor.lost(0, false, world.now);
    world.run(Duration::from_secs(2), works);
    assert_eq!(world.log.last().unwrap().3, Transport::Quic);
    assert_eq!(world.said, [Action::FellBack, Action::QuicWorks]);
}

#[test]
fn a_remembered_fallback_skips_quic() {
    let mut world = World::new(Protocol::Auto, 2, &[0], Some(Duration::from_secs(600)));
    world.run(Duration::from_secs(2), udp_blocked);
    assert_eq!(world.connected(), 2);
    assert!(world.log.iter().all(|(.., transport)| *transport == Transport::Http2));
}

#[test]
fn one_bad_place_is_no_reason_to_leave_quic() {
    let mut world = World::new(Protocol::Auto, 4, &[0, 1, 0, 1], None);
    let bad = std::cell::Cell::new(None);
    world.run(Duration::from_secs(60), |index, place, transport| {
        if index == 1 && bad.get().is_none() {
            bad.set(Some(place));
        }
        if bad.get() == Some(place) { (QUIC_LIMIT, Outcome::Failed) } else { works(index, place, transport) }
    });
    assert_eq!(world.connected(), 3, "the others stay where they are");
    assert!(world.log.iter().all(|(.., transport)| *transport == Transport::Quic), "{:?}", world.log);
}

#[test]
fn each_of_three_nodes_has_a_connection_again_after_it_was_away() {
    for (dead, seed) in (0..60).map(|seed| (usize::try_from(seed).unwrap() % 3, seed)) {
        let mut world = World::seeded(Protocol::Http2, 4, &[0, 0, 0], None, seed);
        world.run(Duration::from_secs(20), works);
        assert_eq!(world.connected(), 4);
        let at_dead: Vec<u8> =
            (0..4).filter(|index| world.supervisor.slots[usize::from(*index)].place == Some(dead)).collect();
        for index in at_dead {
            world.supervisor.lost(index, false, world.now);
        }
        world.run(Duration::from_secs(300), |_, place, _| {
            if place == dead { (Duration::ZERO, Outcome::Failed) } else { works(0, place, Transport::Http2) }
        });
        assert_eq!(world.connected(), 3, "seed {seed}");
        world.run(Duration::from_secs(32) + Duration::from_secs(1), works);
        let used: std::collections::BTreeSet<_> = world.supervisor.slots.iter().map(|slot| slot.place).collect();
        assert_eq!((world.connected(), used.len()), (4, 3), "seed {seed}");
    }
}

#[test]
fn a_dead_place_is_left_and_watched_by_one() {
    for seed in 0..20 {
        let mut world = World::seeded(Protocol::Http2, 4, &[0, 1], None, seed);
        let network =
            |_, place, _| if place == 1 { (QUIC_LIMIT, Outcome::Failed) } else { works(0, place, Transport::Http2) };
        world.run(Duration::from_secs(600), network);
        assert_eq!(world.connected(), 3, "seed {seed}");
        world.run(Duration::from_secs(32) + Duration::from_secs(1), works);
        assert_eq!(world.connected(), 4, "seed {seed}");
        assert_eq!(world.log.last().unwrap().2, 1, "seed {seed}: the place that is back is used");
    }
    let mut world = World::new(Protocol::Http2, 1, &[0, 1], None);
    let mut dead = None;
    world.run(Duration::from_secs(5), |_, place, _| {
        let dead = *dead.get_or_insert(place);
        if place == dead { (Duration::ZERO, Outcome::Failed) } else { works(0, place, Transport::Http2) }
    });
    assert_eq!((world.connected(), world.log.len()), (1, 2), "a free place is taken at once");
}

#[test]
fn one_node_that_lives_gets_more_than_one_connection() {
    for seed in 0..20 {
        let mut world = World::seeded(Protocol::Http2, 4, &[0, 0, 0, 0], None, seed);
        world.run(Duration::from_secs(20), works);
        for index in 0..4 {
            if world.supervisor.slots[usize::from(index)].place != Some(0) {
                world.supervisor.lost(index, false, world.now);
            }
        }
        world.run(Duration::from_secs(300), |_, place, _| {
            if place == 0 { works(0, place, Transport::Http2) } else { (Duration::ZERO, Outcome::Failed) }
        });
        assert!(world.connected() >= 2, "seed {seed}: {}", world.connected());
    }
}

#[test]
fn places_in_another_order_are_the_same_places() {
    let mut world = World::new(Protocol::Http2, 2, &[0, 0, 0], None);
    world.run(Duration::from_secs(20), works);
    let place = |world: &World, index: usize| world.supervisor.slots[index].place.unwrap();
    let (first, second) = (place(&world, 0), place(&world, 1));
    // As a resolver that rotates its answers.
    let moved = [Some(1), Some(2), Some(0)];
    world.supervisor.replace_places(Places::new(vec![0, 0, 0]), &moved);
    assert_eq!([place(&world, 0), place(&world, 1)], [first, second].map(|old| moved[old].unwrap()));
    // The place of the second is gone: when its connection is lost, it takes one that the first does not use.
    let kept = place(&world, 0);
    let moved: Vec<Option<usize>> = (0..3).map(|old| (old == kept).then_some(0)).collect();
    world.supervisor.replace_places(Places::new(vec![0, 0]), &moved);
    world.supervisor.lost(1, false, world.now);
    world.run(Duration::from_secs(2), works);
    assert_eq!((place(&world, 0), world.log.last().unwrap().2), (0, 1));
}

#[test]
fn an_edge_that_says_at_once_again_and_again_is_not_hammered() {
    let mut world = World::new(Protocol::Http2, 1, &[0], None);
    world.run(Duration::from_secs(600), |_, _, _| (Duration::ZERO, Outcome::Refused(Refusal::Later(Duration::ZERO))));
    assert!(world.log.len() < 60, "{} dials in ten minutes", world.log.len());
}

#[test]
fn a_fixed_protocol_never_changes() {
    for (protocol, transport) in [(Protocol::Quic, Transport::Quic), (Protocol::Http2, Transport::Http2)] {
        let mut world = World::new(protocol, 2, &[0, 1], None);
        world.run(Duration::from_secs(100), down);
        assert!(world.log.iter().all(|(.., used)| *used == transport));
        assert_eq!(world.said, []);
    }
}

#[test]
fn an_edge_that_is_down_is_not_hammered_and_found_when_it_is_back() {
    for protocol in [Protocol::Auto, Protocol::Http2, Protocol::Quic] {
        let mut world = World::new(protocol, 4, &[0], None);
        world.run(Duration::from_secs(600), down);
        let dials = world.dials(0);
        assert_eq!(world.log.len(), dials.len(), "the others wait for the first");
        let rounds = dials.windows(2).filter(|pair| pair[1] - pair[0] >= Duration::from_millis(100)).count();
        assert!(
            rounds < 200,
            "{protocol:?}: one dial in three seconds is cheap, this is more: {rounds} in ten minutes"
        );
        assert!(rounds > 100, "{protocol:?}: {rounds} in ten minutes");
        world.run(LONGEST_OUTAGE_PAUSE + Duration::from_secs(1), works);
        assert_eq!(world.connected(), 4, "{protocol:?}");
    }
}

#[test]
fn after_a_long_outage_all_are_back_within_seconds() {
    for seed in 0..50 {
        let mut world = World::seeded(Protocol::Http2, 4, &[0, 1, 0], None, seed);
        world.run(Duration::from_secs(60), works);
        world.lose_all(false);
        let before = world.log.len();
        world.run(Duration::from_secs(600), down);
        let dials = world.log.len() - before;
        assert!(dials < 300, "seed {seed}: one dial in two seconds is the limit, {dials} in ten minutes");
        world.run(Duration::from_secs(6), works);
        assert_eq!(world.connected(), 4, "seed {seed}");
    }
}

#[test]
fn an_outage_that_begins_during_a_long_pause_ends_it() {
    for seed in 0..50 {
        let mut world = World::seeded(Protocol::Http2, 2, &[0, 1], None, seed);
        // The first connection's place has been dead for long, and now the other one dies too.
        world.run(Duration::from_secs(10), works);
        world.supervisor.lost(0, false, world.now);
        let only_the_second = |index, place, transport| {
            if index == 0 { down(index, place, transport) } else { works(index, place, transport) }
        };
        world.run(Duration::from_secs(300), only_the_second);
        world.supervisor.lost(1, false, world.now);
        world.run(Duration::from_secs(6), |index, place, transport| {
            if index == 1 { down(index, place, transport) } else { works(index, place, transport) }
        });
        assert!(world.connected() >= 1, "seed {seed}");
    }
}

#[test]
fn what_an_edge_asks_for_is_waited_for_in_an_outage_too() {
    let mut world = World::new(Protocol::Http2, 2, &[0], None);
    world.run(Duration::from_secs(60), works);
    world.lose_all(false);
    let outage = world.now - world.start;
    let asked = Duration::from_secs(300);
    world.run(Duration::from_secs(200), |_, _, _| (Duration::ZERO, Outcome::Refused(Refusal::Later(asked))));
    assert_eq!(world.log.iter().filter(|(at, ..)| *at > outage).count(), 2, "each has asked once: {:?}", world.log);
    // The first to come back does not wake the other before its time.
    world.run(Duration::from_secs(400), works);
    assert_eq!(world.connected(), 2);
    for index in 0..2 {
        let dials = world.dials(index);
        assert!(dials[dials.len() - 1] - dials[dials.len() - 2] >= asked, "{dials:?}");
    }
    // A refusal that only a person can mend stays at its own pace.
    let mut world = World::new(Protocol::Http2, 1, &[0], None);
    world.run(Duration::from_secs(600), |_, _, _| (Duration::ZERO, Outcome::Refused(Refusal::Permanent)));
    assert!(world.log.len() <= 21, "{} dials in ten minutes", world.log.len());
}

#[test]
fn a_lost_connection_is_back_within_a_second() {
    let mut world = World::new(Protocol::Auto, 4, &[0, 1, 0, 1], None);
    world.run(Duration::from_secs(10), works);
    let before = world.log.clone();
    world.lose_all(false);
    world.run(Duration::from_secs(1), works);
    assert_eq!(world.connected(), 4);
    let place = |log: &[(Duration, u8, usize, Transport)], index| {
        log.iter().rev().find(|(_, slot, ..)| *slot == index).unwrap().2
    };
    for index in 0..4 {
        assert_eq!(place(&world.log, index), place(&before, index), "it keeps its place");
    }
}

#[test]
fn a_connection_that_is_dropped_at_once_backs_off() {
    let mut world = World::new(Protocol::Http2, 1, &[0], None);
    for _ in 0..200 {
        world.run(Duration::from_secs(1), works);
        world.supervisor.lost(0, false, world.now);
    }
    assert!(world.log.len() < 25, "{} dials in 200 seconds", world.log.len());
}

#[test]
fn refusals_are_obeyed() {
    let gap = |refusal, places: &[usize]| {
        let mut world = World::new(Protocol::Http2, 1, places, None);
        let mut first = true;
        world.run(Duration::from_secs(300), |index, place, transport| {
            if std::mem::take(&mut first) {
                (Duration::ZERO, Outcome::Refused(refusal))
            } else {
                works(index, place, transport)
            }
        });
        assert_eq!(world.connected(), 1, "{refusal:?} is survived");
        (world.log[1].0 - world.log[0].0, world.log[0].2 != world.log[1].2)
    };
    let (pause, _) = gap(Refusal::Later(Duration::from_secs(90)), &[0]);
    assert!((90..=103).contains(&pause.as_secs()), "{pause:?}");
    let (pause, _) = gap(Refusal::Permanent, &[0]);
    assert!(pause >= PERMANENT_PAUSE / 2, "{pause:?}");
    let (pause, moved) = gap(Refusal::Again, &[0, 1]);
    assert!(pause >= FIRST_PAUSE / 2 && pause <= FIRST_PAUSE && !moved, "{pause:?}");
    let (pause, moved) = gap(Refusal::Elsewhere, &[0, 1]);
    assert!(pause <= FIRST_PAUSE && moved, "{pause:?}");
    let (pause, _) = gap(Refusal::Elsewhere, &[0]);
    assert!(pause >= FIRST_PAUSE / 2, "a lone address is not retried without a pause: {pause:?}");
}

#[test]
fn quic_that_comes_to_nothing_is_left_for_http2() {
    // The handshake passes, the registration gets no answer.
    let mut world = World::new(Protocol::Auto, 4, &[0, 1], None);
    world.run(Duration::from_secs(60), |index, place, transport| match transport {
        Transport::Quic => (Duration::from_secs(5), Outcome::Refused(Refusal::NoAnswer)),
        Transport::Http2 => works(index, place, transport),
    });
    assert_eq!(world.connected(), 4);
    assert_eq!(world.said, [Action::FellBack]);
    // An edge that says no has been reached, so the transport works.
    let mut world = World::new(Protocol::Auto, 1, &[0], None);
    world.run(Duration::from_secs(600), |_, _, _| (Duration::ZERO, Outcome::Refused(Refusal::Again)));
    assert!(world.log.iter().all(|(.., transport)| *transport == Transport::Quic));
    // Registered, and dead at once, again and again.
    let mut world = World::new(Protocol::Auto, 1, &[0], None);
    for _ in 0..4 {
        world.run(Duration::from_secs(6), works);
        world.supervisor.lost(0, false, world.now);
    }
    world.run(Duration::from_secs(10), works);
    assert_eq!(world.log.last().unwrap().3, Transport::Http2);
}

#[test]
fn a_random_network_never_breaks_the_rules() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let protocol = [Protocol::Auto, Protocol::Http2, Protocol::Quic][random.random_range(0..3)];
        let connections = random.random_range(1..=6);
        let regions: Vec<usize> = (0..random.random_range(1..=8)).map(|place| place % 2).collect();
        let mut world = World::seeded(protocol, connections, &regions, None, seed);
        for _ in 0..50 {
            let step = Duration::from_millis(random.random_range(1..20_000));
            let mut chance = StdRng::seed_from_u64(random.random());
            world.run(step, |_, place, _| {
                assert!(place < regions.len());
                let outcome = match chance.random_range(0..6) {
                    0 | 1 => Outcome::Registered,
                    2 => Outcome::Refused(if chance.random() { Refusal::Again } else { Refusal::NoAnswer }),
                    3 => Outcome::Refused(Refusal::Elsewhere),
                    _ => Outcome::Failed,
                };
                (Duration::from_millis(chance.random_range(0..5_000)), outcome)
            });
            // Also for slots that are not connected: late news must do no harm.
            world.supervisor.lost(random.random_range(0..8), random.random(), world.now);
        }
        // In any ten seconds one slot dials at most a handful of times.
        for index in 0..connections {
            let dials = world.dials(index);
            for (first, at) in dials.iter().enumerate() {
                let within = dials[first..].iter().take_while(|later| **later - *at < Duration::from_secs(10)).count();
                assert!(within <= 12, "seed {seed}: {within} dials of slot {index} in ten seconds");
            }
        }
        // A good network heals everything.
        world.run(PERMANENT_PAUSE + Duration::from_secs(32) + Duration::from_secs(60), works);
        assert_eq!(world.connected(), usize::from(connections), "seed {seed}");
    }
}

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::PrivateText;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn certificate(name: &Hostname, from: Timestamp, life: SignedDuration) -> AcmeCertificate {
    AcmeCertificate {
        name: name.clone(),
        chain: "chain".into(),
        key: PrivateText::new("key"),
        issuer: "authority".into(),
        not_before: from,
        not_after: from + life,
    }
}

/// The entries as the registry would have them.
#[derive(Default)]
struct Entries {
    certificates: BTreeMap<Hostname, AcmeCertificate>,
    orders: BTreeMap<Hostname, AcmeOrder>,
    budget: Option<AcmeBudget>,
}

impl Entries {
    fn stage(&self, name: &Hostname, now: Timestamp) -> AcmeStage {
        AcmeStage::of(self.certificates.get(name), self.orders.get(name), now)
    }

    fn under_way(&self, now: Timestamp) -> usize {
        self.orders.values().filter(|order| order.held.as_ref().is_some_and(|held| now < held.until)).count()
    }

    fn begin(&mut self, name: &Hostname, by: NodeId, urgency: AcmeUrgency, now: Timestamp) -> Result<(), AcmeNotNow> {
        let known = (self.certificates.get(name), self.orders.get(name));
        let bounds = (self.budget.as_ref(), self.under_way(now));
        let (order, budget) = begin(name, known, bounds, (by, urgency), now)?;
        self.orders.insert(name.clone(), order);
        self.budget = Some(budget);
        Ok(())
    }

    fn finish(&mut self, name: &Hostname, now: Timestamp, life: SignedDuration) {
        self.orders.remove(name);
        self.certificates.insert(name.clone(), certificate(name, now, life));
    }

    fn fail(&mut self, name: &Hostname, kind: AcmeFailure, now: Timestamp) {
        let order = self.orders[name].failed(self.certificates.get(name), (kind, "no answer"), now);
        self.orders.insert(name.clone(), order);
    }
}

#[test]
fn a_name_goes_its_way() {
    let (mut entries, a) = (Entries::default(), name("a.test"));
    assert_eq!(entries.stage(&a, at(0)), AcmeStage::Absent);
    entries.begin(&a, node(1), AcmeUrgency::Now, at(0)).unwrap();
    assert!(matches!(entries.stage(&a, at(1)), AcmeStage::Ordering { .. }));
    let other = entries.begin(&a, node(2), AcmeUrgency::Now, at(1));
    assert!(matches!(other, Err(AcmeNotNow::Stage(AcmeStage::Ordering { .. }))), "one node orders: {other:?}");

    entries.finish(&a, at(10), LIFE);
    let AcmeStage::Held { renew_at } = entries.stage(&a, at(10)) else { panic!("it has a certificate") };
    assert!(renew_at > at(10) + DAY * 56 && renew_at <= at(10) + DAY * 60, "{renew_at}");
    assert!(entries.begin(&a, node(1), AcmeUrgency::Now, at(11)).is_err(), "nothing is ordered that is there");

    assert_eq!(entries.stage(&a, renew_at), AcmeStage::Due);
    entries.begin(&a, node(2), AcmeUrgency::Now, renew_at).unwrap();
    entries.fail(&a, AcmeFailure::Usual, renew_at);
    let AcmeStage::Failed { until } = entries.stage(&a, renew_at) else { panic!("it has failed") };
    assert!(until > renew_at && until <= renew_at + FIRST_PAUSE);
    assert!(entries.certificates.contains_key(&a), "the old certificate stays");
    assert_eq!(entries.stage(&a, until), AcmeStage::Due);
    assert_eq!(entries.stage(&a, at(10) + LIFE), AcmeStage::Absent, "what has ended is no certificate");
}

#[test]
fn a_node_that_died_while_it_ordered_keeps_nobody_for_long() {
    let (mut entries, a) = (Entries::default(), name("a.test"));
    entries.begin(&a, node(1), AcmeUrgency::Now, at(0)).unwrap();
    let AcmeStage::Ordering { until } = entries.stage(&a, at(0)) else { panic!("it is under way") };
    assert_eq!(until, at(0) + HOLD);
    entries.begin(&a, node(2), AcmeUrgency::Now, until).unwrap();
    assert_eq!(entries.orders[&a].held.as_ref().unwrap().node, node(2));
}

#[test]
fn pauses_grow_and_have_an_end() {
    let (mut entries, a) = (Entries::default(), name("a.test"));
    let (mut now, mut pauses) = (at(0), Vec::new());
    for _ in 0..50 {
        entries.begin(&a, node(1), AcmeUrgency::Now, now).unwrap();
        entries.fail(&a, AcmeFailure::Usual, now);
        let AcmeStage::Failed { until } = entries.stage(&a, now) else { panic!("it has failed") };
        pauses.push(until.duration_since(now));
        now = until;
    }
    assert!(pauses[0] >= FIRST_PAUSE * 3 / 4 && pauses[0] <= FIRST_PAUSE, "{pauses:?}");
    assert!(pauses[..4].is_sorted() && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause >= LONGEST_PAUSE * 3 / 4), "{pauses:?}");
    // The first attempt lets the authority look twice, any other once.
    let attempts = pauses.iter().scan(at(0), |time, pause| {
        *time += *pause;
        Some(*time)
    });
    let looks = 2 + attempts.take_while(|time| *time < at(3600)).count();
    assert!(looks <= 5, "{looks} in the first hour");
}

#[test]
fn an_authority_that_was_asked_too_often_is_left_alone() {
    let (mut entries, a) = (Entries::default(), name("a.test"));
    entries.begin(&a, node(1), AcmeUrgency::Now, at(0)).unwrap();
    entries.fail(&a, AcmeFailure::RateLimited, at(0));
    let AcmeStage::Failed { until } = entries.stage(&a, at(0)) else { panic!("it has failed") };
    assert!(until >= at(0) + RATE_LIMITED_PAUSE * 3 / 4);
}

#[test]
fn a_renewal_is_tried_several_times_before_the_end() {
    let (mut entries, a) = (Entries::default(), name("a.test"));
    entries.certificates.insert(a.clone(), certificate(&a, at(0), SignedDuration::from_secs(300)));
    let AcmeStage::Held { renew_at } = entries.stage(&a, at(0)) else { panic!("it has a certificate") };
    let (mut now, mut attempts) = (renew_at, 0);
    while now < at(300) {
        entries.begin(&a, node(1), AcmeUrgency::Now, now).unwrap();
        entries.fail(&a, AcmeFailure::Usual, now);
        attempts += 1;
        let AcmeStage::Failed { until } = entries.stage(&a, now) else { panic!("it has failed") };
        now = until;
    }
    assert!((5..=BURST).contains(&attempts), "{attempts}");
    entries.begin(&a, node(1), AcmeUrgency::Now, now).unwrap();
    entries.fail(&a, AcmeFailure::Usual, now);
    let AcmeStage::Failed { until } = entries.stage(&a, now) else { panic!("it has failed") };
    let pause = until.duration_since(now);
    assert!(
        pause > SHORTEST_PAUSE && pause <= ENDED_PAUSE,
        "once it has ended there is no hurry of seconds: {pause:?}"
    );
}

#[test]
fn names_that_were_ordered_together_are_renewed_apart() {
    let mut times: Vec<_> =
        (0..1000).map(|index| certificate(&name(&format!("n{index}.test")), at(0), LIFE).renew_at()).collect();
    times.sort();
    let spread = times[999].duration_since(times[0]);
    assert!(spread > DAY * 2 && spread <= LIFE / LIFE_PARTS, "{spread:?}");
    let busiest = (0..999 - 90).map(|index| times[index + 90].duration_since(times[index])).min().unwrap();
    assert!(busiest > SignedDuration::from_hours(2), "no more in an hour than may be ordered: {busiest:?}");
}

#[test]
fn orders_have_a_rate_and_those_that_nobody_waits_for_leave_room() {
    let mut entries = Entries::default();
    let mut order = |index: i32, urgency, now| {
        let name = name(&format!("n{index}.test"));
        let begun = entries.begin(&name, node(1), urgency, now);
        if begun.is_ok() {
            entries.finish(&name, now, LIFE);
        }
        begun
    };
    let ahead = (0..100).take_while(|index| order(*index, AcmeUrgency::Ahead, at(0)).is_ok()).count();
    assert_eq!(ahead, (BURST - KEPT_BACK) as usize);
    let waiting = (200..300).take_while(|index| order(*index, AcmeUrgency::Now, at(0)).is_ok()).count();
    assert_eq!(waiting, KEPT_BACK as usize);
    let Err(AcmeNotNow::TooOften { until }) = order(400, AcmeUrgency::Now, at(0)) else { panic!("that is too often") };
    assert_eq!(until, at(0) + PERIOD);
    assert!(order(400, AcmeUrgency::Now, until).is_ok());
}

#[test]
fn a_reason_from_outside_has_bounds() {
    let (mut entries, a) = (Entries::default(), name("a.test"));
    entries.begin(&a, node(1), AcmeUrgency::Now, at(0)).unwrap();
    let why = format!("\u{1b}[31m{}", "ü".repeat(10_000));
    let order = entries.orders[&a].failed(None, (AcmeFailure::Usual, &why), at(0));
    let why = order.failure.unwrap().why;
    assert_eq!((why.chars().count(), why.contains('\u{1b}')), (LONGEST_REASON, false));
}

/// Three nodes that die now and then, an authority that fails now and then, and then both behave.
#[test]
fn whatever_happens_bounds_hold_and_every_name_gets_its_certificate() {
    for seed in 0..10 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut entries = Entries::default();
        let names: Vec<_> = (0..40).map(|index| name(&format!("n{index}.test"))).collect();
        // Which node is at which name, as the nodes see it.
        let mut at_work: BTreeMap<Hostname, (NodeId, Timestamp)> = BTreeMap::new();
        let mut begun: Vec<Timestamp> = Vec::new();
        let mut now = at(0);
        let storm = at(3 * 3600);
        while now < storm + DAY / 2 {
            now += SignedDuration::from_secs(random.random_range(1..30));
            let calm = now >= storm;
            let name = &names[random.random_range(0..names.len())];
            let by = node(random.random_range(1..4));
            let urgency = if random.random() { AcmeUrgency::Now } else { AcmeUrgency::Ahead };
            let before = entries.orders.get(name).and_then(|order| order.held.clone());
            if entries.begin(name, by, urgency, now).is_ok() {
                assert!(before.is_none_or(|held| held.until <= now), "seed {seed}: two nodes at {name}");
                at_work.insert(name.clone(), (by, now + SignedDuration::from_secs(random.random_range(1..120))));
                begun.push(now);
            }
            assert!(entries.under_way(now) <= AT_ONCE, "seed {seed}: {} at once", entries.under_way(now));
            let through: Vec<_> =
                at_work.iter().filter(|(_, (_, end))| *end <= now).map(|(name, _)| name.clone()).collect();
            for name in through {
                at_work.remove(&name);
                match random.random_range(0..if calm { 1 } else { 4 }) {
                    0 => entries.finish(&name, now, LIFE),
                    1 => entries.fail(&name, AcmeFailure::Usual, now),
                    2 => entries.fail(&name, AcmeFailure::RateLimited, now),
                    // The node has died.
                    _ => (),
                }
            }
        }
        for (index, first) in begun.iter().enumerate() {
            let hour = begun[index..].iter().take_while(|time| time.duration_since(*first).as_secs() < 3600).count();
            assert!(hour <= BURST as usize + 90, "seed {seed}: {hour} in an hour");
        }
        for name in &names {
            assert!(matches!(entries.stage(name, now), AcmeStage::Held { .. }), "seed {seed}: {name}");
        }
    }
}

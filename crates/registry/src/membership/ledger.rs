use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use serde::Serialize;
use uuid::Uuid;

use crate::engine::Write;
use crate::live::{LiveKey, Own};
use crate::{ConnectionRecord, NodeRecord, PoolId, PoolReport};

/// What goes into one transaction at most; etcd takes 128 operations.
const MOST: usize = 100;
/// So many bytes in one transaction; etcd takes 1.5 MiB, and one report of a large pool may have a quarter of one.
const MOST_BYTES: usize = 512 << 10;

/// One thing that a node tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Saying {
    /// That it is there.
    Node,
    /// A connection that there is, as it is now.
    Open(Arc<ConnectionRecord>),
    /// One that is no more: its tunnel, and itself.
    Closed(Uuid, Uuid),
    /// What it finds out of a pool.
    Health(Arc<PoolReport>),
    /// It does not ask this pool's members any more.
    NoHealth(PoolId),
}

/// What a saying is about, if that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Connection(Uuid, Uuid),
    Pool(PoolId),
}

impl Saying {
    fn topic(&self) -> Option<Topic> {
        match self {
            Self::Node => None,
            Self::Open(connection) => Some(Topic::Connection(connection.tunnel, connection.id)),
            Self::Closed(tunnel, id) => Some(Topic::Connection(*tunnel, *id)),
            Self::Health(report) => Some(Topic::Pool(report.pool)),
            Self::NoHealth(pool) => Some(Topic::Pool(*pool)),
        }
    }

    /// The bytes of what is written, at most.
    fn bytes(&self) -> usize {
        // A byte may take six in JSON.
        let text = |text: &str| 6 * text.len() + 3;
        match self {
            Self::Node | Self::Closed(..) | Self::NoHealth(_) => 4 << 10,
            Self::Open(connection) => {
                let texts = [&*connection.version, &connection.arch].into_iter().chain(connection.features.iter());
                1024 + texts.map(text).sum::<usize>()
            }
            Self::Health(report) => {
                let reasons = report.members.iter().filter_map(|member| member.reason.as_deref());
                256 + 160 * report.members.len() + reasons.map(text).sum::<usize>()
            }
        }
    }

    /// As the engine takes it.
    pub(super) fn write(&self, me: &NodeRecord) -> Write {
        fn json(record: &impl Serialize) -> Vec<u8> {
            serde_json::to_vec(record).expect("records are plain data with text keys")
        }
        let node = me.id;
        let key = match self.topic() {
            None => LiveKey::Node(node),
            Some(Topic::Connection(tunnel, id)) => LiveKey::Connection { node, tunnel, id },
            Some(Topic::Pool(pool)) => LiveKey::Health { node, pool },
        };
        let value = match self {
            Self::Node => Some(json(me)),
            Self::Open(connection) => Some(json(connection.as_ref())),
            Self::Health(report) => Some(json(report.as_ref())),
            Self::Closed(..) | Self::NoHealth(_) => None,
        };
        Write { key: key.to_string(), value }
    }
}

/// What the others have been told under the present lease. Pure.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    is_announced: bool,
    told: Own,
    /// Nobody knows whether the others have heard of these: they are told again.
    unsure: BTreeSet<Topic>,
}

impl Ledger {
    /// What is to be told now, so much as goes into one transaction.
    pub(super) fn due(&self, own: &Own) -> Vec<Saying> {
        let announcement = (!self.is_announced).then_some(Saying::Node);
        let again = self.unsure.iter().map(|topic| match *topic {
            Topic::Connection(tunnel, id) => match own.connections.get(&(tunnel, id)) {
                Some(connection) => Saying::Open(connection.clone()),
                None => Saying::Closed(tunnel, id),
            },
            Topic::Pool(pool) => match own.reports.get(&pool) {
                Some(report) => Saying::Health(report.clone()),
                None => Saying::NoHealth(pool),
            },
        });
        let connections = self.told.connections.diff(&own.connections).map(|item| match item {
            DiffItem::Add(_, connection) | DiffItem::Update { new: (_, connection), .. } => {
                Saying::Open(connection.clone())
            }
            DiffItem::Remove((tunnel, id), _) => Saying::Closed(*tunnel, *id),
        });
        let reports = self.told.reports.diff(&own.reports).map(|item| match item {
            DiffItem::Add(_, report) | DiffItem::Update { new: (_, report), .. } => Saying::Health(report.clone()),
            DiffItem::Remove(pool, _) => Saying::NoHealth(*pool),
        });
        let changed = connections.chain(reports);
        let changed = changed.filter(|saying| saying.topic().is_none_or(|topic| !self.unsure.contains(&topic)));
        let mut left = MOST_BYTES;
        let fits = |saying: &Saying| {
            let fits = left > 0;
            left = left.saturating_sub(saying.bytes());
            fits
        };
        announcement.into_iter().chain(again).chain(changed).take(MOST).take_while(fits).collect()
    }

    /// The others have it.
    pub(super) fn heard(&mut self, sayings: &[Saying]) {
        let Own { connections, reports } = &mut self.told;
        for saying in sayings {
            match saying {
                Saying::Node => self.is_announced = true,
                Saying::Open(connection) => {
                    connections.insert((connection.tunnel, connection.id), connection.clone());
                }
                Saying::Closed(tunnel, id) => drop(connections.remove(&(*tunnel, *id))),
                Saying::Health(report) => drop(reports.insert(report.pool, report.clone())),
                Saying::NoHealth(pool) => drop(reports.remove(pool)),
            }
            if let Some(topic) = saying.topic() {
                self.unsure.remove(&topic);
            }
        }
    }

    /// They may have it.
    pub(super) fn unsure(&mut self, sayings: &[Saying]) {
        self.unsure.extend(sayings.iter().filter_map(Saying::topic));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::{Features, MemberReport, NodeAddresses, NodeId};

    fn connection(number: u128) -> ConnectionRecord {
        ConnectionRecord {
            tunnel: Uuid::from_u128(number / 3),
            connector: Uuid::nil(),
            id: Uuid::from_u128(number),
            index: 0,
            transport: "quic".into(),
            location: "lab01".into(),
            origin_ip: [127, 0, 0, 1].into(),
            opened_at: Timestamp::UNIX_EPOCH,
            features: Features::default(),
            version: "1".into(),
            arch: "linux_amd64".into(),
            config_version: None,
        }
    }

    fn report(seconds: i64) -> MemberReport {
        MemberReport {
            member: "0123456789abcdef".parse().unwrap(),
            is_up: true,
            since: Timestamp::from_second(seconds).unwrap(),
            reason: None,
            code: Some(200),
            millis: Some(3),
            is_unasked: false,
        }
    }

    fn me() -> NodeRecord {
        let nowhere = ([127, 0, 0, 1], 0).into();
        NodeRecord {
            id: NodeId::from_bytes([7; 16]),
            name: "me".into(),
            location: "lab01".into(),
            region: None,
            addresses: NodeAddresses { http: nowhere, https: nowhere, tunnel: vec![], api: nowhere, dns: None },
            version: "1".into(),
            started_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Changes come at any time, and any transaction may be carried out, or not, or leave that open: once nothing is due,
    /// the others have what there is.
    #[test]
    fn whatever_fails_the_others_end_up_with_what_there_is() {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut ledger, mut own, mut theirs) = (Ledger::default(), Own::default(), BTreeMap::new());
            for step in 0..400 {
                if step < 300 && random.random_bool(0.2) {
                    let pool = PoolId::from_bytes([random.random_range(0..5); 16]);
                    let members = vec![report(random.random_range(0..3))];
                    if random.random() {
                        own.reports.insert(pool, Arc::new(PoolReport { pool, members }));
                    } else {
                        own.reports.remove(&pool);
                    }
                    continue;
                }
                if step < 300 && random.random_bool(0.7) {
                    let mut changed = connection(random.random_range(0..20));
                    let key = (changed.tunnel, changed.id);
                    changed.config_version = Some(random.random_range(0..3));
                    if random.random() {
                        own.connections.insert(key, Arc::new(changed));
                    } else {
                        own.connections.remove(&key);
                    }
                    continue;
                }
                let sayings = ledger.due(&own);
                let (is_kept, is_told) = if step < 350 { (random.random(), random.random()) } else { (true, true) };
                if is_kept {
                    for write in sayings.iter().map(|saying| saying.write(&me())) {
                        match write.value {
                            Some(value) => drop(theirs.insert(write.key, value)),
                            None => drop(theirs.remove(&write.key)),
                        }
                    }
                }
                match (is_kept, is_told) {
                    (true, true) => ledger.heard(&sayings),
                    (false, true) => (),
                    (_, false) => ledger.unsure(&sayings),
                }
            }
            assert_eq!(ledger.due(&own), [], "seed {seed}");
            let open = own.connections.values().map(|open| Saying::Open(open.clone()));
            let known = own.reports.values().map(|report| Saying::Health(report.clone()));
            let mut expected: BTreeMap<_, _> = open
                .chain(known)
                .map(|saying| saying.write(&me()))
                .map(|write| (write.key, write.value.unwrap()))
                .collect();
            let announcement = Saying::Node.write(&me());
            expected.insert(announcement.key, announcement.value.unwrap());
            assert_eq!(theirs, expected, "seed {seed}");
        }
    }

    #[test]
    fn a_storm_of_arrivals_goes_in_as_few_transactions_as_it_fits() {
        let mut ledger = Ledger::default();
        let connections = (0..250).map(connection).map(|one| ((one.tunnel, one.id), Arc::new(one))).collect();
        let own = Own { connections, ..Own::default() };
        let mut sizes = Vec::new();
        loop {
            let sayings = ledger.due(&own);
            if sayings.is_empty() {
                break;
            }
            sizes.push(sayings.len());
            ledger.heard(&sayings);
        }
        assert_eq!(sizes, [100, 100, 51]);
    }

    #[test]
    fn large_reports_go_in_transactions_that_etcd_takes() {
        let mut ledger = Ledger::default();
        let mut own = Own::default();
        for number in 0..50 {
            let pool = PoolId::from_bytes([number; 16]);
            // The worst that there can be: what JSON writes with six bytes.
            let reason = Some("\u{1}".repeat(MemberReport::MAX_REASON_BYTES).into());
            let member = MemberReport { reason, since: Timestamp::MAX, millis: Some(u32::MAX), ..report(0) };
            own.reports
                .insert(pool, Arc::new(PoolReport { pool, members: vec![member; crate::PoolTerms::MAX_ORIGINS] }));
        }
        let mut told = 0;
        loop {
            let sayings = ledger.due(&own);
            if sayings.is_empty() {
                break;
            }
            let writes = sayings.iter().map(|saying| (saying.write(&me()), saying.bytes()));
            let mut bytes = 0;
            for (write, most) in writes {
                let size = write.key.len() + write.value.as_ref().map_or(0, Vec::len);
                assert!(size <= most, "{size} of {most}");
                bytes += size;
            }
            assert!(bytes < 1 << 20, "{bytes}");
            told += sayings.len();
            ledger.heard(&sayings);
        }
        assert_eq!(told, 51);
        let features = Features::from(vec!["\u{1}".repeat(256); 64]);
        let open = Saying::Open(Arc::new(ConnectionRecord { features, ..connection(1) }));
        assert!(open.write(&me()).value.unwrap().len() + 100 <= open.bytes());
    }
}

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use uuid::Uuid;

use crate::engine::Write;
use crate::live::{LiveKey, Own};
use crate::{ConnectionRecord, NodeRecord};

/// What goes into one transaction at most; etcd takes 128 operations.
const MOST: usize = 100;

/// One thing that a node tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Saying {
    /// That it is there.
    Node,
    /// A connection that there is, as it is now.
    Open(Arc<ConnectionRecord>),
    /// One that is no more: its tunnel, and itself.
    Closed(Uuid, Uuid),
}

impl Saying {
    fn connection(&self) -> Option<(Uuid, Uuid)> {
        match self {
            Self::Node => None,
            Self::Open(connection) => Some((connection.tunnel, connection.id)),
            Self::Closed(tunnel, id) => Some((*tunnel, *id)),
        }
    }

    /// As the engine takes it.
    pub(super) fn write(&self, me: &NodeRecord) -> Write {
        let json = "records are plain data with text keys";
        let (value, connection) = match self {
            Self::Node => {
                let value = serde_json::to_vec(me).expect(json);
                return Write { key: LiveKey::Node(me.id).to_string(), value: Some(value) };
            }
            Self::Open(connection) => {
                let value = serde_json::to_vec(connection.as_ref()).expect(json);
                (Some(value), (connection.tunnel, connection.id))
            }
            Self::Closed(tunnel, id) => (None, (*tunnel, *id)),
        };
        let (tunnel, id) = connection;
        Write { key: LiveKey::Connection { node: me.id, tunnel, id }.to_string(), value }
    }
}

/// What the others have been told under the present lease. Pure.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    is_announced: bool,
    told: Own,
    /// Nobody knows whether the others have heard of these: they are told again.
    unsure: BTreeSet<(Uuid, Uuid)>,
}

impl Ledger {
    /// What is to be told now, so much as goes into one transaction.
    pub(super) fn due(&self, own: &Own) -> Vec<Saying> {
        let announcement = (!self.is_announced).then_some(Saying::Node);
        let again = self.unsure.iter().map(|key| match own.get(key) {
            Some(connection) => Saying::Open(connection.clone()),
            None => Saying::Closed(key.0, key.1),
        });
        let changed = self.told.diff(own).map(|item| match item {
            DiffItem::Add(_, connection) | DiffItem::Update { new: (_, connection), .. } => {
                Saying::Open(connection.clone())
            }
            DiffItem::Remove((tunnel, id), _) => Saying::Closed(*tunnel, *id),
        });
        let changed = changed.filter(|saying| saying.connection().is_none_or(|key| !self.unsure.contains(&key)));
        announcement.into_iter().chain(again).chain(changed).take(MOST).collect()
    }

    /// The others have it.
    pub(super) fn heard(&mut self, sayings: &[Saying]) {
        for saying in sayings {
            match saying {
                Saying::Node => self.is_announced = true,
                Saying::Open(connection) => {
                    self.told.insert((connection.tunnel, connection.id), connection.clone());
                }
                Saying::Closed(tunnel, id) => drop(self.told.remove(&(*tunnel, *id))),
            }
            if let Some(key) = saying.connection() {
                self.unsure.remove(&key);
            }
        }
    }

    /// They may have it.
    pub(super) fn unsure(&mut self, sayings: &[Saying]) {
        self.unsure.extend(sayings.iter().filter_map(Saying::connection));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::{Features, NodeAddresses, NodeId};

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

    fn me() -> NodeRecord {
        let nowhere = ([127, 0, 0, 1], 0).into();
        NodeRecord {
            id: NodeId::from_bytes([7; 16]),
            name: "me".into(),
            location: "lab01".into(),
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
            let (mut ledger, mut own, mut theirs) = (Ledger::default(), Own::new(), BTreeMap::new());
            for step in 0..400 {
                if step < 300 && random.random_bool(0.7) {
                    let mut changed = connection(random.random_range(0..20));
                    let key = (changed.tunnel, changed.id);
                    changed.config_version = Some(random.random_range(0..3));
                    if random.random() {
                        own.insert(key, Arc::new(changed));
                    } else {
                        own.remove(&key);
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
            let mut expected: BTreeMap<_, _> = own
                .values()
                .map(|open| Saying::Open(open.clone()).write(&me()))
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
        let own: Own = (0..250).map(connection).map(|one| ((one.tunnel, one.id), Arc::new(one))).collect();
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
}

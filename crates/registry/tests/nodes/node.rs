//! A node and a connection, for the tests of several.

use jiff::Timestamp;
use registry::{
    ConfigSource, ConnectionRecord, Etcd, EtcdSettings, Features, NewTunnel, NodeAddresses, NodeRecord, Registry,
    TunnelName,
};
use uuid::Uuid;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// The etcd at these addresses.
pub(crate) async fn opened(addresses: &str) -> Etcd {
    Etcd::open(&EtcdSettings::parse(&format!("etcd://{addresses}/test")).unwrap()).await.unwrap()
}

pub(crate) fn join(registry: &Registry, name: &str) {
    let nowhere = ([127, 0, 0, 1], 0).into();
    registry.join(NodeRecord {
        id: registry.node(),
        name: name.into(),
        location: "lab01".into(),
        region: None,
        addresses: NodeAddresses { http: nowhere, https: nowhere, tunnel: vec![], api: nowhere, dns: None },
        version: "1".into(),
        started_at: at(0),
    });
}

pub(crate) fn connection(tunnel: Uuid, opened_at: Timestamp) -> ConnectionRecord {
    ConnectionRecord {
        tunnel,
        connector: Uuid::new_v4(),
        id: Uuid::new_v4(),
        index: 0,
        transport: "quic".into(),
        location: "lab01".into(),
        origin_ip: [127, 0, 0, 1].into(),
        opened_at,
        features: Features::default(),
        version: "1".into(),
        arch: "linux_amd64".into(),
        config_version: None,
    }
}

pub(crate) fn named(name: &str) -> NewTunnel {
    NewTunnel {
        name: TunnelName::parse(name).unwrap(),
        secret: None,
        config_source: ConfigSource::Local,
        labels: Default::default(),
    }
}

//! Authorities in the registry: one for all nodes, whoever makes it, and nothing of its key to be read in the engine; and
//! keys that let one machine in.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use registry::{
    AuthorityPurpose, CertificateError, CertificateId, CommitError, Embedded, Engine, Etcd, EtcdSettings, Hostname,
    InvitationError, Keys, OriginCertificate, OriginRequestType, PrivateText, Registry, RotationError, Sealed,
    Transaction,
};

const NODES: usize = 4;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Ways of several nodes to the same entries.
struct Place {
    engines: Vec<Arc<dyn Engine>>,
    _etcd: Option<harness::Etcd>,
}

impl Place {
    fn embedded() -> Self {
        let engine: Arc<dyn Engine> = Arc::new(Embedded::in_memory().unwrap());
        Self { engines: vec![engine; NODES], _etcd: None }
    }

    async fn etcd() -> Option<Self> {
        let etcd = harness::Etcd::start(1).await?;
        let settings = EtcdSettings::parse(&format!("etcd://{}/test", etcd.addresses())).unwrap();
        let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
        for _ in 0..NODES {
            engines.push(Arc::new(Etcd::open(&settings).await.unwrap()));
        }
        Some(Self { engines, _etcd: Some(etcd) })
    }

    async fn nodes(&self, keys: &str) -> Vec<Registry> {
        let mut nodes = Vec::new();
        for engine in &self.engines {
            let sealed = Sealed::open(engine.clone(), Keys::parse(keys).unwrap()).await.unwrap();
            nodes.push(Registry::open(sealed, now()).await.unwrap());
        }
        nodes
    }
}

async fn ensured(node: &Registry, index: usize) -> (String, String) {
    let make = || Ok::<_, CommitError>((format!("certificate {index}"), PrivateText::new(format!("hunter{index}"))));
    let authority = node.ensure_authority(now(), AuthorityPurpose::Origin, make).await.unwrap();
    (authority.certificate.clone(), authority.key.reveal().to_owned())
}

async fn one_authority_for_all(place: Place) {
    let keys = Keys::generate();
    let nodes = place.nodes(&keys).await;
    let made = join_all(nodes.iter().enumerate().map(|(index, node)| ensured(node, index))).await;
    assert!(made.iter().all(|authority| *authority == made[0]), "{made:?}");
    assert_eq!(ensured(&nodes[NODES - 1], 77).await, made[0], "it stays");
    for node in &nodes {
        let of_nodes = node.snapshot().authority(AuthorityPurpose::Node).is_none();
        assert!(of_nodes, "one for another purpose is another one");
    }
    let raw = place.engines[0].load().await.unwrap();
    let found = raw.entries.iter().find(|entry| entry.key == "authorities/origin").expect("it is kept");
    assert!(!String::from_utf8_lossy(&found.value).contains("hunter"), "its key is encrypted");

    // Whoever opens the registry later has it, too.
    let later = place.nodes(&keys).await;
    assert_eq!(ensured(&later[0], 99).await, made[0]);
}

/// With a text of so many bytes.
fn certificate(bytes: usize, created_at: Timestamp) -> OriginCertificate {
    OriginCertificate {
        id: CertificateId::random(),
        certificate: "c".repeat(bytes),
        csr: "request".into(),
        hostnames: vec![Hostname::parse("a.example.test").unwrap()],
        request_type: OriginRequestType::OriginEcc,
        requested_validity: 365,
        created_at,
        expires_on: created_at + SignedDuration::from_hours(365 * 24),
        revoked_at: None,
    }
}

async fn fill(registry: &Registry, count: usize, bytes: usize) -> Vec<CertificateId> {
    let all: Vec<_> = (0..count).map(|_| certificate(bytes, now())).collect();
    // So few at once that a busy machine writes them in time.
    for some in all.chunks((1_usize << 20).div_ceil(bytes).min(1_000)) {
        let mut many = Transaction::new();
        for one in some {
            many.put(one);
        }
        registry.commit(many).await.unwrap();
    }
    all.into_iter().map(|one| one.id).collect()
}

/// Revoked ones make room, those first that were revoked first; others never do.
async fn there_is_room_for_so_many(count: usize, bytes: usize) {
    let registry = Registry::in_memory(now()).await.unwrap();
    let ids = fill(&registry, count, bytes).await;
    let refused = registry.keep_origin_certificate(&certificate(bytes, now())).await;
    assert!(matches!(refused, Err(CertificateError::TooMany)), "{refused:?}");

    let second = SignedDuration::from_secs(1);
    registry.revoke_origin_certificate(now() + second, ids[3]).await.unwrap();
    registry.revoke_origin_certificate(now(), ids[5]).await.unwrap();
    for left in [vec![ids[3]], vec![]] {
        registry.keep_origin_certificate(&certificate(bytes, now() + second)).await.unwrap();
        let snapshot = registry.snapshot();
        let revoked = snapshot.origin_certificates().filter(|kept| kept.revoked_at.is_some());
        assert_eq!(revoked.map(|kept| kept.id).collect::<Vec<_>>(), left);
        assert_eq!(snapshot.origin_certificates().count(), count);
    }
    let refused = registry.keep_origin_certificate(&certificate(bytes, now())).await;
    assert!(matches!(refused, Err(CertificateError::TooMany)), "{refused:?}");
}

#[tokio::test]
async fn certificates_have_a_bound_on_their_number() {
    there_is_room_for_so_many(OriginCertificate::MOST, 10).await;
}

#[tokio::test]
async fn certificates_have_a_bound_on_their_bytes() {
    let rest = 100;
    there_is_room_for_so_many(64, (OriginCertificate::MOST_BYTES / 64) - rest).await;
}

#[tokio::test]
async fn what_is_over_is_forgotten_when_another_one_comes() {
    let registry = Registry::in_memory(now()).await.unwrap();
    let day = SignedDuration::from_hours(24);
    let ids = fill(&registry, 3, 10).await;
    registry.revoke_origin_certificate(now(), ids[0]).await.unwrap();
    registry.revoke_origin_certificate(now() + day, ids[1]).await.unwrap();
    let kept = |at| {
        let registry = &registry;
        async move {
            let new = certificate(10, at);
            registry.keep_origin_certificate(&new).await.unwrap();
            let snapshot = registry.snapshot();
            snapshot.origin_certificates().map(|kept| kept.id).filter(|id| *id != new.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(kept(now() + 30 * day).await.len(), 3, "not before a month is over");
    let after = kept(now() + 30 * day + SignedDuration::from_secs(1)).await;
    assert!(!after.contains(&ids[0]) && after.contains(&ids[1]) && after.contains(&ids[2]), "{after:?}");
    let ended = kept(now() + 365 * day).await;
    assert!(!ended.contains(&ids[1]) && !ended.contains(&ids[2]), "{ended:?}");
}

async fn a_certificate_is_revoked_once(place: Place) {
    let nodes = place.nodes(&Keys::generate()).await;
    let new = certificate(10, now());
    nodes[0].keep_origin_certificate(&new).await.unwrap();
    assert_eq!(nodes[0].snapshot().origin_certificate(new.id).unwrap().value, new);
    let mut revoked = Vec::new();
    for (hours, node) in (1..).zip(&nodes) {
        harness::until(harness::LIMIT, "each node knows it", async || {
            node.snapshot().origin_certificate(new.id).is_some()
        })
        .await;
        let at = now() + SignedDuration::from_hours(hours);
        revoked.push(node.revoke_origin_certificate(at, new.id).await.unwrap().revoked_at);
    }
    assert!(revoked.iter().all(|at| *at == revoked[0]) && revoked[0].is_some(), "{revoked:?}");
}

/// However many come at once on however many nodes.
async fn an_authority_is_rotated(place: Place) {
    let keys = Keys::generate();
    let nodes = place.nodes(&keys).await;
    let rotate = async |node: &Registry, at: Timestamp, purpose, name: &str| {
        node.rotate_authority(at, purpose, format!("{name}\n"), PrivateText::new(format!("key of {name}"))).await
    };
    for (purpose, overlap) in
        [(AuthorityPurpose::Origin, None), (AuthorityPurpose::Node, Some(SignedDuration::from_hours(7 * 24)))]
    {
        // Where there is none yet, there is none before.
        let first = rotate(&nodes[0], now(), purpose, "one").await.unwrap();
        assert_eq!((first.trusted(now()).as_str(), first.former), ("one\n", None));
        let no_former = nodes[1].end_former_authority(purpose).await;
        assert!(matches!(no_former, Err(RotationError::NoFormer)), "{no_former:?}");

        // Of all that replace it at once, one does.
        let name = |index: usize| format!("two by {index}");
        let all = nodes.iter().enumerate().map(async |(index, node)| rotate(node, now(), purpose, &name(index)).await);
        let outcomes = join_all(all).await;
        let done: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        let [second] = done[..] else { panic!("{outcomes:?}") };
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(refused, RotationError::StillTrusted(of) if *of == purpose), "{refused}");
        }
        let former = second.former.as_ref().unwrap();
        assert_eq!(former.certificate, "one\n");
        assert_eq!(former.until, overlap.map(|overlap| now() + overlap));
        assert_eq!(former.key.is_some(), purpose == AuthorityPurpose::Node, "origins' one signs no more");
        assert_eq!(second.trusted(now()), format!("{}one\n", second.certificate));
        if let Some(overlap) = overlap {
            assert_eq!(second.trusted(now() + overlap), second.certificate, "it ends by itself");
            let third = rotate(&nodes[2], now() + overlap, purpose, "three").await.unwrap();
            assert_eq!(third.former.unwrap().certificate, second.certificate);
        }
        let alone = nodes[3].end_former_authority(purpose).await.unwrap();
        assert_eq!(alone.trusted(now()), alone.certificate);
    }
    let state = place.engines[0].load().await.unwrap();
    for entry in &state.entries {
        assert!(!String::from_utf8_lossy(&entry.value).contains("key of"), "{}", entry.key);
    }
}

async fn an_invitation_lets_in_one(place: Place) {
    let nodes = place.nodes(&Keys::generate()).await;
    let hour = SignedDuration::from_hours(1);
    let (_, secret) = nodes[0].invite(now(), hour).await.unwrap();
    for node in &nodes {
        harness::until(harness::LIMIT, "each node knows it", async || {
            node.snapshot().invitation(&secret, now()).is_ok()
        })
        .await;
    }
    let spent = join_all(nodes.iter().chain(&nodes).map(|node| node.spend_invitation(now(), &secret))).await;
    assert_eq!(spent.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{spent:?}");
    for refused in spent.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, InvitationError::Spent(at) if at == now()), "{refused:?}");
    }

    let (_, secret) = nodes[0].invite(now(), hour).await.unwrap();
    let late = nodes[0].spend_invitation(now() + hour, &secret).await;
    assert!(matches!(late, Err(InvitationError::Expired(end)) if end == now() + hour), "{late:?}");
    for wrong in ["", "snj_", &secret[1..], &secret.to_lowercase()] {
        let refused = nodes[0].spend_invitation(now(), wrong).await;
        assert!(matches!(refused, Err(InvitationError::Unknown)), "{refused:?}");
    }
    let raw = place.engines[0].load().await.unwrap();
    let kept: Vec<_> = raw.entries.iter().filter(|entry| entry.key.starts_with("invitations/")).collect();
    assert_eq!(kept.len(), 2);
    assert!(!kept.iter().any(|entry| String::from_utf8_lossy(&entry.value).contains(&secret)));

    // A day after their end they are gone.
    nodes[0].invite(now() + 26 * hour, hour).await.unwrap();
    let raw = place.engines[0].load().await.unwrap();
    assert_eq!(raw.entries.iter().filter(|entry| entry.key.starts_with("invitations/")).count(), 1);
}

#[tokio::test]
async fn an_authority_is_rotated_on_the_embedded_engine() {
    an_authority_is_rotated(Place::embedded()).await;
}

#[tokio::test]
async fn an_authority_is_rotated_on_etcd() {
    let Some(place) = Place::etcd().await else { return };
    an_authority_is_rotated(place).await;
}

#[tokio::test]
async fn an_invitation_lets_in_one_on_the_embedded_engine() {
    an_invitation_lets_in_one(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_lets_in_one_on_etcd() {
    let Some(place) = Place::etcd().await else { return };
    an_invitation_lets_in_one(place).await;
}

#[tokio::test]
async fn nodes_on_one_embedded_engine_have_one_authority() {
    one_authority_for_all(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_on_etcd_have_one_authority() {
    let Some(place) = Place::etcd().await else { return };
    one_authority_for_all(place).await;
}

#[tokio::test]
async fn a_certificate_is_revoked_once_on_the_embedded_engine() {
    a_certificate_is_revoked_once(Place::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_revoked_once_on_etcd() {
    let Some(place) = Place::etcd().await else { return };
    a_certificate_is_revoked_once(place).await;
}

//! Two nodes that want one certificate, with an engine of each kind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use futures_util::future::join_all;
use harness::{LIMIT, until};
use jiff::{SignedDuration, Timestamp};
use registry::{
    AcmeAnswer, AcmeCertificate, AcmeError, AcmeFailure, AcmeHold, AcmeNotNow, AcmeStage, AcmeUrgency, Embedded,
    Engine, Etcd, EtcdSettings, Hostname, Keys, PrivateText, Registry, Sealed,
};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECRET: &str = "this lets in whoever knows it";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn certificate(of: &Hostname) -> AcmeCertificate {
    AcmeCertificate {
        name: of.clone(),
        chain: "chain".into(),
        key: PrivateText::new(SECRET),
        issuer: "authority".into(),
        not_before: at(0),
        not_after: at(0) + SignedDuration::from_hours(90 * 24),
    }
}

async fn two_nodes(engine: &Arc<dyn Engine>) -> [Registry; 2] {
    let open = async || {
        let sealed = Sealed::open(engine.clone(), Keys::parse(KEY).unwrap()).await.unwrap();
        Registry::open(sealed, at(0)).await.unwrap()
    };
    [open().await, open().await]
}

/// Runs a test on an engine of each kind.
macro_rules! on_each_engine {
    ($($test:ident,)*) => {$(
        mod $test {
            #[tokio::test]
            async fn embedded() {
                super::$test(std::sync::Arc::new(super::Embedded::in_memory().unwrap())).await;
            }

            #[tokio::test]
            async fn etcd() {
                let Some(etcd) = harness::Etcd::start(1).await else { return };
                let settings = super::EtcdSettings::parse(&format!("etcd://{}/test", etcd.addresses())).unwrap();
                super::$test(std::sync::Arc::new(super::Etcd::open(&settings).await.unwrap())).await;
            }
        }
    )*};
}

on_each_engine! {
    one_of_two_orders_and_both_have_it,
    bounds_hold_for_both_together,
    whoever_took_too_long_writes_nothing,
    keys_are_not_to_be_read_in_the_engine,
}

async fn one_of_two_orders_and_both_have_it(engine: Arc<dyn Engine>) {
    let [here, there] = two_nodes(&engine).await;
    let app = name("app.test");
    let begun = join_all([&here, &there].map(|node| node.begin_acme_order(at(1), &app, AcmeUrgency::Now))).await;
    let holds: Vec<(usize, AcmeHold)> =
        begun.into_iter().enumerate().filter_map(|(index, begun)| Some((index, begun.ok()?))).collect();
    let [(winner, hold)] = &holds[..] else { panic!("{holds:?}") };
    let nodes = [&here, &there];
    let (winner, loser) = (nodes[*winner], nodes[1 - winner]);

    let answer = AcmeAnswer { token: "token".into(), key_authorization: "token.thumb".into() };
    winner.answer_acme_order(hold, answer.clone()).await.unwrap();
    until(LIMIT, "the other node can answer", async || {
        loser.snapshot().acme_order("app.test").is_some_and(|order| order.answer.as_ref() == Some(&answer))
    })
    .await;
    winner.finish_acme_order(hold, certificate(&app)).await.unwrap();
    until(LIMIT, "the other node has the certificate", async || {
        let snapshot = loser.snapshot();
        let has = snapshot.acme_certificate("app.test").is_some_and(|held| held.key.reveal() == SECRET);
        has && snapshot.acme_order("app.test").is_none()
    })
    .await;
    let again = loser.begin_acme_order(at(2), &app, AcmeUrgency::Now).await;
    assert!(matches!(again, Err(AcmeError::NotNow(AcmeNotNow::Stage(AcmeStage::Held { .. })))), "{again:?}");
}

async fn bounds_hold_for_both_together(engine: Arc<dyn Engine>) {
    let [here, there] = two_nodes(&engine).await;
    let names: Vec<_> = (0..20).map(|index| name(&format!("n{index}.test"))).collect();
    let begin = |(index, name): (usize, &Hostname)| {
        let (node, name) = (if index % 2 == 0 { here.clone() } else { there.clone() }, name.clone());
        async move { node.begin_acme_order(at(1), &name, AcmeUrgency::Now).await }
    };
    let begun = join_all(names.iter().enumerate().map(begin)).await;
    assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 8, "{begun:?}");
    let refused = begun.iter().filter_map(|begun| begun.as_ref().err());
    assert!(refused.clone().all(|error| matches!(error, AcmeError::NotNow(AcmeNotNow::TooMany))), "{begun:?}");
}

async fn whoever_took_too_long_writes_nothing(engine: Arc<dyn Engine>) {
    let [here, there] = two_nodes(&engine).await;
    let app = name("app.test");
    let late = here.begin_acme_order(at(1), &app, AcmeUrgency::Now).await.unwrap();
    until(LIMIT, "the other node knows", async || there.snapshot().acme_order("app.test").is_some()).await;
    let next = there.begin_acme_order(late.until(), &app, AcmeUrgency::Now).await.unwrap();
    let outcome = here.finish_acme_order(&late, certificate(&app)).await;
    assert!(matches!(outcome, Err(AcmeError::Lost)), "{outcome:?}");
    there.fail_acme_order(late.until(), &next, AcmeFailure::Unseen, "nobody there").await.unwrap();
    let outcome = there.fail_acme_order(late.until(), &next, AcmeFailure::Usual, "twice").await;
    assert!(matches!(outcome, Err(AcmeError::Lost)), "{outcome:?}");
    let order = there.snapshot().acme_order("app.test").cloned().unwrap();
    let why = &*order.failure.as_ref().unwrap().why;
    assert_eq!((order.failures, order.unseen, why), (1, 1, "nobody there"));

    there.forget_acme_name(late.until(), &app).await.unwrap();
    assert!(there.snapshot().acme_order("app.test").is_none());
    // What a node that is no more has begun is freed, where all that run are known.
    let again = there.begin_acme_order(late.until(), &app, AcmeUrgency::Now).await.unwrap();
    until(LIMIT, "this node knows", async || {
        here.snapshot().acme_order("app.test").is_some_and(|order| order.held.is_some())
    })
    .await;
    here.free_acme_order(&app).await.unwrap();
    assert!(here.snapshot().acme_order("app.test").is_none());
    let outcome = there.finish_acme_order(&again, certificate(&app)).await;
    assert!(matches!(outcome, Err(AcmeError::Lost)), "{outcome:?}");
}

async fn keys_are_not_to_be_read_in_the_engine(engine: Arc<dyn Engine>) {
    let [here, _there] = two_nodes(&engine).await;
    let app = name("app.test");
    let owner = ("https://acme.test/dir", "me@example.test");
    let account = here.found_acme_account(at(1), owner, PrivateText::new(SECRET)).await.unwrap();
    assert_eq!(account.reveal(), SECRET);
    let other = here.found_acme_account(at(2), owner, PrivateText::new("another")).await.unwrap();
    assert_eq!(other.reveal(), SECRET, "there is one account");
    let hold = here.begin_acme_order(at(1), &app, AcmeUrgency::Ahead).await.unwrap();
    here.finish_acme_order(&hold, certificate(&app)).await.unwrap();
    let state = engine.load().await.unwrap();
    let kinds = ["acme-accounts/", "acme-certificates/app.test"];
    assert!(kinds.iter().all(|kind| state.entries.iter().any(|entry| entry.key.starts_with(kind))));
    assert!(!state.entries.iter().any(|entry| String::from_utf8_lossy(&entry.value).contains(SECRET)));
    assert!(!format!("{:?}", here.snapshot()).contains(SECRET), "secrets do not print");

    here.forget_acme_account(owner, &PrivateText::new("another")).await.unwrap();
    assert!(here.snapshot().acme_account(owner.0, owner.1).is_some());
    here.forget_acme_account(owner, &account).await.unwrap();
    assert!(here.snapshot().acme_account(owner.0, owner.1).is_none());
}

//! Rules that change while requests are under way.

use std::sync::Arc;

use agent::file::FileConfig;
use agent::{ConfigurationSource, Event, Protocol, Reload};
use http::Request;
use serde_json::Value;
use wire::Body;

use crate::edge::{Edge, text};
use crate::origin::slow;
use crate::{config, event, everything_to, serving, started, within};

fn status(status: u16) -> bytes::Bytes {
    everything_to(&format!("http_status:{status}"), "").into()
}

#[tokio::test]
async fn pushed_rules_follow_the_versions() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::managing().await;
        let _agent = serving(&edge, protocol, "http_status:200").await;
        let connection = edge.connection().await;
        assert_eq!(connection.update_configuration(3, status(203)).await, Ok(3));
        assert_eq!(edge.get("/").await.0, 203);
        assert_eq!(connection.update_configuration(2, status(202)).await, Ok(3), "older versions change nothing");
        assert_eq!(connection.update_configuration(3, status(202)).await, Ok(3));
        assert_eq!(edge.get("/").await.0, 203);
        let refused = connection.update_configuration(4, r#"{"ingress":[{"service":"http://a/b"}]}"#.into()).await;
        assert!(refused.is_err(), "{protocol:?}: {refused:?}");
        assert_eq!(edge.get("/").await.0, 203);
        assert_eq!(connection.update_configuration(5, status(205)).await, Ok(5));
        assert_eq!(edge.get("/").await.0, 205);
        assert!(edge.registry.reports.borrow().is_empty(), "a managed agent reports nothing");
    }
}

#[tokio::test]
async fn the_file_is_read_again_when_it_changes() {
    let edge = Edge::start().await;
    let path = edge.as_ref().join("config.yml");
    let write = |status: u16, extra: &str| {
        std::fs::write(&path, format!("ingress:\n  - service: http_status:{status}\n{extra}")).unwrap();
    };
    write(201, "");
    let load = {
        let path = path.clone();
        Arc::new(move || {
            let file = FileConfig::load(&path).map_err(|error| error.to_string())?;
            file.document.ok_or_else(|| "no ingress".to_owned())
        })
    };
    let mut config = config(&[&edge], &everything_to("http_status:200", ""));
    config.document = load().unwrap();
    config.reload = Some(Reload { path: path.clone(), load });
    let agent = started(config).await;
    let mut events = agent.events();
    assert_eq!(edge.get("/").await.0, 201);
    let mut reports = edge.registry.reports.subscribe();
    within("the report", reports.wait_for(|reports| reports.len() == 1)).await.unwrap();

    write(202, "");
    let applied = |event| match event {
        Event::ConfigurationApplied { source, rules } => Some((source, rules)),
        _ => None,
    };
    assert_eq!(event(&mut events, applied).await, (ConfigurationSource::File, 1));
    assert_eq!(edge.get("/").await.0, 202);
    let reported = within("the report", reports.wait_for(|reports| reports.len() == 2)).await.unwrap().clone();
    let reported: Value = serde_json::from_slice(&reported[1]).unwrap();
    assert_eq!(reported["ingress"][0]["service"], "http_status:202");

    write(203, "mistake: true\n");
    agent.reload();
    let reason = event(&mut events, |event| match event {
        Event::ConfigurationRefused { reason, .. } => Some(reason),
        _ => None,
    });
    let reason = reason.await;
    assert!(reason.contains("config.yml:3:1: unknown key \"mistake\""), "{reason}");
    assert_eq!(edge.get("/").await.0, 202, "the old rules stay");

    write(204, "");
    agent.reload();
    event(&mut events, applied).await;
    assert_eq!(edge.get("/").await.0, 204);
}

#[tokio::test]
async fn requests_go_on_while_a_large_configuration_is_prepared() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::managing().await;
        let _agent = serving(&edge, protocol, "http_status:200").await;
        let connection = edge.connection().await;
        let slow_to_compile = r#"{"path":"(\\w{3}){5}","service":"http_status:404"}"#;
        let rules = [slow_to_compile; 8].join(",");
        let document = format!(r#"{{"ingress":[{rules},{{"service":"http_status:201"}}]}}"#);
        let mut push = tokio::spawn(async move { connection.update_configuration(1, document.into()).await });
        let mut meanwhile = 0;
        let applied = loop {
            tokio::select! {
                biased;
                applied = &mut push => break applied.unwrap(),
                (status, _) = edge.get("/") => meanwhile += usize::from(status == 200),
            }
        };
        assert_eq!(applied, Ok(1));
        assert!(meanwhile > 1, "{protocol:?}: {meanwhile} requests were served meanwhile");
        assert_eq!(edge.get("/").await.0, 201);
    }
}

#[tokio::test]
async fn of_many_configurations_pushed_at_once_the_newest_is_applied() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::managing().await;
        let mut config = config(&[&edge], &everything_to("http_status:200", ""));
        (config.protocol, config.connections) = (protocol, std::num::NonZeroU8::new(2).unwrap());
        let agent = started(config).await;
        let mut events = agent.events();
        edge.has(2).await;
        let slow_to_compile = r#"{"path":"(\\w{3}){5}","service":"http_status:404"}"#;
        // Each over both connections, the newest among the others.
        let pushes = [7, 3, 12, 1, 9, 12, 2, 11, 5, 8, 4, 10, 6].map(|version| {
            let document =
                format!(r#"{{"ingress":[{slow_to_compile},{{"service":"http_status:{}"}}]}}"#, 200 + version);
            let both = edge.connections().into_iter().map(move |connection| {
                let document = document.clone();
                async move { (version, connection.update_configuration(version, document.into()).await) }
            });
            futures_util::future::join_all(both)
        });
        for (version, answer) in within("the answers", futures_util::future::join_all(pushes)).await.concat() {
            match answer {
                Ok(in_force) => assert!(in_force >= version, "{protocol:?}: {version} is answered by {in_force}"),
                Err(reason) => {
                    assert!(version < 12 && reason.contains("came meanwhile"), "{protocol:?}: {version}: {reason}")
                }
            }
        }
        assert_eq!(edge.get("/").await.0, 212);
        let mut before = 0;
        while before < 12 {
            before = event(&mut events, |event| match event {
                Event::ConfigurationApplied { source: ConfigurationSource::Edge { version }, .. } => {
                    assert!(version > before, "{protocol:?}: {version} is applied after {before}");
                    Some(version)
                }
                _ => None,
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_request_ends_by_the_rules_it_began_with() {
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::managing().await;
        let (origin, go, arrived) = slow().await;
        let _agent = serving(&edge, protocol, &origin.service()).await;
        let request = Request::get("https://app.test/").body(Body::empty()).unwrap();
        let (answer, ()) = tokio::join!(edge.exchange(request), async {
            within("the request", arrived).await.unwrap();
            let connection = edge.connection().await;
            assert_eq!(connection.update_configuration(1, status(204)).await, Ok(1));
            assert_eq!(edge.get("/").await.0, 204);
            go.send(()).unwrap();
        });
        assert_eq!(text(answer.unwrap().into_body()).await, "done");
    }
}

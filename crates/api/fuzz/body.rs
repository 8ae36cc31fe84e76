//! What the fuzz target and the replay of its corpus do with one input.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use api::{ApiState, Facts, QuickTunnels};
use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use registry::{ConfigSource, Hostname, NewToken, NewTunnel, Registry, TunnelName};
use serde_json::Value;
use tower_service::Service as _;

/// Sends the input as the body of every call that has one. It is refused or taken, never our fault, and the answer is in
/// the envelope.
pub(crate) fn body(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    runtime.block_on(async {
        let (registry, mut router) = edge().await;
        let snapshot = registry.snapshot();
        let account = snapshot.account().id;
        let zone = snapshot.zones().next().expect("was made").id;
        let tunnel = snapshot.tunnels().next().expect("was made").id;
        let (_, token) = registry.create_token(Timestamp::UNIX_EPOCH, new_token()).await.expect("memory takes it");
        let v4 = "/client/v4";
        for (method, path) in [
            (Method::POST, format!("{v4}/accounts/{account}/cfd_tunnel")),
            (Method::PATCH, format!("{v4}/accounts/{account}/cfd_tunnel/{tunnel}")),
            (Method::PUT, format!("{v4}/accounts/{account}/cfd_tunnel/{tunnel}/configurations")),
            (Method::PUT, format!("{v4}/zones/{zone}/tunnels/{tunnel}/routes")),
            (Method::POST, "/tunnel".to_owned()),
        ] {
            let request =
                Request::builder().method(method).uri(&path).header("authorization", format!("Bearer {token}"));
            let request = request.body(Body::from(data.to_vec())).expect("is a request");
            let Ok(response) = router.call(request).await;
            let status = response.status();
            let text = response.into_body().collect().await.expect("is in memory").to_bytes();
            let answer: Value = serde_json::from_slice(&text).expect("every answer is JSON");
            assert!(!status.is_server_error(), "{path}: {answer}");
            assert_eq!(answer["success"], status.is_success(), "{path}: {answer}");
            assert_eq!(answer["errors"].as_array().expect("is a list").is_empty(), status.is_success());
        }
    });
}

async fn edge() -> (Registry, Router) {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::in_memory(now).await.expect("memory takes it");
    let domain = Hostname::parse("example.test").expect("is a host name");
    registry.ensure_zone(now, &domain).await.expect("memory takes it");
    let name = TunnelName::parse("tunnel").expect("is a name");
    let new = NewTunnel { name, secret: None, config_source: ConfigSource::Local };
    registry.create_tunnel(now, new).await.expect("memory takes it");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let facts = Facts {
        api: address,
        tunnel: vec![address],
        https: address,
        http: address,
        domain,
        ca: String::new(),
        location: "lab01".into(),
        version: "1".into(),
    };
    let close = Arc::new(|_, _| 0);
    let state = ApiState {
        registry: registry.clone(),
        close,
        ports: None,
        most_visitors: 5_000,
        quick_tunnels: QuickTunnels::Token,
        facts,
        draining: Default::default(),
    };
    (registry, api::router(state))
}

fn new_token() -> NewToken {
    NewToken { name: "fuzz".into(), expires_at: None }
}

//! What the fuzz target and the replay of its corpus do with one input.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use api::{ApiState, Facts, QuickTunnels};
use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use registry::{
    ConfigSource, Hostname, NewRecord, NewToken, NewTunnel, RecordContent, RecordEdit, RecordType, Registry, TunnelName,
};
use serde_json::Value;
use tower_service::Service as _;

/// Sends the input as the body of every call that has one. It is refused or taken, never our fault, and the answer is in
/// the envelope. What is taken can be written back as it was answered, and that changes nothing.
pub(crate) fn body(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    runtime.block_on(async {
        let (registry, mut router) = edge().await;
        let snapshot = registry.snapshot();
        let account = snapshot.account().id;
        let zone = snapshot.zones().next().expect("was made").id;
        let tunnel = snapshot.tunnels().next().expect("was made").id;
        let record = snapshot.records(zone).next().expect("was made").1.id;
        let (_, token) = registry.create_token(Timestamp::UNIX_EPOCH, new_token()).await.expect("memory takes it");
        let v4 = "/client/v4";
        for (method, path) in [
            (Method::POST, format!("{v4}/accounts/{account}/cfd_tunnel")),
            (Method::PATCH, format!("{v4}/accounts/{account}/cfd_tunnel/{tunnel}")),
            (Method::PUT, format!("{v4}/accounts/{account}/cfd_tunnel/{tunnel}/configurations")),
            (Method::PUT, format!("{v4}/zones/{zone}/tunnels/{tunnel}/routes")),
            (Method::POST, "/tunnel".to_owned()),
            (Method::POST, format!("{v4}/zones")),
            (Method::PATCH, format!("{v4}/zones/{zone}")),
            (Method::PATCH, format!("{v4}/zones/{zone}/settings/ssl")),
            (Method::PATCH, format!("{v4}/zones/{zone}/dnssec")),
            (Method::POST, format!("{v4}/zones/{zone}/dns_records")),
            (Method::PATCH, format!("{v4}/zones/{zone}/dns_records/{record}")),
            (Method::PUT, format!("{v4}/zones/{zone}/dns_records/{record}")),
            (Method::POST, format!("{v4}/zones/{zone}/dns_records/batch")),
            (Method::POST, format!("{v4}/zones/{zone}/dns_records/import")),
            (Method::POST, format!("{v4}/user/tokens")),
            (Method::POST, format!("{v4}/certificates")),
            (Method::POST, "/snicket/v1/invitations".to_owned()),
            (Method::POST, "/snicket/v1/join".to_owned()),
            (Method::PATCH, format!("{v4}/zones/{zone}/argo/smart_routing")),
            (Method::POST, format!("{v4}/zones/{zone}/purge_cache")),
            (Method::PUT, format!("/snicket/v1/tunnels/{tunnel}/rules")),
        ] {
            ask(&mut router, &token, method, &path, data.to_vec()).await;
        }
        for (list, again) in [
            (format!("{v4}/accounts/{account}/load_balancers/monitors"), Method::PUT),
            (format!("{v4}/accounts/{account}/load_balancers/pools"), Method::PUT),
            (format!("{v4}/zones/{zone}/load_balancers"), Method::PUT),
            (format!("{v4}/zones/{zone}/spectrum/apps"), Method::PUT),
            (format!("{v4}/zones/{zone}/rate_limits"), Method::PUT),
            (format!("{v4}/zones/{zone}/rulesets"), Method::PUT),
            (format!("{v4}/zones/{zone}/custom_hostnames"), Method::PATCH),
            (format!("{v4}/accounts/{account}/rulesets"), Method::PUT),
            (format!("{v4}/accounts/{account}/teamnet/virtual_networks"), Method::PATCH),
            (format!("{v4}/accounts/{account}/teamnet/routes"), Method::PATCH),
        ] {
            let made = ask(&mut router, &token, Method::POST, &list, data.to_vec()).await;
            let Some(id) = made["result"]["id"].as_str() else { continue };
            // What was taken is in its one form, so writing that again changes nothing.
            let revision = registry.snapshot().revision();
            let path = format!("{list}/{id}");
            let written = ask(&mut router, &token, again, &path, made["result"].to_string().into()).await;
            assert_eq!((&written["result"], registry.snapshot().revision()), (&made["result"], revision), "{path}");
            ask(&mut router, &token, Method::PUT, &path, data.to_vec()).await;
            ask(&mut router, &token, Method::POST, &format!("{path}/rules"), data.to_vec()).await;
        }
    });
}

/// Sends a body, and answers the envelope that it was answered with.
async fn ask(router: &mut Router, token: &str, method: Method, path: &str, body: Vec<u8>) -> Value {
    // The import takes it for a form; the others do not look.
    let form = "multipart/form-data; boundary=b";
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", form).body(Body::from(body)).expect("is a request");
    let Ok(response) = router.call(request).await;
    let status = response.status();
    let text = response.into_body().collect().await.expect("is in memory").to_bytes();
    let answer: Value = serde_json::from_slice(&text).expect("every answer is JSON");
    assert!(!status.is_server_error(), "{path}: {answer}");
    assert_eq!(answer["success"], status.is_success(), "{path}: {answer}");
    assert_eq!(answer["errors"].as_array().expect("is a list").is_empty(), status.is_success());
    answer
}

async fn edge() -> (Registry, Router) {
    let now = Timestamp::UNIX_EPOCH;
    let registry = Registry::in_memory(now).await.expect("memory takes it");
    let domain = Hostname::parse("example.test").expect("is a host name");
    let zone = registry.ensure_zone(now, &domain).await.expect("memory takes it");
    let content = RecordContent::parse(RecordType::A, "192.0.2.1", None, None).expect("is an address");
    let record = [RecordEdit::Create(NewRecord::new(domain.clone(), content))];
    registry.edit_records(now, zone.id, &record).await.expect("memory takes it");
    let name = TunnelName::parse("tunnel").expect("is a name");
    let new = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
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
        gather_handover: None,
        node_certificate: Arc::new(|| None),
        preview: None,
        known_here: None,
        know_caller: Arc::new(|_| ()),
        draining: Default::default(),
    };
    (registry, api::router(state))
}

fn new_token() -> NewToken {
    NewToken { name: "fuzz".into(), expires_at: None }
}

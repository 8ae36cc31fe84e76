use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri, header};
use jiff::Timestamp;
use registry::AuthorityPurpose;
use serde_json::json;

use crate::state::Shared;

/// What an agent has to know to join this edge, from the address of the API alone.
pub(crate) async fn facts(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let facts = &shared.state.facts;
    let called = called_host(&uri, &headers);
    let snapshot = shared.state.registry.snapshot();
    let origin_ca = snapshot.authority(AuthorityPurpose::Origin);
    let told = |address: &SocketAddr| reachable(*address, called.as_deref());
    let body = json!({
        "api": told(&facts.api),
        "tunnel": facts.tunnel.iter().map(told).collect::<Vec<_>>(),
        "domain": facts.domain,
        "https": told(&facts.https),
        "http": told(&facts.http),
        "ca": facts.ca,
        "origin_ca": origin_ca.map(|authority| authority.trusted(Timestamp::now())),
        "ports": shared.state.ports.as_ref().map(|ports| (ports.range.start(), ports.range.end())),
        "version": facts.version,
        "location": facts.location,
    });
    Json(body).into_response()
}

/// Answers as long as the node does; 503 while it is of no use to agents and visitors.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let registry = &shared.state.registry;
    // Anybody may ask, so that the log alone has the details.
    let (code, status) = match registry.check_keys() {
        Ok(()) => (StatusCode::OK, "ready"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "without the registry's key; the log says what to do"),
    };
    let (location, revision) = (&shared.state.facts.location, registry.snapshot().revision());
    (code, Json(json!({ "status": status, "location": location, "revision": revision }))).into_response()
}

/// The host that the caller dialled, without its port. HTTP/2 has it in the URI, and may have no Host.
fn called_host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let host = || headers.get(header::HOST)?.to_str().ok();
    let authority = uri.authority().map(Authority::as_str).or_else(host)?;
    let url = url::Url::parse(&format!("http://{authority}/")).ok()?;
    url.host().map(|host| host.to_string())
}

/// An address as somebody else can dial it.
fn reachable(address: SocketAddr, called: Option<&str>) -> String {
    match called {
        Some(host) if address.ip().is_unspecified() => format!("{host}:{}", address.port()),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_told_as_the_host_that_was_called() {
        let told = |address: &str, uri: &str, host: Option<&str>| {
            let headers = host.map(|host| (header::HOST, host.parse().unwrap())).into_iter().collect();
            reachable(address.parse().unwrap(), called_host(&uri.parse().unwrap(), &headers).as_deref())
        };
        for (uri, host, expected) in [
            ("/", Some("edge.test:7000"), "edge.test:80"),
            ("/", Some("[::1]:7000"), "[::1]:80"),
            ("/", Some("a b"), "0.0.0.0:80"),
            ("/", None, "0.0.0.0:80"),
            ("https://edge.test:7000/", None, "edge.test:80"),
        ] {
            assert_eq!(told("0.0.0.0:80", uri, host), expected);
            assert_eq!(told("192.0.2.1:80", uri, host), "192.0.2.1:80");
        }
    }
}

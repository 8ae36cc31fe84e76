//! Whoever calls, as far as tools ask: there are no users here, only tokens of the one account.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use registry::Object;
use serde_json::json;

use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::query::Query;
use crate::state::Shared;

/// The account stands for its user.
pub(crate) async fn one(State(shared): State<Arc<Shared>>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let account = snapshot.account();
    Ok(success(json!({
        "id": account.id,
        "email": "",
        "username": account.name,
        "first_name": null,
        "last_name": null,
        "telephone": null,
        "country": null,
        "zipcode": null,
        "suspended": false,
        "two_factor_authentication_enabled": false,
        "created_on": account.created_at,
        "modified_on": account.created_at,
    })))
}

/// The accounts that the token sees.
pub(crate) async fn memberships(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let account = snapshot.account();
    let wanted = query.one("account.name").is_none_or(|name| name == account.name)
        && query.one("status").is_none_or(|status| status == "accepted")
        && token.terms.sees(Object::Account(account.id));
    let accounts: Vec<_> = wanted.then_some(account).into_iter().collect();
    Ok(page(&accounts, query.page(20, 1000)?, |account| {
        json!({
            "id": account.id,
            "status": "accepted",
            "account": { "id": account.id, "name": account.name, "type": "standard" },
            "roles": ["Administrator"],
            "permissions": {},
        })
    }))
}

/// Where visitors come: the public addresses that this node knows of. Needs no credentials.
pub(crate) async fn ips(State(shared): State<Arc<Shared>>) -> Answer {
    let facts = &shared.state.facts;
    let mut addresses: Vec<_> =
        [facts.https.ip(), facts.http.ip()].into_iter().filter(|ip| !ip.is_unspecified()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let of = |wanted: fn(&std::net::IpAddr) -> bool, bits: u8| {
        addresses.iter().filter(|ip| wanted(ip)).map(|ip| format!("{ip}/{bits}")).collect::<Vec<_>>()
    };
    let (v4, v6) = (of(std::net::IpAddr::is_ipv4, 32), of(std::net::IpAddr::is_ipv6, 128));
    let etag = format!("{}-{}", v4.join("+"), v6.join("+"));
    Ok(success(json!({ "ipv4_cidrs": v4, "ipv6_cidrs": v6, "etag": etag })))
}

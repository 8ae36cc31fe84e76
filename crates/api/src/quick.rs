use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use http::{Extensions, HeaderMap, header};
use jiff::Timestamp;
use policy::Access;
use registry::{
    ApiToken, Area, Hostname, Object, Permission, PortOptions, QuickName, Secret, Snapshot, Versioned, audit,
};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::limit::Who;
use crate::port::PortWish;
use crate::state::{QuickTunnels, Shared};
use crate::{access, body, credential, port};

/// A browser here passes on the wish of the page that it has open, and a proxy or an agent here that of some visitor:
/// none of them is a program of this machine's own. Browsers send the first two, whatever name the page has for us.
const FOR_ANOTHER: [&str; 6] = ["origin", "sec-fetch-site", "forwarded", "x-forwarded-for", "via", "cf-connecting-ip"];

/// What our own agents ask for. Reference agents send nothing.
#[derive(Deserialize)]
struct Wish {
    /// One label under the domain; absent, two random words.
    name: Option<String>,
    /// The tunnel's secret in base64; with it, asking again for a name of one's own succeeds.
    secret: Option<String>,
    /// Who may visit the tunnel; absent, everybody.
    access: Option<Access>,
    /// A public port that leads to it as well; absent, none.
    port: Option<PortWish>,
    /// Visitors' TLS for the name is left to the origin; absent, the edge ends it.
    tls: Option<PortOptions>,
}

/// Section 16.3 of the tunnel protocol.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let token = check_permission(&shared, credential::caller(&extensions), &headers)?;
    let wish: Wish = body::json(body, body::SMALL).await?;
    let making = make(&shared, wish);
    // Without a token there is nobody to name, and the log would be whoever's who makes the most.
    let Some(token) = token else { return making.await };
    let actor = credential::actor(Some(&token), ("POST", "/tunnel"), &extensions);
    audit::on_behalf_of(actor, making).await
}

async fn make(shared: &Shared, wish: Wish) -> Answer {
    let secret = wish
        .secret
        .map(|text| Secret::from_base64(&text).map_err(|problem| ApiError::not_valid(format!("secret: {problem}"))))
        .transpose()?;
    if let Some(tls) = &wish.tls {
        // What was not said is the usual, which an edge with less room does not refuse.
        let most = shared.state.most_visitors.max(PortOptions::MAX_CONNECTIONS);
        port::bounded("tls.max_connections", tls.max_connections, most)?;
    }
    let name = match wish.name {
        Some(label) => QuickName::Wished { label, secret },
        None => QuickName::Random,
    };
    let registry = &shared.state.registry;
    let facts = &shared.state.facts;
    let protocol = wish.port.as_ref().map(|wish| wish.protocol);
    // Before there is a tunnel, so that none is left behind without its port.
    let port = match wish.port {
        Some(wish) => Some(port::choose(shared, owner(&registry.snapshot(), &facts.domain, &name), wish).await?),
        None => None,
    };
    let tunnel = registry.create_quick_tunnel(Timestamp::now(), &facts.domain, name).await?;
    // An agent comes only after this answer, so nobody slips in before the rules.
    let rules = wish.access.unwrap_or_default();
    registry.put_access(tunnel.id, rules.clone()).await?;
    let hostname = tunnel.quick.as_ref().map_or(tunnel.name.as_str(), |hostname| hostname.as_str());
    let passes = wish.tls.is_some();
    if let Some(name) = &tunnel.quick {
        registry.put_passthrough(name, tunnel.id, wish.tls).await?;
    }
    let port = match port {
        Some(chosen) => Some(port::give(shared, chosen, tunnel.id, hostname).await?),
        None => None,
    };
    let url = match facts.https.port() {
        443 => format!("https://{hostname}"),
        port => format!("https://{hostname}:{port}"),
    };
    tracing::info!(tunnel = %tunnel.id, "a quick tunnel was made");
    Ok(success(json!({
        "id": tunnel.id,
        "name": tunnel.name,
        "hostname": hostname,
        "account_tag": registry.snapshot().account().id,
        "secret": tunnel.secret.to_base64(),
        "url": url,
        "access": access::shown(&rules),
        "port": port,
        "port_protocol": protocol,
        "tls": passes,
    })))
}

/// The tunnel that has the name already. Whether it is the caller's is seen when it is asked for.
fn owner(snapshot: &Snapshot, domain: &Hostname, name: &QuickName) -> Option<Uuid> {
    match name {
        QuickName::Random => None,
        QuickName::Wished { label, .. } => Some(snapshot.route_exactly(&domain.child(label).ok()?)?.tunnel),
    }
}

/// Whether whoever calls may make one, and the token that he showed.
fn check_permission(
    shared: &Shared,
    from: Option<SocketAddr>,
    headers: &HeaderMap,
) -> Result<Option<Arc<Versioned<ApiToken>>>, ApiError> {
    let speaks_for_another = FOR_ANOTHER.iter().any(|name| headers.contains_key(*name));
    let local = from.is_some_and(|from| from.ip().to_canonical().is_loopback()) && !speaks_for_another;
    let (without_token, problem) = match shared.state.quick_tunnels {
        QuickTunnels::Off => return Err(ApiError::not_allowed("Quick tunnels are switched off at this edge.")),
        QuickTunnels::Open => (true, ""),
        QuickTunnels::Loopback => (
            local,
            "Quick tunnels need an API token when made from another machine: send Authorization: Bearer <token>.",
        ),
        QuickTunnels::Token => (false, "Quick tunnels need an API token here: send Authorization: Bearer <token>."),
    };
    if headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-auth-key") {
        let snapshot = shared.state.registry.snapshot();
        let token = credential::token(headers, from.map(|from| from.ip()), &snapshot, false)?;
        let permission = Permission { area: Area::Tunnels, write: true };
        if !token.terms.may(permission, Object::Account(snapshot.account().id)) {
            return Err(ApiError::not_permitted());
        }
        shared.limits.count(Who::Token(token.id), Instant::now()).map_err(ApiError::too_many)?;
        return Ok(Some(token.clone()));
    }
    if !without_token {
        return Err(ApiError::not_allowed(problem));
    }
    if local {
        return Ok(None);
    }
    let address = from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |from| from.ip());
    shared.limits.count(Who::at(address), Instant::now()).map_err(ApiError::too_many)?;
    Ok(None)
}

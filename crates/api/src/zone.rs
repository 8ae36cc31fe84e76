//! Zones (section 7 of the API page).

pub(crate) mod dnssec;
pub(crate) mod purge;
pub(crate) mod setting;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Account, Hostname, Object, Snapshot, Versioned, Zone, ZoneTraits, ZoneType};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body;
use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

#[derive(Deserialize)]
struct NewBody {
    name: Option<String>,
    account: Option<AccountBody>,
    #[serde(rename = "type")]
    kind: Option<ZoneType>,
}

#[derive(Deserialize)]
struct AccountBody {
    id: Option<String>,
}

#[derive(Deserialize)]
struct ChangeBody {
    paused: Option<bool>,
    #[serde(rename = "type")]
    kind: Option<ZoneType>,
    vanity_name_servers: Option<Vec<String>>,
}

/// Name servers of one's own that a zone may have.
pub(crate) const MAX_NAME_SERVERS: usize = 10;

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let account = snapshot.account();
    let filter = Filter::read(&query, account);
    let mut zones: Vec<_> = match filter.only_name() {
        // How most tools find a zone.
        Some(name) => snapshot.zone_named(name.as_str()).into_iter().collect(),
        None => snapshot.zones().collect(),
    };
    zones.retain(|zone| filter.takes(zone) && token.terms.sees(Object::Zone(account.id, zone.id)));
    if query.one("order") == Some("name") {
        zones.sort_by(|one, other| one.name.cmp(&other.name));
    }
    if query.one("direction") == Some("desc") {
        zones.reverse();
    }
    Ok(page(&zones, query.page(20, 50)?, |zone| shown(zone, &snapshot, &shared.state.facts.domain)))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = find(&snapshot, &id)?;
    Ok(success(shown(zone, &snapshot, &shared.state.facts.domain)))
}

pub(crate) async fn create(State(shared): State<Arc<Shared>>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let body: NewBody = body::json(body, body::SMALL).await?;
    if let Some(id) = body.account.and_then(|account| account.id) {
        crate::account::check(&registry.snapshot(), &id)?;
    }
    let name = body.name.ok_or_else(|| ApiError::not_valid("name: a domain is wanted, such as example.com"))?;
    let name = host("name", &name)?;
    let traits = ZoneTraits { kind: body.kind.unwrap_or_default(), ..ZoneTraits::default() };
    let zone = registry.create_zone(Timestamp::now(), &name, traits).await?;
    Ok(success(shown(&zone, &registry.snapshot(), &shared.state.facts.domain)))
}

pub(crate) async fn change(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &id)?.id;
    let body: ChangeBody = body::json(body, body::SMALL).await?;
    if body.vanity_name_servers.as_ref().is_some_and(|servers| servers.len() > MAX_NAME_SERVERS) {
        return Err(ApiError::not_valid(format!("vanity_name_servers: at most {MAX_NAME_SERVERS} are wanted")));
    }
    let read = |servers: Vec<String>| servers.iter().map(|name| host("vanity_name_servers", name)).collect();
    let servers: Option<Vec<_>> = body.vanity_name_servers.map(read).transpose()?;
    let changed = registry.change_zone(Timestamp::now(), id, |traits, _| {
        traits.paused = body.paused.unwrap_or(traits.paused);
        traits.kind = body.kind.unwrap_or(traits.kind);
        if let Some(servers) = &servers {
            traits.vanity_name_servers.clone_from(servers);
        }
    });
    let zone = changed.await?;
    Ok(success(shown(&zone, &registry.snapshot(), &shared.state.facts.domain)))
}

pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    let zone = find(&snapshot, &id)?;
    if zone.name == shared.state.facts.domain {
        let problem = format!("{} is this edge's own domain, under which it makes names; it stays", zone.name);
        return Err(ApiError::not_valid(problem));
    }
    registry.delete_zone(Timestamp::now(), zone.id).await?;
    Ok(success(json!({ "id": id })))
}

/// There are no page rules; tools read them before they change anything.
pub(crate) async fn page_rules(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    find(&shared.state.registry.snapshot(), &id)?;
    Ok(success(json!([])))
}

pub(crate) fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<&'a Arc<Versioned<Zone>>, ApiError> {
    let zone = id.parse().ok().and_then(|id| snapshot.zone(id));
    zone.ok_or_else(|| ApiError::no_object(&format!("/zones/{id}")))
}

fn host(member: &str, text: &str) -> Result<Hostname, ApiError> {
    let bad = |problem: String| ApiError::not_valid(format!("{member}: {problem}"));
    let name = Hostname::parse(text).map_err(|problem| bad(problem.to_string()))?;
    match name.wildcard_parent() {
        Some(_) => Err(bad("a wildcard is no domain".to_owned())),
        None => Ok(name),
    }
}

/// Which zones of a list are wanted.
struct Filter<'a> {
    name: Option<&'a str>,
    /// What else is asked, and whether it is so: the same for all zones.
    others: Vec<bool>,
    kind: Option<&'a str>,
    any: bool,
}

impl<'a> Filter<'a> {
    fn read(query: &'a Query, account: &Account) -> Self {
        let mut others = Vec::new();
        others.extend(query.one("status").map(|wanted| wanted == "active"));
        others.extend(query.one("account.id").map(|wanted| wanted == account.id.to_string()));
        others.extend(query.one("account.name").map(|wanted| wanted == account.name));
        let (name, kind) = (query.one("name").or_else(|| query.one("name.exact")), query.one("type"));
        Self { name, others, kind, any: query.one("match") == Some("any") }
    }

    /// The one name that can be meant, in the form that names have.
    fn only_name(&self) -> Option<Hostname> {
        let name = self.name.filter(|_| !self.any)?;
        let name = name.strip_prefix("equal:").unwrap_or(name);
        Hostname::parse(name).ok()
    }

    fn takes(&self, zone: &Zone) -> bool {
        let name = self.name.map(|wanted| matches_name(zone.name.as_str(), wanted));
        let kind = self.kind.map(|wanted| wanted == kind_name(zone.traits.kind));
        let mut all = self.others.iter().copied().chain(name).chain(kind).peekable();
        if self.any && all.peek().is_some() { all.any(|fits| fits) } else { all.all(|fits| fits) }
    }
}

fn kind_name(kind: ZoneType) -> &'static str {
    match kind {
        ZoneType::Full => "full",
        ZoneType::Partial => "partial",
        ZoneType::Secondary => "secondary",
        ZoneType::Internal => "internal",
    }
}

fn matches_name(name: &str, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    let (how, text) = wanted.split_once(':').unwrap_or(("equal", &wanted));
    match how {
        "equal" => Hostname::parse(text).is_ok_and(|wanted| wanted.as_str() == name),
        "contains" => name.contains(text),
        "starts_with" => name.starts_with(text),
        "ends_with" => name.ends_with(text),
        _ => false,
    }
}

/// Section 7 of the API page; the fields that hold nothing are there for clients that insist on them.
fn shown(zone: &Zone, snapshot: &Snapshot, domain: &Hostname) -> Value {
    let account = snapshot.account();
    // While no node answers, there is nobody to lead to.
    let is_answered = snapshot.nodes().any(|node| node.addresses.dns.is_some());
    let name_servers = if is_answered { zone.name_servers(domain) } else { Vec::new() };
    json!({
        "id": zone.id,
        "name": zone.name,
        "account": { "id": account.id, "name": account.name },
        "owner": { "id": account.id, "type": "organization", "name": account.name },
        "plan": {
            "id": "enterprise",
            "name": "Own edge",
            "legacy_id": "enterprise",
            "price": 0,
            "currency": "USD",
            "frequency": "",
            "is_subscribed": true,
            "can_subscribe": false,
            "externally_managed": false,
            "legacy_discount": false,
        },
        "meta": {
            "step": 0,
            "page_rule_quota": 0,
            "custom_certificate_quota": 0,
            "phishing_detected": false,
            "cdn_only": false,
            "dns_only": false,
        },
        "name_servers": name_servers,
        "original_name_servers": null,
        "original_registrar": null,
        "original_dnshost": null,
        "created_on": zone.created_at,
        "modified_on": zone.modified_at(),
        "activated_on": zone.created_at,
        "development_mode": 0,
        "status": "active",
        "paused": zone.traits.paused,
        "type": kind_name(zone.traits.kind),
        "vanity_name_servers": zone.traits.vanity_name_servers,
        "permissions": [],
    })
}

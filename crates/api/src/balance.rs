//! Load balancing (section 9 of the API page): kept, checked and shown, with what nodes find out of pools.

mod health;
pub(crate) mod load_balancer;
pub(crate) mod monitor;
pub(crate) mod overview;
pub(crate) mod pool;
pub(crate) mod preview;
pub(crate) mod region;
pub(crate) mod schema;
pub(crate) mod search;

use axum::response::Response;
use registry::{BadTerms, Referrer, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::account;
use crate::body::Objects;
use crate::envelope::page;
use crate::error::ApiError;
use crate::query::Query;

/// The parameters of a path, by name: with the account in it or, below `/user`, without.
type Parameters = Vec<(String, String)>;
/// On a page unless the caller says how many: all there are, up to this many.
const MOST: usize = 100_000;

/// How something refers to another one.
#[derive(Serialize)]
struct Reference {
    reference_type: &'static str,
    resource_id: String,
    resource_name: String,
    resource_type: &'static str,
}

impl From<Referrer> for Reference {
    fn from(referrer: Referrer) -> Self {
        let (resource_id, resource_name, resource_type) = match referrer {
            Referrer::Pool { id, name } => (id.to_string(), name.into(), "pool"),
            Referrer::LoadBalancer { id, name } => (id.to_string(), name.to_string(), "load_balancer"),
        };
        Self { reference_type: "referrer", resource_id, resource_name, resource_type }
    }
}

/// The members of a body.
type Members = Map<String, Value>;

/// What a body asks for: in full, or over what there is. A member that is `null` goes back to what is usual.
fn terms<T: DeserializeOwned + Serialize>(body: &Members, old: Option<&T>) -> Result<T, BadTerms> {
    let mut members = match old.map(serde_json::to_value) {
        Some(Ok(Value::Object(members))) => members,
        Some(_) | None => Map::new(),
    };
    members.extend(body.clone());
    let mut whole = Value::Object(members);
    drop_nulls(&mut whole);
    serde_path_to_error::deserialize(Objects(whole)).map_err(BadTerms::new)
}

/// Recursion is as deep as the parser let the body be.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// A list that clients expect on one page.
fn all<T, R: Serialize>(items: &[T], query: &Query, show: impl Fn(&T) -> R) -> Result<Response, ApiError> {
    let page_wanted = query.page(items.len().max(1), MOST)?;
    Ok(page(items, page_wanted, show))
}

/// The parameter of this name, in a path whose account, if it has one, is the one that there is.
fn parameter<'a>(snapshot: &Snapshot, path: &'a Parameters, name: &str) -> Result<&'a str, ApiError> {
    let named = |name: &str| path.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if let Some(id) = named("account") {
        account::check(snapshot, id)?;
    }
    Ok(named(name).unwrap_or_default())
}

/// Refuses a path whose account is not the one that there is.
fn check_path(snapshot: &Snapshot, path: &Parameters) -> Result<(), ApiError> {
    parameter(snapshot, path, "account").map(drop)
}

//! Tokens as JSON has them.

use std::str::FromStr;

use jiff::Timestamp;
use policy::Network;
use registry::{AccountId, ApiToken, Permission, Policy, Scope, TokenChange, TokenTerms};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::group::{GROUPS, group, group_of};
use crate::error::ApiError;

/// A token as clients send it.
#[derive(Deserialize)]
pub(super) struct TokenBody {
    name: Option<String>,
    status: Option<String>,
    policies: Option<Vec<PolicyBody>>,
    not_before: Option<Timestamp>,
    expires_on: Option<Timestamp>,
    condition: Option<Condition>,
}

#[derive(Deserialize)]
struct PolicyBody {
    effect: Option<String>,
    resources: Option<Map<String, Value>>,
    permission_groups: Option<Vec<GroupBody>>,
}

#[derive(Deserialize)]
struct GroupBody {
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Condition {
    request_ip: Option<RequestIp>,
}

#[derive(Deserialize)]
struct RequestIp {
    #[serde(rename = "in")]
    within: Option<Vec<String>>,
    not_in: Option<Vec<String>>,
}

/// Longer names are refused.
pub(crate) const MAX_NAME_CHARS: usize = 120;
/// Policies of one token, and resources and groups of one policy.
pub(crate) const MAX_LIST: usize = 300;

impl TokenBody {
    /// What it asks for.
    pub(super) fn read(self, account: AccountId) -> Result<TokenChange, ApiError> {
        let name = self.name.ok_or_else(|| ApiError::not_valid("name: a token needs a name"))?;
        if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            return Err(ApiError::not_valid(format!("name: 1 to {MAX_NAME_CHARS} characters are wanted")));
        }
        let disabled = match self.status.as_deref() {
            None | Some("active" | "expired") => false,
            Some("disabled") => true,
            Some(_) => return Err(ApiError::not_valid("status: active or disabled is wanted")),
        };
        let policies = self.policies.filter(|policies| !policies.is_empty());
        let policies = policies.ok_or_else(|| ApiError::not_valid("policies: what the token may do is wanted"))?;
        bounded("policies", policies.len())?;
        let policies: Vec<_> =
            policies.into_iter().enumerate().map(|(at, body)| body.read(at)).collect::<Result<_, _>>()?;
        let (allowed_from, refused_from) = match self.condition.and_then(|condition| condition.request_ip) {
            Some(RequestIp { within, not_in }) => (networks("in", within)?, networks("not_in", not_in)?),
            None => (Vec::new(), Vec::new()),
        };
        if self.expires_on.zip(self.not_before).is_some_and(|(end, start)| end <= start) {
            return Err(ApiError::not_valid("expires_on: a time after not_before is wanted"));
        }
        let is_everything = policies == [everything(account)];
        let policies = (!is_everything).then_some(policies);
        let terms = TokenTerms { policies, not_before: self.not_before, allowed_from, refused_from };
        Ok(TokenChange { name, expires_at: self.expires_on, disabled, terms })
    }
}

impl PolicyBody {
    fn read(self, at: usize) -> Result<Policy, ApiError> {
        let bad = |problem: String| ApiError::not_valid(format!("policies[{at}].{problem}"));
        let deny = match self.effect.as_deref() {
            Some("allow") => false,
            Some("deny") => true,
            _ => return Err(bad("effect: allow or deny is wanted".to_owned())),
        };
        let mut scopes = Vec::new();
        for (resource, value) in self.resources.unwrap_or_default() {
            read_resource(&resource, &value, &mut scopes).map_err(|problem| bad(format!("resources: {problem}")))?;
        }
        let groups = self.permission_groups.unwrap_or_default();
        if scopes.is_empty() || groups.is_empty() {
            return Err(bad("resources and permission_groups: at least one of each is wanted".to_owned()));
        }
        bounded("resources", scopes.len())?;
        bounded("permission_groups", groups.len())?;
        let permission = |body: &GroupBody| {
            let found = group(body.id.as_deref(), body.name.as_deref());
            found.map(|group| group.permission).ok_or_else(|| {
                bad("permission_groups: an id of GET /user/tokens/permission_groups is wanted".to_owned())
            })
        };
        let permissions = groups.iter().map(permission).collect::<Result<Vec<Permission>, _>>()?;
        Ok(Policy::new(deny, scopes, permissions))
    }
}

/// A resource is everything of it (`*`), or an object of those within it.
fn read_resource(resource: &str, value: &Value, scopes: &mut Vec<Scope>) -> Result<(), String> {
    let mut push = |text: &str| {
        scopes.push(Scope::from_str(text).map_err(|problem| problem.to_string())?);
        Ok(())
    };
    match value {
        Value::String(star) if star == "*" => push(resource),
        Value::Object(nested) if !nested.is_empty() => nested.iter().try_for_each(|(inner, value)| match value {
            Value::String(star) if star == "*" => push(&format!("{resource}/{inner}")),
            _ => Err("the value \"*\" is wanted".to_owned()),
        }),
        _ => Err("the value \"*\" is wanted".to_owned()),
    }
}

fn networks(member: &str, list: Option<Vec<String>>) -> Result<Vec<Network>, ApiError> {
    let list = list.unwrap_or_default();
    bounded("condition.request_ip", list.len())?;
    let read = |text: &String| {
        text.parse().map_err(|problem| ApiError::not_valid(format!("condition.request_ip.{member}: {problem}")))
    };
    list.iter().map(read).collect()
}

fn bounded(member: &str, length: usize) -> Result<(), ApiError> {
    if length <= MAX_LIST {
        return Ok(());
    }
    Err(ApiError::not_valid(format!("{member}: at most {MAX_LIST} are wanted, and these are {length}")))
}

/// What a token without policies may.
fn everything(account: AccountId) -> Policy {
    let permissions = GROUPS.iter().map(|group| group.permission).collect();
    Policy::new(false, vec![Scope::Account(Some(account))], permissions)
}

/// Whether a token can be used, in the words of the original.
pub(super) fn status(token: &ApiToken, now: Timestamp) -> &'static str {
    if token.disabled {
        "disabled"
    } else if token.expires_at.is_some_and(|end| end <= now) {
        "expired"
    } else {
        "active"
    }
}

/// A token without its secret.
pub(super) fn shown(token: &ApiToken, account: AccountId, now: Timestamp) -> Value {
    let terms = &token.terms;
    let policies = match &terms.policies {
        Some(policies) => policies.iter().map(shown_policy).collect(),
        None => vec![shown_policy(&everything(account))],
    };
    let mut shown = json!({
        "id": token.id,
        "name": token.name,
        "status": status(token, now),
        "issued_on": token.created_at,
        "modified_on": token.modified_at.unwrap_or(token.created_at),
        "policies": policies,
    });
    for (member, time) in [("not_before", terms.not_before), ("expires_on", token.expires_at)] {
        if let Some(time) = time {
            shown[member] = json!(time);
        }
    }
    if !terms.allowed_from.is_empty() || !terms.refused_from.is_empty() {
        shown["condition"] = json!({ "request_ip": { "in": terms.allowed_from, "not_in": terms.refused_from } });
    }
    shown
}

fn shown_policy(policy: &Policy) -> Value {
    let mut resources = Map::new();
    for scope in &policy.scopes {
        let text = scope.to_string();
        match text.split_once('/') {
            None => drop(resources.insert(text, json!("*"))),
            Some((outer, inner)) => {
                let nested = resources.entry(outer.to_owned()).or_insert_with(|| json!({}));
                if let Some(nested) = nested.as_object_mut() {
                    nested.insert(inner.to_owned(), json!("*"));
                }
            }
        }
    }
    let groups = policy.permissions.iter().filter_map(|permission| group_of(*permission));
    json!({
        "id": policy.id,
        "effect": if policy.deny { "deny" } else { "allow" },
        "resources": resources,
        "permission_groups": groups.map(|group| json!({ "id": group.id, "name": group.name })).collect::<Vec<_>>(),
    })
}

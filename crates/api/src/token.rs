//! API tokens (section 6 of the API page).

pub(crate) mod document;
mod group;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{NewToken, Permission, TokenChange, TokenError, TokenId};
use serde_json::{Value, json};

use self::document::TokenBody;
use self::group::GROUPS;
use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;
use crate::{account, body};

/// The ids of all permission groups.
pub(crate) fn group_ids() -> Vec<&'static str> {
    GROUPS.iter().map(|group| group.id).collect()
}

/// The name of the permission group for a permission.
pub(crate) fn group_name(permission: Permission) -> Option<&'static str> {
    group::group_of(permission).map(|group| group.name)
}

/// Only a token that is known comes as far as this.
pub(crate) async fn verify(Extension(Credential(token)): Extension<Credential>) -> Answer {
    let mut result = json!({ "id": token.id, "status": document::status(&token, Timestamp::now()) });
    for (member, time) in [("not_before", token.terms.not_before), ("expires_on", token.expires_at)] {
        if let Some(time) = time {
            result[member] = json!(time);
        }
    }
    Ok(success(result))
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, path: Option<Path<String>>, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    check_account(&shared, path)?;
    let mut tokens: Vec<_> = snapshot.tokens().collect();
    tokens.sort_by_key(|token| (token.created_at, token.id));
    if query.one("direction") == Some("desc") {
        tokens.reverse();
    }
    let now = Timestamp::now();
    Ok(page(&tokens, query.page(20, 1000)?, |token| document::shown(token, snapshot.account().id, now)))
}

pub(crate) async fn permission_groups(
    State(shared): State<Arc<Shared>>,
    path: Option<Path<String>>,
    query: Query,
) -> Answer {
    check_account(&shared, path)?;
    let name = query.one("name");
    let groups: Vec<_> = GROUPS.iter().filter(|group| name.is_none_or(|name| name == group.name)).collect();
    Ok(page(&groups, query.page(1000, 1000)?, |group| group.shown()))
}

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    path: Option<Path<String>>,
    Extension(Credential(asking)): Extension<Credential>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    check_account(&shared, path)?;
    let body: TokenBody = body::json(body, body::SMALL).await?;
    let account = registry.snapshot().account().id;
    let TokenChange { name, expires_at, disabled, terms } = body.read(account)?;
    if !asking.terms.may_grant(&terms, account) {
        return Err(TokenError::Beyond.into());
    }
    if disabled {
        return Err(ApiError::not_valid("status: a new token is active; switch it off with PUT"));
    }
    let now = Timestamp::now();
    let (token, secret) = registry.create_limited_token(now, NewToken { name, expires_at }, terms).await?;
    let mut result = document::shown(&token, account, now);
    result["value"] = Value::String(secret);
    Ok(success(result))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(path): Path<Vec<(String, String)>>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let id = find(&shared, &path)?;
    let token = snapshot.token(id).ok_or_else(|| no_token(&id.to_string()))?;
    Ok(success(document::shown(token, snapshot.account().id, Timestamp::now())))
}

pub(crate) async fn replace(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<Vec<(String, String)>>,
    Extension(Credential(asking)): Extension<Credential>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&shared, &path)?;
    let body: TokenBody = body::json(body, body::SMALL).await?;
    let account = registry.snapshot().account().id;
    let change = body.read(account)?;
    if !asking.terms.may_grant(&change.terms, account) {
        return Err(TokenError::Beyond.into());
    }
    let now = Timestamp::now();
    let token = registry.change_token(now, &asking.terms, id, &change).await?;
    Ok(success(document::shown(&token, account, now)))
}

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<Vec<(String, String)>>,
    Extension(Credential(asking)): Extension<Credential>,
) -> Answer {
    let id = find(&shared, &path)?;
    shared.state.registry.delete_token(&asking.terms, id).await?;
    Ok(success(json!({ "id": id })))
}

/// Gives a token another secret.
pub(crate) async fn roll(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<Vec<(String, String)>>,
    Extension(Credential(asking)): Extension<Credential>,
) -> Answer {
    let id = find(&shared, &path)?;
    Ok(success(shared.state.registry.roll_token(Timestamp::now(), &asking.terms, id).await?))
}

/// The id in a path, with or without the account in front.
fn find(shared: &Shared, path: &[(String, String)]) -> Result<TokenId, ApiError> {
    let named = |name: &str| path.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if let Some(id) = named("account") {
        account::check(&shared.state.registry.snapshot(), id)?;
    }
    let id = named("token").unwrap_or_default();
    id.parse().map_err(|_| no_token(id))
}

fn check_account(shared: &Shared, path: Option<Path<String>>) -> Result<(), ApiError> {
    path.map_or(Ok(()), |Path(id)| account::check(&shared.state.registry.snapshot(), &id))
}

fn no_token(id: &str) -> ApiError {
    ApiError::no_object(&format!("/user/tokens/{id}"))
}

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use registry::{Account, Object, Snapshot};
use serde_json::{Value, json};

use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let account = snapshot.account();
    let wanted =
        query.one("name").is_none_or(|name| name == account.name) && token.terms.sees(Object::Account(account.id));
    let accounts: Vec<_> = wanted.then_some(account).into_iter().collect();
    Ok(page(&accounts, query.page(20, 1000)?, |account| shown(account)))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    check(&snapshot, &id)?;
    Ok(success(shown(snapshot.account())))
}

/// The account of a path has to be the one that there is.
pub(crate) fn check(snapshot: &Snapshot, id: &str) -> Result<(), ApiError> {
    if snapshot.account().id.to_string() == id { Ok(()) } else { Err(ApiError::no_object(&format!("/accounts/{id}"))) }
}

fn shown(account: &Account) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "type": "standard",
        "settings": {},
        "created_on": account.created_at,
    })
}

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use registry::audit::{self, Actor};
use registry::{ApiToken, Snapshot, TokenRefused, Versioned};

use crate::error::ApiError;
use crate::limit::{Left, Who};
use crate::permission::{self, Need, is_write, takes_write};
use crate::router::Ray;
use crate::state::Shared;

/// The token that a request showed, once it has passed a guard.
#[derive(Clone)]
pub(crate) struct Credential(pub(crate) Arc<Versioned<ApiToken>>);

/// Guards the v4 API: see [`pass`].
pub(crate) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let need = permission::need(request.method(), request.uri().path());
    pass(shared, request, next, need).await
}

/// Guards what only this edge has: see [`pass`].
pub(crate) async fn guard_own(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let need = permission::own_need(request.uri().path());
    pass(shared, request, next, need).await
}

/// Lets only requests with a valid API token pass that may do what they ask for, counts them, and notes who changed what.
async fn pass(shared: Arc<Shared>, mut request: Request, next: Next, need: Need) -> Response {
    let snapshot = shared.state.registry.snapshot();
    let verifies = request.uri().path().ends_with("/tokens/verify");
    let is_certificate = request.uri().path().split('/').find(|segment| !segment.is_empty()) == Some("certificates");
    let from = caller(request.extensions());
    let address = from.map(|from| from.ip());
    let shown = match service_key(request.headers()).filter(|_| is_certificate) {
        Some(key) => by_service_key(key, address, &snapshot),
        None => token(request.headers(), address, &snapshot, verifies),
    };
    let token = match shown {
        Ok(token) => token.clone(),
        Err(error) => return error.into_response(),
    };
    if let Some(address) = address {
        (shared.state.know_caller)(address);
    }
    let account = snapshot.account().id;
    drop(snapshot);
    let left = match shared.limits.count(Who::Token(token.id), Instant::now()) {
        Ok(left) => left,
        Err(wait) => {
            let mut response = ApiError::too_many(wait).into_response();
            Left { calls: 0, resets_in: wait }.announce(response.headers_mut());
            return response;
        }
    };
    let write = is_write(request.method());
    let takes_write = takes_write(request.method(), request.uri().path());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let who = token.id;
    let mut response = match permission::check(&token.terms, need, takes_write, account) {
        Ok(()) => {
            let actor = write.then(|| actor(Some(&token), (method.as_str(), &path), request.extensions()));
            request.extensions_mut().insert(Credential(token));
            match actor {
                Some(actor) => audit::on_behalf_of(actor, next.run(request)).await,
                None => next.run(request).await,
            }
        }
        Err(error) => error.into_response(),
    };
    left.announce(response.headers_mut());
    if write {
        let revision = shared.state.registry.snapshot().revision();
        let status = response.status().as_u16();
        let from = from.map(|from| from.to_string());
        tracing::info!(token = %who, %method, path, status, revision, from, "the API was asked for a change");
    }
    response
}

/// On whose behalf this call changes something.
pub(crate) fn actor(token: Option<&ApiToken>, (method, path): (&str, &str), extensions: &Extensions) -> Actor {
    Actor {
        at: Timestamp::now(),
        token: token.map(|token| (token.id, token.name.clone())),
        address: caller(extensions).map(|from| from.ip().to_canonical()),
        method: method.to_owned(),
        path: path.to_owned(),
        ray: extensions.get().map(|Ray(ray): &Ray| ray.clone()).unwrap_or_default(),
    }
}

/// Where a request comes from, if the listener says so.
pub(crate) fn caller(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| *address)
}

/// The token that these headers show, valid and used from where it may be. For calls that verify a token it need not be in
/// its time, or switched on.
pub(crate) fn token<'a>(
    headers: &HeaderMap,
    from: Option<IpAddr>,
    snapshot: &'a Snapshot,
    verifies: bool,
) -> Result<&'a Arc<Versioned<ApiToken>>, ApiError> {
    let key = headers.get("x-auth-key");
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let text = value.to_str().ok()?;
        let (scheme, secret) = text.split_once(' ')?;
        let secret = secret.trim();
        (scheme.eq_ignore_ascii_case("bearer") && is_plausible(secret)).then_some(secret)
    });
    let token = match (bearer, key) {
        (Some(Some(secret)), _) => authorize(secret, snapshot, verifies).map_err(|problem| match verifies {
            true => ApiError::verify_invalid_token(),
            false => ApiError::invalid_token(problem),
        })?,
        (Some(None), None) => return Err(ApiError::malformed_authorization()),
        (_, Some(key)) => {
            let key =
                key.to_str().ok().filter(|key| is_plausible(key)).ok_or_else(ApiError::malformed_authorization)?;
            if !headers.contains_key("x-auth-email") {
                return Err(ApiError::unknown_key());
            }
            authorize(key, snapshot, verifies).map_err(|_| ApiError::unknown_key())?
        }
        (None, None) => return Err(ApiError::no_credentials()),
    };
    if token.terms.is_allowed_from(from) { Ok(token) } else { Err(ApiError::wrong_place()) }
}

/// The key that certificates take as well, unless a bearer token is there, too.
fn service_key(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get("x-auth-user-service-key").filter(|_| !headers.contains_key(header::AUTHORIZATION))
}

fn by_service_key<'a>(
    key: &HeaderValue,
    from: Option<IpAddr>,
    snapshot: &'a Snapshot,
) -> Result<&'a Arc<Versioned<ApiToken>>, ApiError> {
    let secret = key.to_str().ok().map(|key| key.strip_prefix("v1.0-").unwrap_or(key));
    let secret = secret.filter(|secret| is_plausible(secret)).ok_or_else(ApiError::malformed_authorization)?;
    let token = authorize(secret, snapshot, false).map_err(|_| ApiError::unknown_service_key())?;
    if token.terms.is_allowed_from(from) { Ok(token) } else { Err(ApiError::wrong_place()) }
}

fn authorize<'a>(
    secret: &str,
    snapshot: &'a Snapshot,
    verifies: bool,
) -> Result<&'a Arc<Versioned<ApiToken>>, TokenRefused> {
    match snapshot.authorize(secret, Timestamp::now()) {
        Err(problem) if verifies && problem != TokenRefused::Unknown => {
            snapshot.token_by_hash(&registry::TokenHash::of(secret)).ok_or(problem)
        }
        outcome => outcome,
    }
}

/// Whether a text could be a token: people paste too much or too little.
fn is_plausible(secret: &str) -> bool {
    (1..=512).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

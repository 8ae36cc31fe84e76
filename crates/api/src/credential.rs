use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};
use jiff::Timestamp;
use registry::{ApiToken, Snapshot};

use crate::error::ApiError;
use crate::limit::{Left, Who};
use crate::state::Shared;

/// The token that a request showed, once it has passed [`guard`].
#[derive(Clone)]
pub(crate) struct Credential(pub(crate) ApiToken);

/// Lets only requests with a valid API token pass, counts them, and notes who changed what.
pub(crate) async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let snapshot = shared.state.registry.snapshot();
    let verifies = request.uri().path().ends_with("/tokens/verify");
    let token = match token(request.headers(), &snapshot, verifies) {
        Ok(token) => token.clone(),
        Err(error) => return error.into_response(),
    };
    drop(snapshot);
    let left = match shared.limits.count(Who::Token(token.id), Instant::now()) {
        Ok(left) => left,
        Err(wait) => {
            let mut response = ApiError::too_many(wait).into_response();
            Left { calls: 0, resets_in: wait }.announce(response.headers_mut());
            return response;
        }
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let from = request.extensions().get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| address.to_string());
    let who = token.id;
    request.extensions_mut().insert(Credential(token));
    let mut response = next.run(request).await;
    left.announce(response.headers_mut());
    if !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) {
        let revision = shared.state.registry.snapshot().revision();
        let status = response.status().as_u16();
        tracing::info!(token = %who, %method, path, status, revision, from, "the API was asked for a change");
    }
    response
}

/// The valid token that these headers show.
pub(crate) fn token<'a>(headers: &HeaderMap, snapshot: &'a Snapshot, verifies: bool) -> Result<&'a ApiToken, ApiError> {
    let now = Timestamp::now();
    let key = headers.get("x-auth-key");
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let text = value.to_str().ok()?;
        let (scheme, secret) = text.split_once(' ')?;
        let secret = secret.trim();
        (scheme.eq_ignore_ascii_case("bearer") && is_plausible(secret)).then_some(secret)
    });
    match (bearer, key) {
        (Some(Some(secret)), _) => snapshot.authorize(secret, now).map_err(|problem| match verifies {
            true => ApiError::verify_invalid_token(),
            false => ApiError::invalid_token(problem),
        }),
        (Some(None), None) => Err(ApiError::malformed_authorization()),
        (_, Some(key)) => {
            let key =
                key.to_str().ok().filter(|key| is_plausible(key)).ok_or_else(ApiError::malformed_authorization)?;
            if !headers.contains_key("x-auth-email") {
                return Err(ApiError::unknown_key());
            }
            snapshot.authorize(key, now).map_err(|_| ApiError::unknown_key())
        }
        (None, None) => Err(ApiError::no_credentials()),
    }
}

/// Whether a text could be a token: people paste too much or too little.
fn is_plausible(secret: &str) -> bool {
    (1..=512).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

mod accounts;
mod balance;
mod certificates;
mod items;
mod open;
mod own;
mod records;
mod tokens;
mod tunnels;
mod zones;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use tower_service::Service;

use crate::balance::preview::Previews;
use crate::credential;
use crate::error::ApiError;
use crate::limit::Limits;
use crate::login::Logins;
use crate::openapi::{Guard, Part, Routes};
use crate::state::{ApiState, Shared};

/// Where the v4 API lies; clients are given it as part of the address.
const BASE: &str = "/client/v4";
/// Where that lies which only this edge has.
const OWN: &str = "/snicket/v1";

/// Names one call in its answer (`cf-ray`) and in the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Ray(pub(crate) String);

/// The whole API.
pub fn router(state: ApiState) -> Router {
    let location = state.facts.location.clone();
    let shared =
        Arc::new(Shared { state, limits: Limits::default(), logins: Logins::default(), previews: Previews::default() });
    let mut everything = Router::new();
    for Part { base, guard, routes } in parts() {
        let within = |router: Router<_>| router.fallback(no_path).method_not_allowed_fallback(no_method);
        everything = match guard {
            Guard::Open => everything.merge(routes.router),
            Guard::V4 => {
                let guard = from_fn_with_state(shared.clone(), credential::guard);
                everything.nest(base, within(routes.router).layer(guard))
            }
            Guard::Own => {
                let guard = from_fn_with_state(shared.clone(), credential::guard_own);
                everything.nest(base, within(routes.router).layer(guard))
            }
        };
    }
    let everything = everything.fallback(no_path).method_not_allowed_fallback(no_method).with_state(shared);
    // Outside of everything, since a path must be brought into form before it is matched.
    Router::new().fallback(move |request: Request| enter(everything.clone(), location.clone(), request))
}

/// All paths, with what is done at them.
pub(crate) fn parts() -> [Part; 3] {
    let v4 = Routes::new()
        .and(accounts::routes())
        .and(tokens::routes())
        .and(zones::routes())
        .and(records::routes())
        .and(tunnels::routes())
        .and(balance::routes())
        .and(items::routes())
        .and(certificates::routes());
    [
        Part { base: BASE, guard: Guard::V4, routes: v4 },
        Part { base: OWN, guard: Guard::Own, routes: own::routes() },
        Part { base: "", guard: Guard::Open, routes: open::routes() },
    ]
}

async fn enter(mut everything: Router, location: String, mut request: Request) -> Response {
    let ray = format!("{:016x}-{}", rand::random::<u64>(), location.to_ascii_uppercase());
    if let Some(uri) = in_form(request.uri()) {
        *request.uri_mut() = uri;
    }
    let path = request.uri().path();
    let mut response = if (path.starts_with(BASE) || path.starts_with(OWN)) && path.contains('%') {
        // No id and no path of ours has an escaped character, so one is either a mistake or a trick.
        ApiError::no_object(path).into_response()
    } else {
        request.extensions_mut().insert(Ray(ray.clone()));
        match everything.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(ray) = HeaderValue::try_from(ray) {
        headers.insert("cf-ray", ray);
    }
    response
}

/// Without a slash at the end, and with the colons of an address as they are, which some clients escape; `None`: as it
/// is.
fn in_form(uri: &Uri) -> Option<Uri> {
    let old = uri.path();
    let path = old.replace("%3A", ":").replace("%3a", ":");
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(&path);
    if path == old {
        return None;
    }
    let wanted = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(wanted.parse().ok()?);
    Uri::from_parts(parts).ok()
}

async fn no_path() -> ApiError {
    ApiError::no_path()
}

async fn no_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::no_method().into_response()
}

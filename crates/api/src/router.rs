use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use tower_service::Service;

use crate::error::ApiError;
use crate::limit::Limits;
use crate::login::Logins;
use crate::state::{ApiState, Shared};
use crate::{access, account, credential, login, node, port, quick, route, token, tunnel, zone};

/// Where the v4 API lies; clients are given it as part of the address.
const BASE: &str = "/client/v4";
/// Where that lies which only this edge has.
const OWN: &str = "/snicket/v1";

/// The whole API.
pub fn router(state: ApiState) -> Router {
    let location = state.facts.location.clone();
    let shared = Arc::new(Shared { state, limits: Limits::default(), logins: Logins::default() });
    let everything = Router::new()
        .nest(BASE, v4(&shared))
        .nest(OWN, own(&shared))
        .route("/tunnel", post(quick::create))
        .route("/argotunnel", get(login::show).post(login::submit))
        .route("/.well-known/snicket", get(node::facts))
        .route("/ready", get(node::ready))
        // A poll takes what it finds, so asking only for the head must not count as one.
        .route("/{key}", get(login::poll).head(no_path))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .with_state(shared);
    // Outside of everything, since a path must be brought into form before it is matched.
    Router::new().fallback(move |request: Request| enter(everything.clone(), location.clone(), request))
}

fn v4(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    const TUNNELS: &str = "/accounts/{account}/cfd_tunnel";
    let tunnel = |rest: &str| format!("{TUNNELS}/{{tunnel}}{rest}");
    Router::new()
        .route("/user/tokens/verify", get(token::verify))
        .route("/accounts", get(account::list))
        .route("/accounts/{account}", get(account::one))
        .route("/accounts/{account}/tokens/verify", get(token::verify))
        .route("/accounts/{account}/tunnels", get(tunnel::list))
        .route(TUNNELS, get(tunnel::list).post(tunnel::create))
        .route(&tunnel(""), get(tunnel::one).patch(tunnel::change).delete(tunnel::delete))
        .route(&tunnel("/token"), get(tunnel::token))
        .route(&tunnel("/connections"), get(tunnel::connection::list).delete(tunnel::connection::close))
        .route(&tunnel("/connectors/{connector}"), get(tunnel::connection::connector))
        .route(&tunnel("/configurations"), get(tunnel::configuration::one).put(tunnel::configuration::put))
        .route("/zones", get(zone::list))
        .route("/zones/{zone}", get(zone::one))
        .route("/zones/{zone}/tunnels/{tunnel}/routes", put(tunnel::route::put))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), credential::guard))
}

fn own(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/tunnels/{tunnel}/access", get(access::one).put(access::put).delete(access::delete))
        .route("/tunnels/{tunnel}/ports", post(port::add))
        .route("/tunnels/{tunnel}/ports/{protocol}/{number}", delete(port::remove))
        .route("/ports", get(port::list))
        .route("/routes", get(route::list))
        .route("/routes/{hostname}", delete(route::delete))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), credential::guard))
}

async fn enter(mut everything: Router, location: String, mut request: Request) -> Response {
    let ray = format!("{:016x}-{}", rand::random::<u64>(), location.to_ascii_uppercase());
    let path = request.uri().path();
    let mut response = if (path.starts_with(BASE) || path.starts_with(OWN)) && path.contains('%') {
        // No id and no path of ours has an escaped character, so one is either a mistake or a trick.
        ApiError::no_object(path).into_response()
    } else {
        if let Some(uri) = without_trailing_slash(request.uri()) {
            *request.uri_mut() = uri;
        }
        match everything.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(ray) = HeaderValue::try_from(ray) {
        headers.insert("cf-ray", ray);
    }
    response
}

fn without_trailing_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty())?;
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

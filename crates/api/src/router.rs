use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use tower_service::Service;

use crate::error::ApiError;
use crate::item::collection;
use crate::limit::Limits;
use crate::login::Logins;
use crate::state::{ApiState, Shared};
use crate::{
    access, account, audit, balance, certificate, credential, dashboard, item, join, login, node, port, quick, record,
    route, status, token, tunnel, user, zone,
};

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
    let shared = Arc::new(Shared { state, limits: Limits::default(), logins: Logins::default() });
    let everything = Router::new()
        .nest(BASE, v4(&shared))
        .nest(OWN, own(&shared))
        .route("/tunnel", post(quick::create))
        .route("/argotunnel", get(login::show).post(login::submit))
        .route(&format!("{BASE}/ips"), get(user::ips))
        .route("/.well-known/snicket", get(node::facts))
        // Beside what is guarded: whoever comes has no token yet.
        .route(&format!("{OWN}/join"), post(join::join))
        .route("/ready", get(node::ready))
        .route("/", get(dashboard::show).fallback(no_path))
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
    const RECORDS: &str = "/zones/{zone}/dns_records";
    let tunnel = |rest: &str| format!("{TUNNELS}/{{tunnel}}{rest}");
    Router::new()
        .route("/user", get(user::one))
        .route("/memberships", get(user::memberships))
        .merge(tokens("/user/tokens"))
        .merge(tokens("/accounts/{account}/tokens"))
        .merge(collection("/zones/{zone}/spectrum/apps", &item::application::APPLICATIONS))
        .merge(collection("/zones/{zone}/rate_limits", &item::rate_limit::RATE_LIMITS))
        .route("/zones/{zone}/custom_hostnames/fallback_origin", item::custom_hostname::fallback_origin())
        .merge(collection("/zones/{zone}/custom_hostnames", &item::custom_hostname::CUSTOM_HOSTNAMES))
        .merge(collection("/accounts/{account}/teamnet/virtual_networks", &item::network::NETWORKS))
        .merge(collection("/accounts/{account}/teamnet/routes", &item::network::ROUTES))
        .route("/accounts/{account}/teamnet/routes/ip/{ip}", get(item::network::by_address))
        .merge(item::ruleset::rulesets("/zones/{zone}/rulesets"))
        .merge(item::ruleset::rulesets("/accounts/{account}/rulesets"))
        .merge(balancers("/zones/{zone}/load_balancers"))
        .merge(balancers("/accounts/{account}/load_balancers"))
        .merge(balance("/user/load_balancers"))
        .merge(balance("/accounts/{account}/load_balancers"))
        .route("/user/audit_logs", get(audit::list))
        .route("/accounts/{account}/audit_logs", get(audit::list))
        .route("/accounts", get(account::list))
        .route("/accounts/{account}", get(account::one))
        .route("/accounts/{account}/tunnels", get(tunnel::list))
        .route(TUNNELS, get(tunnel::list).post(tunnel::create))
        .route(&tunnel(""), get(tunnel::one).patch(tunnel::change).delete(tunnel::delete))
        .route(&tunnel("/token"), get(tunnel::token))
        .route(&tunnel("/connections"), get(tunnel::connection::list).delete(tunnel::connection::close))
        .route(&tunnel("/connectors/{connector}"), get(tunnel::connection::connector))
        .route(&tunnel("/configurations"), get(tunnel::configuration::one).put(tunnel::configuration::put))
        .route("/zones", get(zone::list).post(zone::create))
        .route("/zones/{zone}", get(zone::one).patch(zone::change).delete(zone::delete))
        .route("/zones/{zone}/settings", get(zone::setting::list))
        .route("/zones/{zone}/settings/{setting}", get(zone::setting::one).patch(zone::setting::change))
        .merge(settings_apart())
        .route("/zones/{zone}/purge_cache", post(zone::purge::purge))
        .route("/zones/{zone}/dnssec", get(zone::dnssec::one).patch(zone::dnssec::change))
        .route("/zones/{zone}/pagerules", get(zone::page_rules))
        .route(RECORDS, get(record::list).post(record::create))
        .route(&format!("{RECORDS}/batch"), post(record::batch))
        .route(&format!("{RECORDS}/export"), get(record::zonefile::export))
        .route(&format!("{RECORDS}/import"), post(record::zonefile::import))
        .route(
            &format!("{RECORDS}/{{record}}"),
            get(record::one).put(record::replace).patch(record::change).delete(record::delete),
        )
        .route("/zones/{zone}/tunnels/{tunnel}/routes", put(tunnel::route::put))
        .route("/certificates", get(certificate::list).post(certificate::create))
        .route("/certificates/{certificate}", get(certificate::one).delete(certificate::revoke))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), credential::guard))
}

fn settings_apart() -> Router<Arc<Shared>> {
    let route = |router: Router<_>, (path, setting): &'static (&str, _)| {
        router.route(&format!("/zones/{{zone}}/{path}"), zone::setting::apart(setting))
    };
    zone::setting::APART.iter().fold(Router::new(), route)
}

fn tokens(path: &str) -> Router<Arc<Shared>> {
    let below = |rest: &str| format!("{path}/{rest}");
    Router::new()
        .route(path, get(token::list).post(token::create))
        .route(&below("verify"), get(token::verify))
        .route(&below("permission_groups"), get(token::permission_groups))
        .route(&below("{token}"), get(token::one).put(token::replace).delete(token::delete))
        .route(&below("{token}/value"), put(token::roll))
}

fn balancers(path: &str) -> Router<Arc<Shared>> {
    use balance::load_balancer as all;
    let one = get(all::one).put(all::replace).patch(all::change).delete(all::delete);
    Router::new().route(path, get(all::list).post(all::create)).route(&format!("{path}/{{balancer}}"), one)
}

fn balance(path: &str) -> Router<Arc<Shared>> {
    use balance::{monitor, pool, region, search};
    let below = |rest: &str| format!("{path}/{rest}");
    let one_monitor = get(monitor::one).put(monitor::replace).patch(monitor::change).delete(monitor::delete);
    let one_pool = get(pool::one).put(pool::replace).patch(pool::change).delete(pool::delete);
    Router::new()
        .route(&below("monitors"), get(monitor::list).post(monitor::create))
        .route(&below("monitors/{monitor}"), one_monitor)
        .route(&below("monitors/{monitor}/references"), get(monitor::references))
        .route(&below("pools"), get(pool::list).post(pool::create).patch(pool::change_all))
        .route(&below("pools/{pool}"), one_pool)
        .route(&below("pools/{pool}/health"), get(pool::health))
        .route(&below("pools/{pool}/references"), get(pool::references))
        .route(&below("search"), get(search::list))
        .route(&below("regions"), get(region::list))
        .route(&below("regions/{region}"), get(region::one))
}

fn own(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/tunnels/{tunnel}/access", get(access::one).put(access::put).delete(access::delete))
        .route("/tunnels/{tunnel}/rules", get(tunnel::rule::list).put(tunnel::rule::put).delete(tunnel::rule::delete))
        .route("/tunnels/{tunnel}/ports", post(port::add))
        .route("/tunnels/{tunnel}/ports/{protocol}/{number}", delete(port::remove))
        .route("/ports", get(port::list))
        .route("/routes", get(route::list))
        .route("/status", get(status::show))
        .route("/invitations", post(join::invite))
        .route("/routes/{hostname}", delete(route::delete))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), credential::guard_own))
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
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
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

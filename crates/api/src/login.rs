//! The hand-over of credentials to `tunnel login` (section 16.2 of the tunnel protocol): the agent waits under a key of
//! its own making, a person gives the API token on a page, and the agent gets what belongs into its `cert.pem`.

mod waiting;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use registry::{Object, Snapshot, Versioned, Zone};
use serde_json::json;

use crate::body;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

pub(crate) use waiting::{Key, Logins};

/// How long one poll is held open.
const POLL: Duration = Duration::from_secs(60);
/// A form with a key, a zone and a token.
const FORM: usize = 16 << 10;

const PAGE: &str = include_str!("login/page.html");
/// The page has no script and loads nothing, and no other page may show it in a frame.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Shows the page on which a person gives the API token.
pub(crate) async fn show(State(shared): State<Arc<Shared>>, query: Query) -> Response {
    match query.one("callback").and_then(Key::from_callback) {
        Some(key) => form(&shared.state.registry.snapshot(), key, StatusCode::OK, ""),
        None => message(
            StatusCode::BAD_REQUEST,
            "This link is not complete. Copy the whole link that `tunnel login` printed.",
        ),
    }
}

/// Takes the API token from the page.
pub(crate) async fn submit(State(shared): State<Arc<Shared>>, body: Body) -> Answer {
    let bytes = body::bytes(body, FORM).await?;
    let fields = Query::parse(&String::from_utf8_lossy(&bytes));
    let Some(key) = fields.one("key").and_then(Key::parse) else {
        return Ok(message(
            StatusCode::BAD_REQUEST,
            "The form is not complete. Open the link of `tunnel login` again.",
        ));
    };
    let snapshot = shared.state.registry.snapshot();
    let token = fields.one("token").unwrap_or_default().trim();
    let owner = match snapshot.authorize(token, Timestamp::now()) {
        Ok(token) => token,
        Err(problem) => return Ok(form(&snapshot, key, StatusCode::FORBIDDEN, &format!("Not accepted: {problem}."))),
    };
    let wanted = fields.one("zone").and_then(|id| id.parse().ok()).and_then(|id| snapshot.zone(id));
    let account = snapshot.account().id;
    let sees = |zone: &&Arc<Versioned<Zone>>| owner.terms.sees(Object::Zone(account, zone.id));
    let Some(zone) = wanted.filter(sees).or_else(|| snapshot.zones().find(sees)) else {
        return Ok(form(&snapshot, key, StatusCode::CONFLICT, "This edge has no domain yet."));
    };
    shared.logins.put(key, cert_pem(&snapshot, zone, token));
    tracing::info!(token = %owner.id, "an API token was given to an agent that asked to log in");
    Ok(message(StatusCode::OK, "Done. The agent has its credentials now; this page may be closed."))
}

/// Hands the credentials to the agent, once; waits for them if they are not there yet, unless the node is stopping.
pub(crate) async fn poll(State(shared): State<Arc<Shared>>, key: Result<Path<String>, PathRejection>) -> Answer {
    let key = key.ok().and_then(|Path(text)| Key::parse(&text)).ok_or_else(ApiError::no_path)?;
    let _place = shared.logins.place().ok_or_else(|| ApiError::too_many(POLL))?;
    let credentials = tokio::select! {
        credentials = shared.logins.wait(key) => Some(credentials),
        () = tokio::time::sleep(POLL) => None,
        // The agent polls again, and finds the node that comes after this one.
        () = shared.state.draining.cancelled() => None,
    };
    let credentials = credentials.ok_or_else(|| ApiError::no_object("credentials under that key yet"))?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], credentials).into_response())
}

/// Section 16.1 of the tunnel protocol.
fn cert_pem(snapshot: &Snapshot, zone: &Zone, token: &str) -> String {
    const LINE: usize = 64;
    let account = snapshot.account().id;
    let content = json!({ "zoneID": zone.id, "accountID": account, "apiToken": token }).to_string();
    let encoded = STANDARD.encode(content);
    let mut pem = String::from("-----BEGIN ARGO TUNNEL TOKEN-----\n");
    for start in (0..encoded.len()).step_by(LINE) {
        pem.push_str(&encoded[start..encoded.len().min(start + LINE)]);
        pem.push('\n');
    }
    pem.push_str("-----END ARGO TUNNEL TOKEN-----\n");
    pem
}

fn form(snapshot: &Snapshot, key: Key, status: StatusCode, problem: &str) -> Response {
    let mut zones = String::new();
    for zone in snapshot.zones() {
        // Host names have no character that means something in HTML.
        let _ = write!(zones, "<option value=\"{}\">{}</option>", zone.id, zone.name);
    }
    let form = format!(
        "<p>An agent asks for credentials. Go on only if you have just run <code>tunnel login</code> and its link \
         has the code <code>{short}</code>.</p>\
         <p role=\"alert\">{problem}</p>\
         <form method=\"post\" action=\"/argotunnel\" autocomplete=\"off\">\
         <input type=\"hidden\" name=\"key\" value=\"{key}\">\
         <label for=\"zone\">Domain</label><select id=\"zone\" name=\"zone\">{zones}</select>\
         <label for=\"token\">API token of this edge</label>\
         <input id=\"token\" name=\"token\" type=\"password\" required autofocus>\
         <button>Hand over</button></form>",
        short = key.short(),
        key = key.text(),
    );
    page(status, &form)
}

fn message(status: StatusCode, text: &str) -> Response {
    page(status, &format!("<p>{text}</p>"))
}

fn page(status: StatusCode, content: &str) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, PAGE_POLICY), (header::REFERRER_POLICY, "no-referrer")];
    (status, headers, Html(PAGE.replace("{content}", content))).into_response()
}

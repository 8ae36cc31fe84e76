//! The hand-over of credentials to `tunnel login` (section 16.2 of the tunnel protocol): the agent waits under a key of
//! its own making, a person gives the API token on a page, and the agent gets what belongs into its `cert.pem`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use registry::{Snapshot, Zone};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::body;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::query::Query;
use crate::state::Shared;

/// How long credentials wait for their agent; it polls ten times for a minute.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Credentials that wait at once. Only holders of a token put any there.
const MAX_WAITING: usize = 256;
/// How long one poll is held open.
const POLL: Duration = Duration::from_secs(60);
/// Polls that are held open at once; anybody may poll.
const MAX_POLLS: usize = 256;
/// A form with a key, a zone and a token.
const FORM: usize = 16 << 10;

const PAGE: &str = include_str!("login/page.html");
/// The page has no script and loads nothing, and no other page may show it in a frame.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Credentials that wait for their agents.
pub(crate) struct Logins {
    waiting: Mutex<HashMap<Key, (Instant, String)>>,
    came: Notify,
    polls: Semaphore,
}

impl Default for Logins {
    fn default() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new(), polls: Semaphore::new(MAX_POLLS) }
    }
}

/// An agent's public key: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key([u8; 32]);

impl Key {
    /// Reads base64url text, padded or not.
    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The key as the last part of a callback URL.
    fn from_callback(callback: &str) -> Option<Self> {
        let path = callback.split(['?', '#']).next()?;
        Self::parse(path.trim_end_matches('/').rsplit('/').next()?)
    }

    fn text(self) -> String {
        format!("{}=", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What a person compares, as the start of the key.
    fn short(self) -> String {
        self.text().chars().take(8).collect()
    }
}

impl Logins {
    fn put(&self, key: Key, credentials: String) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        waiting.retain(|_, (since, _)| now.duration_since(*since) < KEPT);
        if waiting.len() >= MAX_WAITING {
            let oldest = waiting.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| *key);
            oldest.and_then(|key| waiting.remove(&key));
        }
        waiting.insert(key, (now, credentials));
        drop(waiting);
        self.came.notify_waiters();
    }

    fn take(&self, key: Key) -> Option<String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, credentials) = waiting.remove(&key)?;
        (since.elapsed() < KEPT).then_some(credentials)
    }

    async fn wait(&self, key: Key) -> String {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            // From here on nothing that is put is missed.
            came.as_mut().enable();
            if let Some(credentials) = self.take(key) {
                return credentials;
            }
            came.await;
        }
    }
}

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
    if let Err(problem) = snapshot.authorize(token, Timestamp::now()) {
        return Ok(form(&snapshot, key, StatusCode::FORBIDDEN, &format!("Not accepted: {problem}.")));
    }
    let wanted = fields.one("zone").and_then(|id| id.parse().ok()).and_then(|id| snapshot.zone(id));
    let Some(zone) = wanted.or_else(|| snapshot.zones().next()) else {
        return Ok(form(&snapshot, key, StatusCode::CONFLICT, "This edge has no domain yet."));
    };
    shared.logins.put(key, cert_pem(&snapshot, zone, token));
    Ok(message(StatusCode::OK, "Done. The agent has its credentials now; this page may be closed."))
}

/// Hands the credentials to the agent, once; waits for them if they are not there yet.
pub(crate) async fn poll(State(shared): State<Arc<Shared>>, key: Result<Path<String>, PathRejection>) -> Answer {
    let key = key.ok().and_then(|Path(text)| Key::parse(&text)).ok_or_else(ApiError::no_path)?;
    let Ok(_place) = shared.logins.polls.try_acquire() else {
        return Err(ApiError::too_many(POLL));
    };
    match tokio::time::timeout(POLL, shared.logins.wait(key)).await {
        Ok(credentials) => Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], credentials).into_response()),
        Err(_) => Err(ApiError::no_object("credentials under that key yet")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn only_a_32_byte_key_is_one() {
        let key = Key::parse(KEY).unwrap();
        assert_eq!(key.text(), KEY);
        assert!(Key::parse(KEY.trim_end_matches('=')) == Some(key));
        assert!(Key::from_callback(&format!("https://login.example.test/{KEY}")) == Some(key));
        assert!(Key::from_callback(KEY) == Some(key));
        for text in ["", "favicon.ico", "AAEC", "<script>", &format!("{KEY}x"), &"A".repeat(44)] {
            assert!(Key::parse(text).is_none(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_wait_for_their_agent_but_not_for_ever() {
        let logins = Logins::default();
        let key = |byte| Key([byte; 32]);
        logins.put(key(1), "one".into());
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        assert_eq!(logins.take(key(1)).as_deref(), Some("one"));
        assert_eq!(logins.take(key(1)), None, "they are handed out once");
        logins.put(key(2), "two".into());
        tokio::time::advance(KEPT).await;
        assert_eq!(logins.take(key(2)), None);

        let (waited, ()) = tokio::join!(logins.wait(key(3)), async { logins.put(key(3), "three".into()) });
        assert_eq!(waited, "three");
        for byte in 0..=255 {
            logins.put(Key([byte; 32]), String::new());
        }
        logins.put(Key([7; 32].map(|byte: u8| byte + 1)), String::new());
        logins.put(Key(std::array::from_fn(|index| index as u8)), String::new());
        assert_eq!(logins.waiting.lock().unwrap().len(), MAX_WAITING);
    }
}

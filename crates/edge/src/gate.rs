//! Who may visit a tunnel: the rules of `policy`, with what they need of clocks, forms and counting.

mod attempts;
mod form;
mod proven;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request};
use policy::{Access, Basic, Hashed};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use wire::Body;

use crate::dispatch::Failure;
use crate::refusal;
use crate::visit::Caller;
use attempts::Attempts;
use form::{Form, Page};
use proven::Proven;

/// Where the form of the PIN page goes; no origin is asked for it.
const FORM_PATH: &str = "/.snicket/pin";
/// How long a visitor who knew the PIN is let in.
const SESSION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Slow checks of passwords at once: they must not take the processors from requests.
const CHECKS: usize = 2;
/// Whoever waits longer for a check is told to come again.
const CHECK: Duration = Duration::from_secs(10);

/// Decides who may visit.
pub(crate) struct Gate {
    attempts: Attempts,
    proven: Proven,
    checks: Arc<Semaphore>,
}

/// Why a request goes no further.
pub(crate) enum Stopped {
    /// It is refused.
    Refused(Failure),
    /// The edge itself has the answer.
    Answered(Box<Response<Body>>),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<&'static refusal::Refusal> for Stopped {
    fn from(refusal: &'static refusal::Refusal) -> Self {
        Self::Refused(Failure::from(refusal))
    }
}

/// What a guess has brought.
enum Guess {
    Right,
    Wrong,
    /// Too many were wrong, or too many are being checked.
    TooMany,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { attempts: Attempts::default(), proven: Proven::new(), checks: Arc::new(Semaphore::new(CHECKS)) }
    }

    /// Lets a request pass, or says what becomes of it. What it shows for the gate alone is taken out of its header.
    pub(crate) async fn pass(
        &self,
        access: &Access,
        host: &str,
        caller: Caller,
        head: &mut request::Parts,
        body: &mut Body,
    ) -> Result<(), Stopped> {
        if !access.allows(caller.remote.ip()) {
            return Err((&refusal::NOT_ALLOWED).into());
        }
        if !access.basic.is_empty() {
            self.check_basic(&access.basic, caller, &mut head.headers).await?;
        }
        if let Some(pin) = &access.pin {
            self.check_pin(pin, host, caller, head, body).await?;
        }
        Ok(())
    }

    async fn check_basic(&self, known: &[Basic], caller: Caller, headers: &mut HeaderMap) -> Result<(), Stopped> {
        let Some((user, password)) = Basic::shown(headers) else { return Err((&refusal::LOGIN_NEEDED).into()) };
        // A name that is not known costs as much as one that is, so that time does not tell the two apart.
        let found = known.iter().find(|basic| basic.user == user);
        let basic = found.unwrap_or(&known[0]);
        match self.guess(&basic.password, &user, password, caller).await {
            Guess::Right if found.is_some() => {
                headers.remove(header::AUTHORIZATION);
                Ok(())
            }
            Guess::Right | Guess::Wrong => Err((&refusal::LOGIN_NEEDED).into()),
            Guess::TooMany => Err((&refusal::TOO_MANY_ATTEMPTS).into()),
        }
    }

    async fn check_pin(
        &self,
        pin: &Hashed,
        host: &str,
        caller: Caller,
        head: &mut request::Parts,
        body: &mut Body,
    ) -> Result<(), Stopped> {
        if head.uri.path() == FORM_PATH && head.method == Method::POST {
            return Err(self.submitted(pin, host, caller, body).await);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let shown = form::take_cookie(&mut head.headers);
        if shown.iter().any(|value| policy::verify(pin, host, value, now)) {
            return Ok(());
        }
        if !form::wants_page(&head.method, &head.headers) {
            return Err((&refusal::PIN_NEEDED).into());
        }
        let back = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let back = if head.uri.path() == FORM_PATH { "/" } else { back };
        let page = Page { host, back, problem: None };
        Err(Stopped::Answered(Box::new(page.answer(StatusCode::UNAUTHORIZED, &head.method))))
    }

    async fn submitted(&self, pin: &Hashed, host: &str, caller: Caller, body: &mut Body) -> Stopped {
        let Some(Form { pin: shown, back }) = Form::read(body).await else {
            return (&refusal::REQUEST_BODY).into();
        };
        let answer = |status, problem| {
            let page = Page { host, back: &back, problem: Some(problem) };
            Stopped::Answered(Box::new(page.answer(status, &Method::POST)))
        };
        match self.guess(pin, "", shown, caller).await {
            Guess::Right => {
                let until = SystemTime::now() + SESSION;
                let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let value = policy::issue(pin, host, until);
                Stopped::Answered(Box::new(form::welcome(&value, SESSION, caller.is_secure(), &back)))
            }
            Guess::Wrong => answer(StatusCode::FORBIDDEN, "That is not the PIN."),
            Guess::TooMany => answer(StatusCode::TOO_MANY_REQUESTS, "Too many wrong attempts. Wait five minutes."),
        }
    }

    /// Checks a password: fast if it was right before, slowly and not often otherwise.
    async fn guess(&self, hashed: &Hashed, user: &str, password: String, caller: Caller) -> Guess {
        if self.proven.knows(hashed, user, &password) {
            return Guess::Right;
        }
        let Some(attempt) = self.attempts.begin(caller.remote.ip(), Instant::now()) else { return Guess::TooMany };
        let Ok(Ok(place)) = timeout(CHECK, Arc::clone(&self.checks).acquire_owned()).await else {
            return Guess::TooMany;
        };
        let (work, copy) = (hashed.clone(), password.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let _place = place;
            work.matches(copy.as_bytes())
        });
        if !checked.await.unwrap_or(false) {
            return Guess::Wrong;
        }
        self.attempts.forgive(attempt);
        self.proven.remember(hashed, user, &password);
        Guess::Right
    }
}

/// What a refusal for want of credentials has to say to programs (RFC 9110 section 11.6.1).
pub(crate) fn challenge(refusal: &refusal::Refusal) -> Option<(header::HeaderName, HeaderValue)> {
    match refusal.code {
        code if code == refusal::LOGIN_NEEDED.code => {
            Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"snicket\", charset=\"UTF-8\"")))
        }
        code if code == refusal::PIN_NEEDED.code => {
            Some((header::WWW_AUTHENTICATE, HeaderValue::from_static(form::CHALLENGE)))
        }
        code if code == refusal::TOO_MANY_ATTEMPTS.code => {
            Some((header::RETRY_AFTER, HeaderValue::from(attempts::WINDOW.as_secs())))
        }
        _ => None,
    }
}

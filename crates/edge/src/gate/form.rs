use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use policy::COOKIE;
use tokio::time::timeout;
use wire::Body;

use super::FORM_PATH;
use crate::refusal::{Escaped, wants_html};

/// Bytes of the form: a PIN, and a path to go back to.
const FORM: usize = 20 * 1024;
/// A form that takes longer is not going to come.
const FORM_TIME: Duration = Duration::from_secs(10);
/// No scheme of a registry; browsers show the page, and programs see why.
pub(super) const CHALLENGE: &str = "snicket-pin";

const PAGE: &str = include_str!("pin.html");
/// The page has no script and loads nothing, and no other page may show it in a frame.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The page that asks for the PIN.
pub(super) struct Page<'a> {
    pub(super) host: &'a str,
    /// Where the visitor wanted to go.
    pub(super) back: &'a str,
    pub(super) problem: Option<&'a str>,
}

impl Page<'_> {
    pub(super) fn answer(&self, status: StatusCode, method: &Method) -> Response<Body> {
        let text = PAGE
            .replace("{action}", FORM_PATH)
            .replace("{problem}", self.problem.unwrap_or_default())
            .replace("{host}", &Escaped(self.host).to_string())
            .replace("{back}", &Escaped(self.back).to_string());
        let length = HeaderValue::from(text.len());
        let mut answer = Response::new(if method == Method::HEAD { Body::empty() } else { Body::full(text) });
        *answer.status_mut() = status;
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_LENGTH, length);
        if status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::VARY, "accept, cookie"),
            (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::SERVER, "snicket"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// Lets a visitor in who knew the PIN: back to where they wanted to go, with the cookie.
pub(super) fn welcome(value: &str, session: Duration, secure: bool, back: &str) -> Response<Body> {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = session.as_secs();
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let back = HeaderValue::try_from(back).unwrap_or(HeaderValue::from_static("/"));
    fields.insert(header::LOCATION, back);
    fields.insert(header::SET_COOKIE, HeaderValue::try_from(cookie).expect("digits, letters and punctuation"));
    answer
}

/// What a visitor has filled in.
pub(super) struct Form {
    pub(super) pin: String,
    pub(super) back: String,
}

impl Form {
    /// Reads the form, if it is one and comes in time.
    pub(super) async fn read(body: &mut Body) -> Option<Self> {
        let body = std::mem::replace(body, Body::empty());
        let body = timeout(FORM_TIME, Limited::new(body, FORM).collect()).await.ok()?.ok()?.to_bytes();
        let mut form = Self { pin: String::new(), back: "/".to_owned() };
        for (name, value) in url::form_urlencoded::parse(&body) {
            match name.as_ref() {
                "pin" => form.pin = value.trim().to_owned(),
                "back" if is_local(&value) => form.back = value.into_owned(),
                _ => (),
            }
        }
        Some(form)
    }
}

/// A path on this host. Browsers take two slashes, or a slash and a backslash, for the beginning of another host.
fn is_local(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether whoever asks reads pages.
pub(super) fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && wants_html(headers)
}

/// Takes our cookie out of a header, since it is none of the origin's business, and answers what it held.
pub(super) fn take_cookie(headers: &mut HeaderMap) -> Vec<String> {
    let mut found = Vec::new();
    let mut kept = Vec::new();
    for field in headers.get_all(header::COOKIE) {
        // Bytes beyond ASCII are some other cookie's.
        let rest: Vec<&[u8]> = field
            .as_bytes()
            .split(|byte| *byte == b';')
            .filter(|pair| {
                match pair.trim_ascii().strip_prefix(COOKIE.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
                    Some(value) => {
                        found.extend(std::str::from_utf8(value).map(str::to_owned));
                        false
                    }
                    None => true,
                }
            })
            .collect();
        let rest = rest.join(&b';');
        kept.extend(HeaderValue::from_bytes(rest.trim_ascii()).ok().filter(|value| !value.is_empty()));
    }
    if !found.is_empty() {
        headers.remove(header::COOKIE);
        for value in kept {
            headers.append(header::COOKIE, value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cookie_is_taken_and_no_other() {
        let mut headers = HeaderMap::new();
        for field in ["a=1; snicket_pin=x.y; b=2", "snicket_pin=z", "xsnicket_pin=1; c=\"3\""] {
            headers.append(header::COOKIE, field.parse().unwrap());
        }
        assert_eq!(take_cookie(&mut headers), ["x.y", "z"]);
        let left: Vec<_> = headers.get_all(header::COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(left, ["a=1; b=2", "xsnicket_pin=1; c=\"3\""]);
    }

    #[test]
    fn the_way_back_stays_on_the_host() {
        for (path, local) in [
            ("/", true),
            ("/a?b=%2f#c", true),
            ("//evil.example", false),
            ("/\\evil.example", false),
            ("https://evil.example", false),
            ("/a\r\nset-cookie: x", false),
            ("", false),
        ] {
            assert_eq!(is_local(path), local, "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_form_is_read_and_no_more_of_it_than_there_can_be() {
        let read = async |text: &str| Form::read(&mut Body::full(text.to_owned())).await;
        let form = read("pin=+1234+&back=%2Fa%3Fb%3D1").await.unwrap();
        assert_eq!((form.pin.as_str(), form.back.as_str()), ("1234", "/a?b=1"));
        assert_eq!(read("back=%2F%2Fevil.example").await.unwrap().back, "/");
        assert!(read(&"x".repeat(FORM + 1)).await.is_none());
    }
}

//! Taking secrets out of what is shown. Nothing here changes what is kept or replayed.
//!
//! A value is taken out when its name says that it is a secret ([`is_secret`]): of header fields, cookies, parameters
//! in URLs and forms, and JSON members; besides, whatever looks like a JSON Web Token or follows the word `Bearer`. A
//! secret under a harmless name, or in a path, cannot be told from any other text.

use std::borrow::Cow;

/// Stands where a secret was.
pub const MASK: &str = "••••••";

/// Parts of names of secrets, in small letters without punctuation.
const PARTS: [&str; 22] = [
    "accesskey",
    "accountkey",
    "apikey",
    "assertion",
    "authorization",
    "cookie",
    "credential",
    "encryptionkey",
    "functionskey",
    "jwt",
    "masterkey",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "session",
    "sharedkey",
    "signature",
    "signingkey",
    "subscriptionkey",
    "token",
];

/// Names of secrets that are common words as parts of others.
const WHOLE: [&str; 9] = ["auth", "code", "key", "otp", "pass", "pin", "pwd", "sid", "sig"];

/// Longer names are no names.
const LONGEST_NAME: usize = 128;

/// A shorter text is no token that is worth hiding.
const SHORTEST_JWT: usize = 20;

/// Shorter words after `Bearer` are prose.
const SHORTEST_BEARER: usize = 6;

/// Whether something of this name is a secret.
pub fn is_secret(name: &str) -> bool {
    if name.len() > LONGEST_NAME {
        return false;
    }
    let bare = name.strip_prefix("x-").or_else(|| name.strip_prefix("X-")).unwrap_or(name);
    let plain: String = bare.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    // The headers of CORS speak of credentials and hold none.
    !plain.starts_with("accesscontrol")
        && (WHOLE.contains(&plain.as_str()) || PARTS.iter().any(|part| plain.contains(part)))
}

/// The value of a header field as it may be shown.
pub fn header<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if name.eq_ignore_ascii_case("cookie") {
        return Cow::Owned(value.split(';').map(cookie).collect::<Vec<_>>().join(";"));
    }
    if name.eq_ignore_ascii_case("set-cookie") {
        let (pair, attributes) = value.find(';').map_or((value, ""), |at| value.split_at(at));
        return Cow::Owned(format!("{}{attributes}", cookie(pair)));
    }
    if is_secret(name) {
        // The scheme of `Authorization` is no secret, and often what one looks for.
        return Cow::Owned(match value.split_once(' ') {
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => {
                format!("{scheme} {MASK}")
            }
            _ if value.is_empty() => String::new(),
            _ => MASK.to_owned(),
        });
    }
    let shown = bearer(value);
    chain(chain(shown, url), tokens)
}

/// A URL, or path and query, as it may be shown: without the values of secret parameters and without a password.
pub fn url(text: &str) -> Cow<'_, str> {
    chain(userinfo(text), |text| parameters(text, false))
}

/// A form, as browsers post it, as it may be shown.
pub fn form(text: &str) -> Cow<'_, str> {
    chain(parameters(text, true), tokens)
}

/// Any other text as it may be shown; it may be cut anywhere.
pub fn text(text: &str) -> Cow<'_, str> {
    chain(chain(chain(members(text), |text| parameters(text, false)), bearers), tokens)
}

/// The next change after those before; borrows as long as nothing was changed.
fn chain<'a>(text: Cow<'a, str>, next: impl for<'b> FnOnce(&'b str) -> Cow<'b, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => next(text),
        Cow::Owned(text) => Cow::Owned(next(&text).into_owned()),
    }
}

fn cookie(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) => format!("{name}={MASK}"),
        None if pair.trim().is_empty() => pair.to_owned(),
        None => MASK.to_owned(),
    }
}

/// What follows the word is a token, in which header ever it stands.
fn bearer(value: &str) -> Cow<'_, str> {
    const WORD: &[u8] = b"bearer";
    match value.as_bytes().windows(WORD.len()).position(|word| word.eq_ignore_ascii_case(WORD)) {
        Some(at) if value.len() > at + WORD.len() => Cow::Owned(format!("{} {MASK}", &value[..at + WORD.len()])),
        _ => Cow::Borrowed(value),
    }
}

/// The same in a longer text, where the word may stand for itself: what follows must be long enough for a token.
fn bearers(text: &str) -> Cow<'_, str> {
    const WORD: &[u8] = b"bearer ";
    let mut shown = Shown::new(text);
    let mut at = 0;
    while let Some(found) = text.as_bytes()[at..].windows(WORD.len()).position(|word| word.eq_ignore_ascii_case(WORD)) {
        let start = at + found + WORD.len();
        let is_token = |c: char| is_base64url(c) || matches!(c, '.' | '~' | '+' | '/' | '=');
        let length = text[start..].find(|c| !is_token(c)).unwrap_or(text.len() - start);
        if length >= SHORTEST_BEARER {
            shown.hide(start, start + length, MASK);
        }
        at = start + length;
    }
    shown.finish()
}

/// `scheme://user:password@host` without user and password.
fn userinfo(text: &str) -> Cow<'_, str> {
    let Some(start) = text.find("://").map(|at| at + 3) else { return Cow::Borrowed(text) };
    let authority = text[start..].split(['/', '?', '#', ' ']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => Cow::Owned(format!("{}{MASK}{}", &text[..start], &text[start + at..])),
        None => Cow::Borrowed(text),
    }
}

/// `name=value` behind `?`, `&`, `;` or `#`, and at the beginning if that is where a name stands.
fn parameters(text: &str, from_start: bool) -> Cow<'_, str> {
    let mut shown = Shown::new(text);
    let mut name_at = from_start.then_some(0);
    let mut at = 0;
    while at < text.len() {
        match (text.as_bytes()[at], name_at) {
            (b'?' | b'&' | b';' | b'#', _) => name_at = Some(at + 1),
            (b'=', Some(start)) => {
                name_at = None;
                if is_secret(&decoded(&text[start..at])) {
                    let value = &text[at + 1..];
                    let end = value.find(ends_value).unwrap_or(value.len());
                    shown.hide(at + 1, at + 1 + end, MASK);
                    at += end;
                }
            }
            (b'<' | b'>' | b'"' | b' ' | b'\n', _) => name_at = None,
            _ => {}
        }
        at += 1;
    }
    shown.finish()
}

fn ends_value(c: char) -> bool {
    matches!(c, '&' | ';' | '#' | '<' | '>' | '"' | '\'' | ',') || c.is_ascii_whitespace()
}

/// Percent-encoding undone, as far as it matters for comparing with ASCII.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('%') || name.len() > 3 * LONGEST_NAME {
        return Cow::Borrowed(name);
    }
    let mut plain = String::new();
    let mut rest = name;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let byte = rest.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The values of JSON members with secret names. Reads the text as a row of strings and signs, so that a cut or broken
/// text is no obstacle.
fn members(text: &str) -> Cow<'_, str> {
    let mut shown = Shown::new(text);
    let mut at = 0;
    while let Some(quote) = text[at..].find('"').map(|found| at + found) {
        let end = string_end(text, quote);
        at = end;
        let name = text[quote + 1..end].trim_end_matches('"');
        let colon = skip_spaces(text, end);
        if text.as_bytes().get(colon) != Some(&b':') || !is_secret(name) {
            continue;
        }
        let value = skip_spaces(text, colon + 1);
        at = match text.as_bytes().get(value) {
            Some(b'"') => {
                let end = string_end(text, value);
                let closed = end > value + 1 && text.as_bytes()[end - 1] == b'"';
                shown.hide(value + 1, if closed { end - 1 } else { end }, MASK);
                end
            }
            Some(b'[' | b'{') => {
                let end = nested_end(text, value);
                shown.hide(value, end, &format!("\"{MASK}\""));
                end
            }
            // Numbers of tokens are no tokens.
            Some(b'0'..=b'9' | b'-') if !name.ends_with('s') => {
                let length = text[value..].find(|c: char| !matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-'));
                let end = length.map_or(text.len(), |length| value + length);
                shown.hide(value, end, &format!("\"{MASK}\""));
                end
            }
            _ => value,
        };
    }
    shown.finish()
}

/// Behind the closing quote of the string that begins here, or the end of the text.
fn string_end(text: &str, quote: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Behind the bracket that closes the one here, or the end of the text.
fn nested_end(text: &str, open: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (open, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(text, at);
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn skip_spaces(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    (from..bytes.len()).find(|at| !bytes[*at].is_ascii_whitespace()).unwrap_or(bytes.len())
}

/// JSON Web Tokens: two or more dots between base64url, the first part being that of `{"`.
fn tokens(text: &str) -> Cow<'_, str> {
    let mut shown = Shown::new(text);
    let mut at = 0;
    while let Some(start) = text[at..].find("eyJ").map(|found| at + found) {
        let rest = &text[start..];
        let length = rest.find(|c: char| !is_base64url(c) && c != '.').unwrap_or(rest.len());
        let token = &rest[..length];
        let begins = !text[..start].ends_with(is_base64url);
        if begins && length >= SHORTEST_JWT && token.bytes().filter(|byte| *byte == b'.').count() >= 2 {
            shown.hide(start, start + length, MASK);
        }
        at = start + length;
    }
    shown.finish()
}

fn is_base64url(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// A text with pieces taken out, in their order.
struct Shown<'a> {
    text: &'a str,
    shown: String,
    /// What comes before is in `shown`.
    copied: usize,
}

impl<'a> Shown<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, shown: String::new(), copied: 0 }
    }

    fn hide(&mut self, from: usize, to: usize, stand_in: &str) {
        if from < to {
            self.shown.push_str(&self.text[self.copied..from]);
            self.shown.push_str(stand_in);
            self.copied = to;
        }
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.shown.push_str(&self.text[self.copied..]);
        Cow::Owned(self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_any_spelling() {
        for name in ["Authorization", "x-api-key", "X-Auth", "access_token", "clientSecret", "PASSWORD", "key", "sid"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["accept", "keyboard", "encoding", "sec-websocket-key", "access-control-allow-credentials", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn headers_keep_what_is_no_secret() {
        for (name, value, shown) in [
            ("authorization", "Bearer abc.def", "Bearer ••••••"),
            ("authorization", "abcdef", "••••••"),
            ("x-api-key", "two words", "two ••••••"),
            ("cookie", "a=1; b=two=2; c", "a=••••••; b=••••••;••••••"),
            ("set-cookie", "sid=abc; Path=/; HttpOnly", "sid=••••••; Path=/; HttpOnly"),
            (
                "location",
                "https://u:p@h/cb?code=1&x=2#access_token=3",
                "https://••••••@h/cb?code=••••••&x=2#access_token=••••••",
            ),
            ("link", "<https://h/?token=abc>; rel=next", "<https://h/?token=••••••>; rel=next"),
            ("sec-websocket-protocol", "base64url.bearer.abcdef", "base64url.bearer ••••••"),
            ("content-type", "text/html", "text/html"),
            ("x-any", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_def", "••••••"),
        ] {
            assert_eq!(header(name, value), shown, "{name}: {value}");
        }
    }

    #[test]
    fn parameters_are_found_in_any_encoding() {
        assert_eq!(url("/a?to%6ben=1&b=2&tok%65n=&sig=x#y"), "/a?to%6ben=••••••&b=2&tok%65n=&sig=••••••#y");
        assert_eq!(url("/no/query=token=1"), "/no/query=token=1");
        assert_eq!(form("password=a+b&user=c"), "password=••••••&user=c");
        assert_eq!(form("user=c&%E2%82%ACpassword=%%%"), "user=c&%E2%82%ACpassword=••••••");
    }

    #[test]
    fn json_members_are_found_in_whole_and_cut_texts() {
        for (json, shown) in [
            (r#"{"user":"a","password":"b\"c","n":1}"#, r#"{"user":"a","password":"••••••","n":1}"#),
            (r#"{"pin" : 1234, "max_tokens":5}"#, r#"{"pin" : "••••••", "max_tokens":5}"#),
            (r#"{"tokens":["a",["]"]],"x":["b"]}"#, r#"{"tokens":"••••••","x":["b"]}"#),
            (r#"{"credentials":{"a":{"b":"}"}}}"#, r#"{"credentials":"••••••"}"#),
            (r#"{"token":"cut of"#, r#"{"token":"••••••"#),
            (r#"{"tokens":["cut","#, r#"{"tokens":"••••••""#),
            (r#"{"token":""}"#, r#"{"token":""}"#),
            (r#"["token","password"]"#, r#"["token","password"]"#),
            (r#"{"token":null}"#, r#"{"token":null}"#),
            (r#"{"token":"\"#, r#"{"token":"••••••"#),
        ] {
            assert_eq!(text(json), shown, "{json}");
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        let page = "<p class=\"key\">A page; with \"quotes\" &amp; a == b, eyJust text…</p>";
        assert!(matches!(text(page), Cow::Borrowed(same) if same == page));
        assert_eq!(text("[\"BEARER abc.def/1=\"] a bearer of news"), "[\"BEARER ••••••\"] a bearer of news");
        assert_eq!(text("<a href=\"/x?a=1&amp;token=abc\">"), "<a href=\"/x?a=1&amp;token=••••••\">");
    }
}

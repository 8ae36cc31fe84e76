//! How origins are asked for their health. Pure.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::number::whole;
use super::{BadTerms, MAX_DESCRIPTION_CHARS, check_number, check_text};
use crate::resource::{Key, Resource};
use crate::{Hostname, MonitorId};

/// How the origins of pools are asked for their health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// Names it for good.
    pub id: MonitorId,
    /// What it is to do.
    #[serde(flatten)]
    pub terms: MonitorTerms,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
}

impl Resource for Monitor {
    const KIND: &'static str = "monitors";

    fn key(&self) -> Key {
        Self::key_of(self.id)
    }
}

impl Monitor {
    pub(crate) fn key_of(id: MonitorId) -> Key {
        Key::new(Self::KIND, &id)
    }
}

/// What origins are asked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorType {
    /// A request in plain.
    #[default]
    Http,
    /// A request over TLS.
    Https,
    /// A connection.
    Tcp,
    /// A datagram, which an origin without the service answers with an error.
    UdpIcmp,
    /// An echo.
    IcmpPing,
    /// A greeting of a mail server.
    Smtp,
    /// A call of gRPC's own service for health (`grpc.health.v1`) in plain; the path is the service that is asked for, empty for all.
    Grpc,
    /// The same over TLS.
    Grpcs,
}

impl MonitorType {
    /// Whether it is an HTTP request.
    pub fn is_request(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether it is a call of gRPC.
    pub fn is_call(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }
}

/// What a monitor is to do, in the members of the API. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorTerms {
    /// What origins are asked over.
    #[serde(rename = "type", default)]
    pub kind: MonitorType,
    /// The request's method; empty for what is no request.
    #[serde(default)]
    pub method: Box<str>,
    /// The request's path and query; empty for what is no request.
    #[serde(default)]
    pub path: Box<str>,
    /// 0: the usual one.
    #[serde(default, deserialize_with = "whole")]
    pub port: u16,
    /// The request's headers.
    #[serde(default)]
    pub header: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// Which status codes are well: `200`, `2xx`, `200-299`, or several with commas between. Empty for what is no request.
    #[serde(default)]
    pub expected_codes: Box<str>,
    /// What the answer has to contain, in any case.
    #[serde(default)]
    pub expected_body: Box<str>,
    /// From the beginning of one question to that of the next.
    #[serde(default = "usual_interval", deserialize_with = "whole")]
    pub interval: u32,
    /// What takes longer has failed.
    #[serde(default = "usual_timeout", deserialize_with = "whole")]
    pub timeout: u32,
    /// So often more it is asked at once before it has failed.
    #[serde(default = "usual_retries", deserialize_with = "whole")]
    pub retries: u32,
    /// So many in a row have to be well until an origin is; 0: one.
    #[serde(default, deserialize_with = "whole")]
    pub consecutive_up: u32,
    /// So many in a row have to fail until an origin is not well; 0: one.
    #[serde(default, deserialize_with = "whole")]
    pub consecutive_down: u32,
    /// Where the origin sends one on to is asked instead.
    #[serde(default)]
    pub follow_redirects: bool,
    /// The origin's certificate is not checked.
    #[serde(default)]
    pub allow_insecure: bool,
    /// The zone whose settings hold for the question.
    #[serde(default)]
    pub probe_zone: Box<str>,
    /// For people.
    #[serde(default)]
    pub description: Box<str>,
}

fn usual_interval() -> u32 {
    60
}

fn usual_timeout() -> u32 {
    5
}

fn usual_retries() -> u32 {
    2
}

impl MonitorTerms {
    /// The same, to begin with for this type: what is said about requests goes where it has no meaning.
    pub fn as_type(&self, kind: MonitorType) -> Self {
        let is_alike = (kind.is_request() && self.kind.is_request()) || (kind.is_call() && self.kind.is_call());
        if kind == self.kind || is_alike {
            return Self { kind, ..self.clone() };
        }
        let [method, path, expected_codes, expected_body] = [const { "" }; 4].map(Box::from);
        let header = BTreeMap::new();
        Self { kind, method, path, expected_codes, expected_body, header, ..self.clone() }
    }

    /// An hour: what is asked less often is not watched.
    pub const MAX_INTERVAL: u32 = 3600;
    /// Questions more at once.
    pub const MAX_RETRIES: u32 = 10;
    /// In a row.
    pub const MAX_CONSECUTIVE: u32 = 100;
    /// Of path and query, and of a header's value.
    pub const MAX_PATH_BYTES: usize = 2048;
    /// Of what the answer has to contain.
    pub const MAX_BODY_CHARS: usize = 10_240;
    /// Headers of a request, and values of each.
    pub const MAX_HEADERS: usize = 32;

    /// The same in the one form in which it is kept, if it will do.
    ///
    /// # Errors
    /// What will not do, and what would.
    pub fn checked(mut self) -> Result<Self, BadTerms> {
        if self.kind.is_request() {
            self.check_request()?
        } else {
            self.check_no_request()?
        }
        self.check_times()?;
        if !self.probe_zone.is_empty() {
            let zone = Hostname::parse(&self.probe_zone).map_err(|problem| BadTerms::of("probe_zone", problem))?;
            self.probe_zone = zone.as_str().into();
        }
        check_text("description", &self.description, MAX_DESCRIPTION_CHARS)?;
        Ok(self)
    }

    fn check_request(&mut self) -> Result<(), BadTerms> {
        if self.method.is_empty() {
            self.method = "GET".into();
        }
        self.method = self.method.to_ascii_uppercase().into();
        if !matches!(&*self.method, "GET" | "HEAD" | "OPTIONS") {
            return Err(BadTerms::of("method", "GET, HEAD or OPTIONS is wanted"));
        }
        if self.path.is_empty() {
            self.path = "/".into();
        }
        let is_path = self.path.starts_with('/') && self.path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path || self.path.len() > Self::MAX_PATH_BYTES {
            let most = Self::MAX_PATH_BYTES;
            let problem = format_args!("a path such as /health is wanted, at most {most} characters long, no spaces");
            return Err(BadTerms::of("path", problem));
        }
        if self.expected_codes.is_empty() {
            self.expected_codes = "200".into();
        }
        self.expected_codes = codes(&self.expected_codes)
            .ok_or_else(|| BadTerms::of("expected_codes", "codes such as 200, 2xx, 200-299 or 200,302 are wanted"))?;
        check_text("expected_body", &self.expected_body, Self::MAX_BODY_CHARS)?;
        check_headers(&self.header)
    }

    fn check_no_request(&mut self) -> Result<(), BadTerms> {
        let method = if self.kind == MonitorType::Tcp { "connection_established" } else { "" };
        if !self.method.is_empty() && *self.method != *method {
            let problem = if method.is_empty() { "this type has none" } else { "connection_established is wanted" };
            return Err(BadTerms::of("method", problem));
        }
        self.method = method.into();
        for (member, is_there) in [
            ("path", !self.path.is_empty() && !self.kind.is_call()),
            ("header", !self.header.is_empty()),
            ("expected_codes", !self.expected_codes.is_empty()),
            ("expected_body", !self.expected_body.is_empty()),
        ] {
            if is_there {
                return Err(BadTerms::of(member, "only for the types http and https (path: for grpc, too)"));
            }
        }
        let is_service = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if self.path.len() > Self::MAX_PATH_BYTES || !self.path.chars().all(is_service) {
            return Err(BadTerms::of("path", "the name of a gRPC service is wanted, such as shop.v1.Shop, or nothing"));
        }
        if self.kind == MonitorType::Tcp && self.port == 0 {
            return Err(BadTerms::of("port", "a number from 1 to 65535 is wanted for the type tcp"));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), BadTerms> {
        check_number("interval", self.interval, 1, Self::MAX_INTERVAL)?;
        check_number("timeout", self.timeout, 1, Self::MAX_INTERVAL)?;
        check_number("retries", self.retries, 0, Self::MAX_RETRIES)?;
        check_number("consecutive_up", self.consecutive_up, 0, Self::MAX_CONSECUTIVE)?;
        check_number("consecutive_down", self.consecutive_down, 0, Self::MAX_CONSECUTIVE)?;
        let longest = self.timeout * (self.retries + 1);
        if longest > self.interval {
            let problem = format_args!(
                "timeout × (retries + 1) is {longest} seconds, and no more than the interval ({}) is possible",
                self.interval
            );
            return Err(BadTerms::of("timeout", problem));
        }
        Ok(())
    }
}

/// Status codes in their one form; `None` if they are none.
fn codes(text: &str) -> Option<Box<str>> {
    /// No list of codes that means something is longer.
    const MAX_BYTES: usize = 1000;
    let code = |text: &str| {
        let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|code| is_number && (100..=599).contains(code))
    };
    let is_range = |part: &str| match part.split_once('-') {
        Some((first, last)) => code(first).zip(code(last)).is_some_and(|(first, last)| first <= last),
        None => {
            code(part).is_some()
                || (part.len() == 3 && part.ends_with("xx") && matches!(part.as_bytes()[0], b'1'..=b'5'))
        }
    };
    let text: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_lowercase();
    (text.len() <= MAX_BYTES && text.split(',').all(is_range)).then(|| text.into())
}

fn check_headers(headers: &BTreeMap<Box<str>, Vec<Box<str>>>) -> Result<(), BadTerms> {
    let most = MonitorTerms::MAX_HEADERS;
    if headers.len() > most {
        return Err(BadTerms::of("header", format_args!("at most {most} are wanted")));
    }
    for (name, values) in headers {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(BadTerms::of("header", format_args!("{name:?} is no header's name")));
        }
        let is_value =
            |value: &str| value.len() <= MonitorTerms::MAX_PATH_BYTES && HeaderValue::from_str(value).is_ok();
        if values.is_empty() || values.len() > most || !values.iter().all(|value| is_value(value)) {
            let bytes = MonitorTerms::MAX_PATH_BYTES;
            let problem = format_args!("1 to {most} values of at most {bytes} visible characters are wanted");
            return Err(BadTerms::of(format_args!("header.{name}"), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<MonitorTerms, String> {
        let terms: MonitorTerms = serde_json::from_value(value).map_err(|error| error.to_string())?;
        terms.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_is_as_usual() {
        let usual = read(json!({})).unwrap();
        assert_eq!((usual.kind, &*usual.method, &*usual.path), (MonitorType::Http, "GET", "/"));
        assert_eq!((&*usual.expected_codes, usual.interval, usual.timeout, usual.retries), ("200", 60, 5, 2));
        let tcp = read(json!({ "type": "tcp", "port": "5432" })).unwrap();
        assert_eq!((&*tcp.method, &*tcp.path, tcp.port), ("connection_established", "", 5432));
        assert_eq!(&*read(json!({ "type": "icmp_ping" })).unwrap().method, "");
    }

    #[test]
    fn what_is_kept_is_kept_again_as_it_is() {
        for value in [
            json!({ "type": "https", "method": "head", "expected_codes": " 2XX , 302", "probe_zone": "Example.Test." }),
            json!({ "header": { "Host": ["a.test"], "X-App": ["1", "2"] }, "port": 8080.0 }),
            json!({ "type": "smtp", "interval": "10", "timeout": 3, "retries": 0 }),
            json!({ "type": "grpcs", "path": "shop.v1.Shop", "port": 8443 }),
        ] {
            let first = read(value).unwrap();
            assert_eq!(read(serde_json::to_value(&first).unwrap()).unwrap(), first);
        }
    }

    #[test]
    fn codes_are_lists_of_codes_ranges_and_classes() {
        for (text, expected) in [
            ("200", Some("200")),
            ("2xx", Some("2xx")),
            ("2XX, 301-399", Some("2xx,301-399")),
            ("", None),
            ("200,", None),
            ("20", None),
            ("0200", None),
            ("600", None),
            ("099", None),
            ("299-200", None),
            ("200-", None),
            ("6xx", None),
            ("xxx", None),
            ("2xx-3xx", None),
            ("+20", None),
            ("ok", None),
        ] {
            assert_eq!(codes(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_will_not_do_is_refused_by_its_name() {
        for (value, member) in [
            (json!({ "type": "ftp" }), "ftp"),
            (json!({ "method": "DELETE" }), "method"),
            (json!({ "path": "health" }), "path"),
            (json!({ "path": "/a b" }), "path"),
            (json!({ "path": format!("/{}", "a".repeat(3000)) }), "path"),
            (json!({ "expected_codes": "ok" }), "expected_codes"),
            (json!({ "expected_body": "a".repeat(20_000) }), "expected_body"),
            (json!({ "header": { "a b": ["1"] } }), "header"),
            (json!({ "header": { "a": [] } }), "header.a"),
            (json!({ "header": { "a": ["1\n2"] } }), "header.a"),
            (json!({ "interval": 0 }), "interval"),
            (json!({ "interval": 5000 }), "interval"),
            (json!({ "timeout": 0 }), "timeout"),
            (json!({ "retries": 11 }), "retries"),
            (json!({ "interval": 10, "timeout": 5, "retries": 2 }), "timeout"),
            (json!({ "consecutive_up": 101 }), "consecutive_up"),
            (json!({ "consecutive_down": 101 }), "consecutive_down"),
            (json!({ "port": 70_000 }), "number"),
            (json!({ "type": "tcp" }), "port"),
            (json!({ "type": "grpc", "path": "a b" }), "path"),
            (json!({ "type": "grpc", "expected_codes": "200" }), "expected_codes"),
            (json!({ "type": "tcp", "port": 1, "path": "/" }), "path"),
            (json!({ "type": "tcp", "port": 1, "method": "GET" }), "method"),
            (json!({ "probe_zone": "a b" }), "probe_zone"),
            (json!({ "description": "a\0" }), "description"),
        ] {
            let problem = read(value.clone()).unwrap_err();
            assert!(problem.contains(member), "{value}: {problem}");
        }
    }
}

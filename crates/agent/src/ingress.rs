//! Ingress rules (section 14): which origin serves a request. Pure: text and requests in, rules and choices out.
//!
//! Rules come from three places (the local file, a pushed document, the command line), each of which fills
//! [`RuleDraft`]s; [`Rules::build`] checks them all in the same way.

mod access;
mod document;
mod host;
mod options;
mod service;

use std::borrow::Cow;
use std::fmt;

use regex::{Regex, RegexBuilder};

pub use access::Access;
pub use document::{Document, DocumentError, WarpRouting};
pub use host::HostPattern;
pub use options::{IpRule, OriginOptions, Overrides};
pub use service::{Service, ServiceError};

/// Compiled sizes in bytes that a path expression is allowed and charged with, the smallest that fits. A plain prefix
/// fits the first.
const PATTERN_SIZES: [usize; 4] = [4 << 10, 32 << 10, 256 << 10, 1 << 20];

/// What the expressions of one configuration may be charged with together, so that a pushed one cannot eat the memory.
const MAX_PATTERNS: usize = 64 << 20;

/// Rules in one configuration; each request walks them.
const MAX_RULES: usize = 10_000;

/// The rules of a tunnel, checked. The last one matches everything.
#[derive(Debug, Clone)]
pub struct Rules {
    list: Vec<Rule>,
    /// What a rule that says nothing would be served by.
    defaults: OriginOptions,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The hostnames it serves; `None` is all.
    pub hostname: Option<HostPattern>,
    /// The paths it serves; `None` is all.
    pub path: Option<PathPattern>,
    /// Where matching requests go.
    pub service: Service,
    /// How the origin is spoken to; defaults filled in.
    pub options: OriginOptions,
}

/// A regular expression on the decoded path.
#[derive(Debug, Clone)]
pub struct PathPattern(Regex);

impl PathPattern {
    /// Compiles the expression and takes its size off the `room`.
    fn compile(pattern: &str, room: &mut usize) -> Result<Self, String> {
        for size in PATTERN_SIZES {
            if size > *room {
                return Err(format!("the expressions of all rules together are larger than {MAX_PATTERNS} bytes"));
            }
            match RegexBuilder::new(pattern).size_limit(size).build() {
                Ok(regex) => {
                    *room -= size;
                    return Ok(Self(regex));
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let [.., largest] = PATTERN_SIZES;
        Err(format!("it is larger than {largest} bytes when compiled"))
    }

    /// Whether a part of the path (percent escapes decoded, no query) matches.
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A rule as written, not checked yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleDraft {
    /// `hostname`.
    pub hostname: Option<String>,
    /// `path`.
    pub path: Option<String>,
    /// `service`.
    pub service: Option<String>,
    /// `originRequest`.
    pub overrides: Overrides,
}

/// Where in a rule a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The rule as a whole.
    Rule,
    /// Its `hostname`.
    Hostname,
    /// Its `path`.
    Path,
    /// Its `service`.
    Service,
    /// Its `originRequest`.
    OriginRequest,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ingress rule {}: {reason}", .index + 1)]
pub struct RuleError {
    /// Which rule, from 0.
    pub index: usize,
    /// Where in it.
    pub field: Field,
    /// Why, and what to write instead.
    pub reason: String,
}

impl Rules {
    /// Checks drafts and fills in defaults. No drafts at all: everything is answered 503.
    ///
    /// # Errors
    /// All problems of all rules.
    pub fn build(drafts: &[RuleDraft], defaults: &Overrides) -> Result<Self, Vec<RuleError>> {
        if drafts.is_empty() {
            return Ok(Self::nothing());
        }
        if drafts.len() > MAX_RULES {
            let reason = format!("there are {} rules, more than {MAX_RULES}", drafts.len());
            return Err(vec![RuleError { index: MAX_RULES, field: Field::Rule, reason }]);
        }
        let mut errors = Vec::new();
        let mut rules = Vec::with_capacity(drafts.len());
        let mut room = MAX_PATTERNS;
        for (index, draft) in drafts.iter().enumerate() {
            let last = index + 1 == drafts.len();
            if let Some(rule) = Rule::build(index, last, draft, defaults, &mut room, &mut errors) {
                rules.push(rule);
            }
        }
        if errors.is_empty() {
            Ok(Self { list: rules, defaults: OriginOptions::resolve(&[&Overrides::default(), defaults]) })
        } else {
            Err(errors)
        }
    }

    /// One rule for everything.
    ///
    /// # Errors
    /// As [`Rules::build`].
    pub fn single(service: &str, overrides: Overrides) -> Result<Self, Vec<RuleError>> {
        let draft = RuleDraft { service: Some(service.to_owned()), overrides, ..RuleDraft::default() };
        Self::build(&[draft], &Overrides::default())
    }

    /// The rules of an agent that was told nothing: 503 for everything.
    pub fn nothing() -> Self {
        let rule = Rule {
            hostname: None,
            path: None,
            service: Service::Status(http::StatusCode::SERVICE_UNAVAILABLE),
            options: OriginOptions::default(),
        };
        Self { list: vec![rule], defaults: OriginOptions::default() }
    }

    /// The first rule for this host (a port is cut off, case does not matter) and raw path, with its index.
    pub fn find(&self, host: &str, path: &str) -> (usize, &Rule) {
        let mut host = Cow::Borrowed(host::without_port(host));
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            host.to_mut().make_ascii_lowercase();
        }
        let decoded = if path.contains('%') { Cow::Owned(percent_decoded(path)) } else { Cow::Borrowed(path) };
        let chosen = self.list.iter().enumerate().find(|(_, rule)| rule.matches(&host, &decoded));
        chosen.unwrap_or_else(|| {
            let last = self.list.last().expect("rules hold at least the rule for everything");
            (self.list.len() - 1, last)
        })
    }

    /// The rules in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.list.iter()
    }
}

impl Rule {
    fn build(
        index: usize,
        last: bool,
        draft: &RuleDraft,
        defaults: &Overrides,
        room: &mut usize,
        errors: &mut Vec<RuleError>,
    ) -> Option<Self> {
        let before = errors.len();
        let mut refuse = |field, reason| errors.push(RuleError { index, field, reason });
        let hostname = draft.hostname_pattern().map_err(|reason| refuse(Field::Hostname, reason)).ok().flatten();
        let path = draft.path_pattern(room).map_err(|reason| refuse(Field::Path, reason)).ok().flatten();
        if let Some(reason) = draft.misplaced(last) {
            refuse(Field::Rule, reason.to_owned());
        }
        let options = OriginOptions::resolve(&[&draft.overrides, defaults]);
        if let Some(reason) = options.refusal() {
            refuse(Field::OriginRequest, reason);
        }
        let service = draft.service(options.bastion_mode).map_err(|reason| refuse(Field::Service, reason)).ok();
        let service = service.filter(|_| errors.len() == before)?;
        Some(Self { hostname, path, service, options })
    }

    /// Whether the rule serves this host (lower case, no port) and decoded path.
    fn matches(&self, host: &str, path: &str) -> bool {
        self.hostname.as_ref().is_none_or(|pattern| pattern.matches(host))
            && self.path.as_ref().is_none_or(|pattern| pattern.matches(path))
    }
}

impl RuleDraft {
    fn hostname_pattern(&self) -> Result<Option<HostPattern>, String> {
        self.hostname.as_deref().map_or(Ok(None), HostPattern::parse)
    }

    fn path_pattern(&self, room: &mut usize) -> Result<Option<PathPattern>, String> {
        let Some(path) = self.path.as_deref().filter(|path| !path.is_empty()) else { return Ok(None) };
        let compiled = PathPattern::compile(path, room);
        compiled.map(Some).map_err(|reason| format!("{path:?} is no path expression: {reason}"))
    }

    /// Why the rule cannot stand where it stands, if so.
    fn misplaced(&self, last: bool) -> Option<&'static str> {
        let everything = self.hostname.as_deref().is_none_or(|host| matches!(host, "" | "*"))
            && self.path.as_deref().is_none_or(str::is_empty);
        match (last, everything) {
            (true, false) => Some(
                "the last rule must match everything: it may have neither hostname nor path; \
                 add a rule such as \"service: http_status:404\" at the end",
            ),
            (false, true) => {
                Some("this rule matches everything, so the rules after it would never be used; move it to the end")
            }
            (true, true) | (false, false) => None,
        }
    }

    fn service(&self, bastion: bool) -> Result<Service, String> {
        match self.service.as_deref() {
            Some(text) => Service::parse(text, bastion).map_err(|error| error.to_string()),
            None if bastion => Ok(Service::Bastion),
            None => Err("the service is missing; write for example service: http://localhost:8080".to_owned()),
        }
    }
}

/// For people: `app.example.test/api.* → http://localhost:8080`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hostname {
            Some(hostname) => write!(f, "{hostname}")?,
            None => f.write_str("*")?,
        }
        if let Some(path) = &self.path {
            write!(f, " path {path}")?;
        }
        write!(f, " -> {}", self.service)
    }
}

/// Decodes percent escapes; escapes that are none, and bytes that are not UTF-8, stay visible as they can.
pub(crate) fn percent_decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escape = (bytes[index] == b'%')
            .then(|| bytes.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| Some((hex(digits[0])? << 4) | hex(digits[1])?));
        decoded.push(escape.unwrap_or(bytes[index]));
        index += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;

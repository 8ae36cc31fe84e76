//! What leads a visitor to the same member again.

use http::{HeaderMap, HeaderValue, header};
use registry::{Affinity, AffinityAttributes, Failover, MemberId, SameSite, Secure, Steering};

use crate::choice::hash;
use crate::visitor::Visitor;

/// The cookie of a session. Its value is the member's id: whoever forges one chooses a member of the load balancer that visitors
/// are led to in any case, and whoever reads one learns no address.
pub const COOKIE: &str = "__cflb";

/// Cookies of one request that are looked at: browsers send fewer.
const MOST_COOKIES: usize = 300;

/// What a load balancer says of sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    affinity: Affinity,
    ttl: u32,
    attributes: AffinityAttributes,
}

/// What a request says of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Session {
    /// Where it was led before.
    pub(crate) member: Option<MemberId>,
    /// What chooses its member, always the same one, where it was led nowhere before.
    pub(crate) key: Option<u64>,
}

impl Sessions {
    pub(crate) fn new(steering: &Steering) -> Self {
        Self {
            affinity: steering.session_affinity,
            ttl: steering.session_affinity_ttl.unwrap_or_default(),
            attributes: steering.session_affinity_attributes.clone(),
        }
    }

    /// The session of this request.
    pub(crate) fn of(&self, visitor: &Visitor<'_>) -> Session {
        let member = || cookie(visitor.headers, COOKIE).and_then(|value| value.parse().ok());
        match self.affinity {
            Affinity::None => Session::default(),
            Affinity::Cookie => Session { member: member(), key: None },
            Affinity::IpCookie => Session { member: member(), key: Some(visitor.key()) },
            Affinity::Header => Session { member: None, key: self.header_key(visitor.headers) },
        }
    }

    /// Whether there are any.
    pub(crate) fn are_kept(&self) -> bool {
        self.affinity != Affinity::None
    }

    /// Whether sessions are found again by headers alone, so that new ones cannot be told from those that there are.
    pub(crate) fn is_by_header(&self) -> bool {
        self.affinity == Affinity::Header
    }

    pub(crate) fn failover(&self) -> Failover {
        self.attributes.zero_downtime_failover
    }

    /// The cookie that leads here again; `None` where cookies lead nobody.
    pub(crate) fn set_cookie(&self, member: MemberId, is_secure: bool) -> Option<HeaderValue> {
        if !matches!(self.affinity, Affinity::Cookie | Affinity::IpCookie) {
            return None;
        }
        let is_secure = match self.attributes.secure {
            Secure::Auto => is_secure,
            Secure::Always => true,
            Secure::Never => false,
        };
        let same_site = match self.attributes.samesite {
            SameSite::Strict => "Strict",
            // Browsers take None only from those that are secure.
            SameSite::None | SameSite::Auto if is_secure => "None",
            SameSite::None | SameSite::Auto | SameSite::Lax => "Lax",
        };
        let secure = if is_secure { "; Secure" } else { "" };
        let text = format!("{COOKIE}={member}; Path=/; Max-Age={}; HttpOnly; SameSite={same_site}{secure}", self.ttl);
        HeaderValue::try_from(text).ok()
    }

    /// What the headers make together; `None` if they make no session.
    fn header_key(&self, headers: &HeaderMap) -> Option<u64> {
        let (mut key, mut found) = (0, 0);
        for name in &self.attributes.headers {
            let before = key;
            match name.strip_prefix("cookie:") {
                Some(name) => {
                    if let Some(value) = cookie(headers, name) {
                        key = folded(key, value.as_bytes());
                    }
                }
                None => {
                    for value in headers.get_all(&**name) {
                        key = folded(key, value.as_bytes());
                    }
                }
            }
            found += usize::from(before != key);
            // One that is missing is not the same as the next one in its place.
            key = hash::mix(key);
        }
        let wanted = if self.attributes.require_all_headers { self.attributes.headers.len() } else { 1 };
        (found >= wanted).then_some(key)
    }
}

/// The value of the first cookie of this name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).take(MOST_COOKIES);
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn folded(key: u64, bytes: &[u8]) -> u64 {
    let length = hash::mixed(key, bytes.len() as u64 + 1);
    bytes.chunks(8).fold(length, |key, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash::mixed(key, u64::from_le_bytes(word))
    })
}

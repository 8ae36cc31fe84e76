//! What a token may: pure decisions.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use policy::Network;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{AccountId, PolicyId, ZoneId};

/// A part of the API for which there are permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Who visits through Access, and how they log in.
    Access,
    /// The account itself.
    Account,
    /// Applications over TCP and UDP.
    Applications,
    /// What is cached.
    Cache,
    /// Certificates.
    Certificates,
    /// Devices.
    Devices,
    /// DNS records.
    Dns,
    /// Load balancers, and with them what they lead to.
    LoadBalancers,
    /// Pools and monitors.
    Pools,
    /// Rules and rate limits.
    Rules,
    /// API tokens.
    Tokens,
    /// Tunnels, their configurations, ports and access rules.
    Tunnels,
    /// Zones themselves.
    Zone,
    /// Settings of zones.
    ZoneSettings,
}

/// What may be done in an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Permission {
    /// Where.
    pub area: Area,
    /// Whether it may be changed; otherwise only read.
    pub write: bool,
}

impl Permission {
    /// Whether who has this one may do the other, too.
    fn includes(self, other: Self) -> bool {
        self.is_about(other.area) && (self.write || !other.write)
    }

    /// Whether it is also one for this area: who may deal with load balancers may with pools.
    fn is_about(self, area: Area) -> bool {
        self.area == area || (self.area == Area::LoadBalancers && area == Area::Pools)
    }
}

/// What something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// An account, or what belongs to it as a whole.
    Account(AccountId),
    /// A zone of an account, or what belongs to it.
    Zone(AccountId, ZoneId),
}

/// Which objects a policy is about. Written as the original's API does, with an account in front of a slash where only its
/// zones are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// An account and all that is in it; `None`: every account.
    Account(Option<AccountId>),
    /// A zone, or all of an account; `None`: every one.
    Zone(Option<AccountId>, Option<ZoneId>),
    /// What belongs to a user of this id: here that is the account's.
    User(Box<str>),
}

/// The text names no objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a resource such as com.cloudflare.api.account.<id>, com.cloudflare.api.account.zone.<id> or \
     com.cloudflare.api.account.zone.* is wanted"
)]
pub struct BadScope;

const ACCOUNT: &str = "com.cloudflare.api.account.";
const ZONE: &str = "com.cloudflare.api.account.zone.";
const USER: &str = "com.cloudflare.api.user.";

impl Scope {
    fn covers(&self, object: Object) -> bool {
        let is = |wanted: &Option<AccountId>, account| wanted.is_none_or(|wanted| wanted == account);
        match (self, object) {
            (Self::Account(wanted), Object::Account(account) | Object::Zone(account, _)) => is(wanted, account),
            (Self::Zone(wanted, zone), Object::Zone(account, id)) => {
                is(wanted, account) && zone.is_none_or(|zone| zone == id)
            }
            (Self::User(_), Object::Account(_)) => true,
            (Self::Zone(..), Object::Account(_)) | (Self::User(_), Object::Zone(..)) => false,
        }
    }

    /// Whether all that the other is about, this one is about, too, where there is this account only.
    fn includes(&self, other: &Self, account: AccountId) -> bool {
        match (self, other) {
            (Self::Account(mine), Self::Account(theirs) | Self::Zone(theirs, _)) => {
                mine.is_none_or(|mine| mine == theirs.unwrap_or(account))
            }
            (Self::Account(None), Self::User(_)) => true,
            (Self::Zone(mine, zone), Self::Zone(theirs, id)) => {
                mine.is_none_or(|mine| mine == theirs.unwrap_or(account)) && (zone.is_none() || zone == id)
            }
            (mine, theirs) => mine == theirs,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = || "*".to_owned();
        match self {
            Self::Account(id) => write!(f, "{ACCOUNT}{}", id.map_or_else(star, |id| id.to_string())),
            Self::Zone(None, zone) => write!(f, "{ZONE}{}", zone.map_or_else(star, |id| id.to_string())),
            Self::Zone(Some(account), zone) => {
                write!(f, "{ACCOUNT}{account}/{ZONE}{}", zone.map_or_else(star, |id| id.to_string()))
            }
            Self::User(id) => write!(f, "{USER}{id}"),
        }
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        fn id<T: FromStr>(text: &str) -> Result<Option<T>, BadScope> {
            if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| BadScope) }
        }
        if let Some((account, zone)) = text.split_once('/') {
            let account = account.strip_prefix(ACCOUNT).and_then(|id| id.parse().ok()).ok_or(BadScope)?;
            return Ok(Self::Zone(Some(account), id(zone.strip_prefix(ZONE).ok_or(BadScope)?)?));
        }
        if let Some(zone) = text.strip_prefix(ZONE) {
            return Ok(Self::Zone(None, id(zone)?));
        }
        if let Some(account) = text.strip_prefix(ACCOUNT) {
            return Ok(Self::Account(id(account)?));
        }
        let user =
            text.strip_prefix(USER).filter(|id| (1..=64).contains(&id.len()) && id.is_ascii()).ok_or(BadScope)?;
        Ok(Self::User(user.into()))
    }
}

impl TryFrom<String> for Scope {
    type Error = BadScope;

    fn try_from(text: String) -> Result<Self, BadScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// Some permissions for some objects, given or denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Names it.
    pub id: PolicyId,
    /// Whether it takes away instead of giving; then it wins.
    pub deny: bool,
    /// For which objects.
    pub scopes: Vec<Scope>,
    /// What.
    pub permissions: Vec<Permission>,
}

impl Policy {
    /// The same permissions for the same objects have the same id, so that who sends a policy again without one changes
    /// nothing.
    pub fn new(deny: bool, scopes: Vec<Scope>, permissions: Vec<Permission>) -> Self {
        let mut policy = Self { id: PolicyId::from_bytes([0; 16]), deny, scopes, permissions };
        let text = serde_json::to_vec(&policy).expect("policies are plain data");
        let digest: [u8; 32] = Sha256::digest(text).into();
        let (half, _) = digest.split_at(16);
        policy.id = PolicyId::from_bytes(half.try_into().expect("16 bytes were split off"));
        policy
    }

    fn covers(&self, object: Object) -> bool {
        self.scopes.iter().any(|scope| scope.covers(object))
    }

    fn permits(&self, permission: Permission) -> bool {
        self.permissions.iter().any(|mine| mine.includes(permission))
    }

    /// Who is denied reading is denied writing, too.
    fn denies(&self, permission: Permission) -> bool {
        self.permissions.iter().any(|mine| mine.is_about(permission.area) && (permission.write || !mine.write))
    }
}

/// From where, and from when on, a token may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenTerms {
    /// What it may; `None`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<Policy>>,
    /// Refused before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<jiff::Timestamp>,
    /// Callers' networks; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_from: Vec<Network>,
    /// Callers' networks from which it is refused, in spite of the above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_from: Vec<Network>,
}

impl TokenTerms {
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it may do this to that.
    pub fn may(&self, permission: Permission, object: Object) -> bool {
        let Some(policies) = &self.policies else { return true };
        let about = || policies.iter().filter(|policy| policy.covers(object));
        let is_denied = about().any(|policy| policy.deny && policy.denies(permission));
        !is_denied && about().any(|policy| !policy.deny && policy.permits(permission))
    }

    /// Whether it may do anything to that.
    pub fn sees(&self, object: Object) -> bool {
        let Some(policies) = &self.policies else { return true };
        let may = |permission: &Permission| self.may(*permission, object);
        policies
            .iter()
            .filter(|policy| !policy.deny && policy.covers(object))
            .flat_map(|policy| &policy.permissions)
            .any(may)
    }

    /// Whether it may be used from there. A caller whose address is not known is nowhere.
    pub fn is_allowed_from(&self, address: Option<IpAddr>) -> bool {
        let within =
            |networks: &[Network]| address.is_some_and(|address| networks.iter().any(|net| net.contains(address)));
        let refused = !self.refused_from.is_empty() && (address.is_none() || within(&self.refused_from));
        !refused && (self.allowed_from.is_empty() || within(&self.allowed_from))
    }

    /// Whether whoever has these terms may give somebody those, where there is this account only: nobody gives more than he
    /// has.
    pub fn may_grant(&self, others: &Self, account: AccountId) -> bool {
        let (Some(mine), theirs) = (&self.policies, &others.policies) else { return true };
        let Some(theirs) = theirs else { return false };
        // What is denied to somebody could be given by him only if the other were denied it, too.
        if mine.iter().any(|policy| policy.deny && !theirs.contains(policy)) {
            return false;
        }
        let has = |scope: &Scope, permission: Permission| {
            let gives = |policy: &&Policy| !policy.deny && policy.permits(permission);
            mine.iter().filter(gives).flat_map(|policy| &policy.scopes).any(|mine| mine.includes(scope, account))
        };
        let given = theirs.iter().filter(|policy| !policy.deny);
        given
            .flat_map(|policy| policy.scopes.iter().map(move |scope| (scope, &policy.permissions)))
            .all(|(scope, permissions)| permissions.iter().all(|permission| has(scope, *permission)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DNS_READ: Permission = Permission { area: Area::Dns, write: false };
    const DNS_WRITE: Permission = Permission { area: Area::Dns, write: true };
    const ZONE_READ: Permission = Permission { area: Area::Zone, write: false };

    fn terms(policies: &[(bool, &[&str], &[Permission])]) -> TokenTerms {
        let policy = |(deny, scopes, permissions): &(bool, &[&str], &[Permission])| Policy {
            id: PolicyId::from_bytes([0; 16]),
            deny: *deny,
            scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
            permissions: permissions.to_vec(),
        };
        TokenTerms { policies: Some(policies.iter().map(policy).collect()), ..TokenTerms::default() }
    }

    fn ids() -> (AccountId, ZoneId, ZoneId) {
        (AccountId::from_bytes([1; 16]), ZoneId::from_bytes([2; 16]), ZoneId::from_bytes([3; 16]))
    }

    #[test]
    fn a_token_may_what_its_policies_say_about_an_object() {
        let (account, one, other) = ids();
        let zone = format!("com.cloudflare.api.account.zone.{one}");
        let whole = format!("com.cloudflare.api.account.{account}");
        let all = "com.cloudflare.api.account.zone.*";
        let of_account = format!("{whole}/{all}");
        let (one, other, account) =
            (Object::Zone(account, one), Object::Zone(account, other), Object::Account(account));
        for (policies, permission, object, expected) in [
            (vec![(false, vec![zone.as_str()], vec![DNS_WRITE])], DNS_WRITE, one, true),
            (vec![(false, vec![zone.as_str()], vec![DNS_WRITE])], DNS_READ, one, true),
            (vec![(false, vec![zone.as_str()], vec![DNS_READ])], DNS_WRITE, one, false),
            (vec![(false, vec![zone.as_str()], vec![DNS_WRITE])], DNS_READ, other, false),
            (vec![(false, vec![zone.as_str()], vec![DNS_WRITE])], ZONE_READ, one, false),
            (vec![(false, vec![zone.as_str()], vec![DNS_WRITE])], DNS_READ, account, false),
            (vec![(false, vec![all], vec![DNS_READ])], DNS_READ, other, true),
            (vec![(false, vec![of_account.as_str()], vec![DNS_READ])], DNS_READ, other, true),
            (vec![(false, vec![whole.as_str()], vec![DNS_READ])], DNS_READ, other, true),
            (
                vec![(false, vec![all], vec![DNS_WRITE]), (true, vec![zone.as_str()], vec![DNS_WRITE])],
                DNS_WRITE,
                one,
                false,
            ),
            (
                vec![(false, vec![all], vec![DNS_WRITE]), (true, vec![zone.as_str()], vec![DNS_WRITE])],
                DNS_READ,
                one,
                true,
            ),
            (
                vec![(false, vec![all], vec![DNS_WRITE]), (true, vec![zone.as_str()], vec![DNS_READ])],
                DNS_WRITE,
                one,
                false,
            ),
            (
                vec![(false, vec![all], vec![DNS_WRITE]), (true, vec![zone.as_str()], vec![DNS_READ])],
                DNS_WRITE,
                other,
                true,
            ),
            (vec![], DNS_READ, one, false),
        ] {
            let borrowed: Vec<_> = policies.iter().map(|(deny, scopes, can)| (*deny, &scopes[..], &can[..])).collect();
            assert_eq!(terms(&borrowed).may(permission, object), expected, "{policies:?} {permission:?} {object:?}");
        }
        assert!(TokenTerms::default().may(DNS_WRITE, one));
    }

    #[test]
    fn nobody_gives_more_than_he_has() {
        let (account, one, _) = ids();
        let zone = &*format!("com.cloudflare.api.account.zone.{one}");
        let whole = &*format!("com.cloudflare.api.account.{account}");
        let all = "com.cloudflare.api.account.zone.*";
        let elsewhere = &*format!("com.cloudflare.api.account.{}", AccountId::from_bytes([9; 16]));
        let everything = TokenTerms::default();
        let small = terms(&[(false, &[zone], &[DNS_READ])]);
        let large = terms(&[(false, &[all], &[DNS_WRITE, ZONE_READ])]);
        let fenced = terms(&[(false, &[all], &[DNS_WRITE]), (true, &[zone], &[DNS_READ])]);
        for (mine, theirs, expected) in [
            (&everything, &everything, true),
            (&everything, &small, true),
            (&small, &everything, false),
            (&large, &small, true),
            (&small, &large, false),
            (&small, &small, true),
            (&terms(&[(false, &[whole], &[DNS_READ])]), &small, true),
            (&terms(&[(false, &[elsewhere], &[DNS_READ])]), &small, false),
            (&terms(&[(false, &["com.cloudflare.api.account.*"], &[DNS_READ])]), &small, true),
            (&fenced, &small, false),
            (&fenced, &fenced, true),
        ] {
            assert_eq!(mine.may_grant(theirs, account), expected, "{mine:?} {theirs:?}");
        }
    }

    #[test]
    fn networks_let_in_and_keep_out() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        let terms = TokenTerms {
            allowed_from: nets(&["192.0.2.0/24"]),
            refused_from: nets(&["192.0.2.7/32"]),
            ..TokenTerms::default()
        };
        let at = |address: &str| Some(address.parse().unwrap());
        assert!(terms.is_allowed_from(at("192.0.2.1")) && terms.is_allowed_from(at("::ffff:192.0.2.1")));
        assert!(!terms.is_allowed_from(at("192.0.2.7")) && !terms.is_allowed_from(at("198.51.100.1")));
        assert!(!terms.is_allowed_from(None) && TokenTerms::default().is_allowed_from(None));
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        let (account, zone, _) = ids();
        for text in [
            format!("com.cloudflare.api.account.{account}"),
            "com.cloudflare.api.account.*".to_owned(),
            format!("com.cloudflare.api.account.zone.{zone}"),
            format!("com.cloudflare.api.account.{account}/com.cloudflare.api.account.zone.*"),
            "com.cloudflare.api.user.somebody".to_owned(),
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "*",
            "account.1",
            "com.cloudflare.api.account.x",
            "com.cloudflare.api.account.zone.",
            "com.cloudflare.api.user.",
        ] {
            assert_eq!(text.parse::<Scope>(), Err(BadScope), "{text}");
        }
    }
}

//! Which permission a call needs: decided by its method and path alone, so that whether the object exists shows in no
//! answer to those who may not see it. Pure.

use http::Method;
use registry::{AccountId, Area, Object, Permission, TokenTerms, ZoneId};

use crate::error::ApiError;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A valid token. What is listed is only what it may see.
    Token,
    /// This, for something of the account of this id.
    Account(Area, Option<AccountId>),
    /// This, for a zone.
    Zone(Area, ZoneId),
    /// To make zones.
    NewZone,
    /// A token that may do everything: nobody has said yet what else would do.
    Everything,
}

/// What a call below the v4 API's base needs; the path is without it.
pub(crate) fn need(method: &Method, path: &str) -> Need {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match &segments[..] {
        ["zones"] if is_write(method) => Need::NewZone,
        ["zones" | "accounts" | "memberships" | "user"] => Need::Token,
        ["user", "tokens", "verify" | "permission_groups"] => Need::Token,
        ["accounts", _, "tokens", "verify" | "permission_groups"] => Need::Token,
        ["user", "tokens", ..] => Need::Account(Area::Tokens, None),
        ["user", "audit_logs"] => Need::Account(Area::Account, None),
        ["user", "load_balancers", ..] => Need::Account(Area::Pools, None),
        // Whose zones the names lie in, the handler sees.
        ["certificates", ..] => Need::Token,
        ["zones", id, rest @ ..] => match (id.parse(), zone_area(rest)) {
            (Ok(id), Some(area)) => Need::Zone(area, id),
            // What is no id is nobody's.
            (Err(_), _) => Need::Token,
            (Ok(_), None) => Need::Everything,
        },
        ["accounts", id, rest @ ..] => match (id.parse(), account_area(rest)) {
            (Ok(id), Some(area)) => Need::Account(area, Some(id)),
            (Err(_), _) => Need::Token,
            (Ok(_), None) => Need::Everything,
        },
        _ => Need::Everything,
    }
}

/// What a call needs below the base of what only this edge has.
pub(crate) fn own_need(path: &str) -> Need {
    match path.split('/').find(|segment| !segment.is_empty()) {
        // Whose zone the name lies in, the handler sees.
        Some("routes") => Need::Token,
        Some("tunnels" | "ports") => Need::Account(Area::Tunnels, None),
        Some("pools") => Need::Account(Area::Pools, None),
        _ => Need::Everything,
    }
}

fn zone_area(rest: &[&str]) -> Option<Area> {
    Some(match rest.first().copied() {
        None | Some("pagerules") => Area::Zone,
        Some("dns_records" | "dnssec" | "secondary_dns" | "tunnels") => Area::Dns,
        Some("settings" | "argo") => Area::ZoneSettings,
        Some("cache" | "purge_cache") => Area::Cache,
        Some("load_balancers") => Area::LoadBalancers,
        Some("rate_limits" | "rulesets") => Area::Rules,
        Some("spectrum") => Area::Applications,
        Some("custom_hostnames" | "ssl") => Area::Certificates,
        Some("access") => Area::Access,
        Some(_) => return None,
    })
}

fn account_area(rest: &[&str]) -> Option<Area> {
    Some(match rest.first().copied() {
        None | Some("audit_logs") => Area::Account,
        Some("tokens") => Area::Tokens,
        Some("cfd_tunnel" | "tunnels" | "teamnet") => Area::Tunnels,
        Some("load_balancers") => match rest.get(1).copied() {
            Some("pools" | "monitors" | "regions" | "search" | "preview") => Area::Pools,
            Some(_) | None => Area::LoadBalancers,
        },
        Some("rulesets") => Area::Rules,
        Some("secondary_dns") => Area::Dns,
        Some("access") => Area::Access,
        Some("devices") => Area::Devices,
        Some(_) => return None,
    })
}

/// Whether a method changes something.
pub(crate) fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a call takes the permission to change: whoever has a tunnel's token can serve in its place, and whoever has a
/// key of transfers can sign.
pub(crate) fn takes_write(method: &Method, path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).take(5).collect();
    let shows_secret = matches!(
        segments[..],
        ["accounts", _, "cfd_tunnel", _, "token", ..] | ["accounts", _, "secondary_dns", "tsigs", ..]
    );
    is_write(method) || shows_secret
}

/// Whether a token with these terms may make a call; `account` is the one that there is.
///
/// # Errors
/// It may not: what it may not even see is not found.
pub(crate) fn check(terms: &TokenTerms, need: Need, write: bool, account: AccountId) -> Result<(), ApiError> {
    let (area, object, path) = match need {
        Need::Token => return Ok(()),
        Need::Everything if terms.policies.is_none() => return Ok(()),
        Need::Everything => return Err(ApiError::not_permitted()),
        Need::Account(area, id) => {
            let id = id.unwrap_or(account);
            (area, Object::Account(id), format!("/accounts/{id}"))
        }
        Need::Zone(area, id) => (area, Object::Zone(account, id), format!("/zones/{id}")),
        // One that nobody has been given by its id.
        Need::NewZone => (Area::Zone, Object::Zone(account, ZoneId::random()), String::new()),
    };
    if terms.may(Permission { area, write }, object) {
        return Ok(());
    }
    if need != Need::NewZone && need != Need::Account(area, None) && !terms.sees(object) {
        return Err(ApiError::no_object(&path));
    }
    match area {
        Area::Zone | Area::Dns if write => Err(ApiError::not_permitted_in_zone()),
        _ => Err(ApiError::not_permitted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_look_at_tunnels_only_gets_no_token_of_one() {
        assert!(takes_write(&Method::GET, "/accounts/a/cfd_tunnel/t/token"));
        assert!(takes_write(&Method::GET, "/accounts/a/cfd_tunnel/t/token/"));
        assert!(!takes_write(&Method::GET, "/accounts/a/cfd_tunnel/t/connections"));
        assert!(!takes_write(&Method::GET, "/accounts/a/cfd_tunnel/token"));
        assert!(takes_write(&Method::DELETE, "/accounts/a/cfd_tunnel/t"));
        assert!(takes_write(&Method::GET, "/accounts/a/secondary_dns/tsigs"));
        assert!(takes_write(&Method::GET, "/accounts/a/secondary_dns/tsigs/k"));
        assert!(!takes_write(&Method::GET, "/accounts/a/secondary_dns/peers"));
    }

    #[test]
    fn the_path_says_what_is_needed() {
        let zone = ZoneId::from_bytes([1; 16]);
        let account = AccountId::from_bytes([2; 16]);
        for (method, path, expected) in [
            (Method::GET, "/zones".to_owned(), Need::Token),
            (Method::POST, "/zones/".to_owned(), Need::NewZone),
            (Method::GET, format!("/zones/{zone}"), Need::Zone(Area::Zone, zone)),
            (Method::PUT, format!("/zones/{zone}/dns_records/x"), Need::Zone(Area::Dns, zone)),
            (Method::PUT, format!("//zones//{zone}//dns_records//x"), Need::Zone(Area::Dns, zone)),
            (Method::PUT, format!("/zones/{zone}/tunnels/x/routes"), Need::Zone(Area::Dns, zone)),
            (Method::PATCH, format!("/zones/{zone}/argo/smart_routing"), Need::Zone(Area::ZoneSettings, zone)),
            (Method::POST, format!("/zones/{zone}/purge_cache"), Need::Zone(Area::Cache, zone)),
            (Method::PUT, format!("/zones/{zone}/spectrum/apps/x"), Need::Zone(Area::Applications, zone)),
            (Method::PUT, format!("/zones/{zone}/rulesets/phases/x/entrypoint"), Need::Zone(Area::Rules, zone)),
            (Method::GET, format!("/zones/{zone}/rate_limits"), Need::Zone(Area::Rules, zone)),
            (Method::GET, format!("/zones/{zone}/custom_hostnames"), Need::Zone(Area::Certificates, zone)),
            (
                Method::GET,
                format!("/accounts/{account}/load_balancers/pools/x"),
                Need::Account(Area::Pools, Some(account)),
            ),
            (
                Method::GET,
                format!("/accounts/{account}/load_balancers/x"),
                Need::Account(Area::LoadBalancers, Some(account)),
            ),
            (Method::GET, "/user/load_balancers/monitors".to_owned(), Need::Account(Area::Pools, None)),
            (Method::GET, format!("/accounts/{account}/rulesets"), Need::Account(Area::Rules, Some(account))),
            (Method::GET, format!("/accounts/{account}/teamnet/routes"), Need::Account(Area::Tunnels, Some(account))),
            (Method::GET, format!("/zones/{zone}/unheard-of"), Need::Everything),
            (Method::GET, "/zones/x/dns_records".to_owned(), Need::Token),
            (Method::GET, format!("/accounts/{account}/cfd_tunnel"), Need::Account(Area::Tunnels, Some(account))),
            (Method::GET, format!("/accounts/{account}"), Need::Account(Area::Account, Some(account))),
            (Method::GET, format!("/accounts/{account}/tokens/verify"), Need::Token),
            (Method::GET, "/user/tokens/verify".to_owned(), Need::Token),
            (Method::PUT, "/user/tokens/x/value".to_owned(), Need::Account(Area::Tokens, None)),
            (Method::GET, "/certificates".to_owned(), Need::Token),
            (Method::GET, "/other".to_owned(), Need::Everything),
        ] {
            assert_eq!(need(&method, &path), expected, "{method} {path}");
        }
        assert_eq!(own_need("/ports"), Need::Account(Area::Tunnels, None));
        assert_eq!(own_need("/pools/web/members/x"), Need::Account(Area::Pools, None));
        assert_eq!(own_need("/other"), Need::Everything);
    }
}

//! Certificates of origins (section 15 of the API page), signed by an authority that all nodes have in common.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use certs::{BadOriginRequest, OriginKey, OriginRequest, SharedAuthority};
use jiff::Timestamp;
use registry::{
    Area, AuthorityPurpose, CertificateId, Hostname, Object, OriginCertificate, OriginRequestType, Permission,
    Snapshot, TokenTerms, Versioned, Zone, ZoneId,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authority::ensure_authority;
use crate::body;
use crate::credential::Credential;
use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::number::Whole;
use crate::permission::{self, Need};
use crate::query::Query;
use crate::state::Shared;

/// Days for which certificates are made.
const VALIDITIES: [u32; 7] = [7, 30, 90, 365, 730, 1095, 5475];
/// Unless somebody says otherwise.
const USUAL_VALIDITY: u32 = 5475;
/// Names in one certificate, as with the original; all of them travel in each handshake.
pub(crate) const MAX_HOSTNAMES: usize = 200;

#[derive(Deserialize)]
struct NewBody {
    csr: Option<String>,
    hostnames: Option<Vec<String>>,
    request_type: Option<OriginRequestType>,
    requested_validity: Option<Whole>,
}

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    body: Body,
) -> Answer {
    let registry = &shared.state.registry;
    let body: NewBody = body::json(body, body::SMALL).await?;
    let request_type = body.request_type.ok_or_else(|| missing("request_type", "origin-rsa or origin-ecc"))?;
    let csr = body.csr.ok_or_else(|| missing("csr", "a certificate signing request in PEM form"))?;
    let request = OriginRequest::parse(&csr).map_err(|problem: BadOriginRequest| {
        ApiError::not_valid(format!("csr: not a certificate signing request that can be signed: {problem}"))
    })?;
    check_type(request_type, request.key())?;
    let validity = body.requested_validity.map_or(USUAL_VALIDITY, |days| days.0);
    if !VALIDITIES.contains(&validity) {
        return Err(ApiError::not_valid("requested_validity: 7, 30, 90, 365, 730, 1095 or 5475 days are wanted"));
    }
    let hostnames = hostnames(&body.hostnames.unwrap_or_default())?;
    check_zones(&registry.snapshot(), &token.terms, &hostnames)?;

    let now = Timestamp::now();
    let kept = ensure_authority(registry, now, AuthorityPurpose::Origin).await?;
    let id = CertificateId::random();
    let authority = SharedAuthority::load(&kept.certificate, kept.key.reveal())?;
    let names: Vec<&str> = hostnames.iter().map(Hostname::as_str).collect();
    let life = Duration::from_secs(u64::from(validity) * 24 * 60 * 60);
    let (certificate, not_after) =
        authority.sign_for_origin(&request, &names, id.serial(), life, SystemTime::from(now))?;
    let new = OriginCertificate {
        id,
        certificate,
        csr,
        hostnames,
        request_type,
        requested_validity: validity,
        created_at: now,
        expires_on: Timestamp::try_from(not_after).unwrap_or(Timestamp::MAX),
        revoked_at: None,
    };
    registry.keep_origin_certificate(&new).await?;
    Ok(success(Shown::new(&new)))
}

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    query: Query,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = query.one("zone_id").ok_or_else(|| missing("zone_id", "the id of a zone"))?;
    let no_zone = || ApiError::no_object(&format!("/zones/{zone}"));
    let id: ZoneId = zone.parse().map_err(|_| no_zone())?;
    permission::check(&token.terms, Need::Zone(Area::Certificates, id), false, snapshot.account().id)?;
    snapshot.zone(id).ok_or_else(no_zone)?;
    let in_force = snapshot.origin_certificates().filter(|certificate| certificate.revoked_at.is_none());
    let in_zone = in_force.filter(|certificate| certificate.is_in_zone(&snapshot, id));
    let mut all: Vec<_> = in_zone.filter(|certificate| may(&snapshot, &token.terms, certificate, false)).collect();
    all.sort_by_key(|certificate| (certificate.created_at, certificate.id));
    Ok(page(&all, query.page(20, 1000)?, |certificate| Shown::new(certificate)))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(id): Path<String>,
) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(Shown::new(find(&snapshot, &token.terms, &id, false)?)))
}

pub(crate) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(Credential(token)): Extension<Credential>,
    Path(id): Path<String>,
) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), &token.terms, &id, true)?.id;
    let revoked = registry.revoke_origin_certificate(Timestamp::now(), id).await?;
    Ok(success(json!({ "id": revoked.id, "revoked_at": revoked.revoked_at })))
}

fn missing(member: &str, wanted: &str) -> ApiError {
    ApiError::not_valid(format!("{member}: {wanted} is wanted"))
}

fn check_type(wanted: OriginRequestType, key: OriginKey) -> Result<(), ApiError> {
    match (wanted, key) {
        (OriginRequestType::OriginRsa, OriginKey::Ecdsa) => {
            Err(ApiError::not_valid("request_type: the key of the csr is ECDSA; origin-ecc is wanted"))
        }
        (OriginRequestType::OriginEcc, OriginKey::Rsa) => {
            Err(ApiError::not_valid("request_type: the key of the csr is RSA; origin-rsa is wanted"))
        }
        (OriginRequestType::OriginRsa | OriginRequestType::OriginEcc | OriginRequestType::KeylessCertificate, _) => {
            Ok(())
        }
    }
}

/// The names, each once.
fn hostnames(texts: &[String]) -> Result<Vec<Hostname>, ApiError> {
    if texts.is_empty() || texts.len() > MAX_HOSTNAMES {
        return Err(ApiError::not_valid(format!("hostnames: 1 to {MAX_HOSTNAMES} names are wanted")));
    }
    let mut names = Vec::with_capacity(texts.len());
    for text in texts {
        let name = Hostname::parse(text).map_err(|problem| ApiError::not_valid(format!("hostnames: {problem}")))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn check_zones(snapshot: &Snapshot, terms: &TokenTerms, names: &[Hostname]) -> Result<(), ApiError> {
    let account = snapshot.account().id;
    for name in names {
        let zone = snapshot.zone_of(name.as_str()).filter(|zone| terms.sees(Object::Zone(account, zone.id)));
        let zone = zone.ok_or_else(|| ApiError::no_zone_of(name))?;
        permission::check(terms, Need::Zone(Area::Certificates, zone.id), true, account)?;
    }
    for (name, zone) in zones_below(snapshot, names) {
        if !terms.sees(Object::Zone(account, zone.id)) {
            return Err(ApiError::no_zone_of(format_args!("{name}, which stands for {} as well", zone.name)));
        }
        permission::check(terms, Need::Zone(Area::Certificates, zone.id), true, account)?;
    }
    Ok(())
}

/// The zones whose own name one of these names with `*` stands for, too, and which one.
fn zones_below<'a>(
    snapshot: &'a Snapshot,
    names: &'a [Hostname],
) -> impl Iterator<Item = (&'a Hostname, &'a Versioned<Zone>)> {
    let bases: HashMap<&str, &Hostname> =
        names.iter().filter_map(|name| Some((name.as_str().strip_prefix("*.")?, name))).collect();
    let zones = snapshot.zones().take(if bases.is_empty() { 0 } else { usize::MAX });
    zones.filter_map(move |zone| Some((*bases.get(zone.name.as_str().split_once('.')?.1)?, &**zone)))
}

/// A certificate all of whose names lie in zones that the token may do this in.
fn find<'a>(
    snapshot: &'a Snapshot,
    terms: &TokenTerms,
    id: &str,
    write: bool,
) -> Result<&'a OriginCertificate, ApiError> {
    let no_certificate = || ApiError::no_object(&format!("/certificates/{id}"));
    let parsed: CertificateId = id.parse().map_err(|_| no_certificate())?;
    let certificate = snapshot.origin_certificate(parsed).ok_or_else(no_certificate)?;
    let may = |write: bool| may(snapshot, terms, certificate, write);
    if may(write) {
        return Ok(certificate);
    }
    if write && may(false) { Err(ApiError::not_permitted()) } else { Err(no_certificate()) }
}

/// Whether the token may do this in the zones of all its names.
fn may(snapshot: &Snapshot, terms: &TokenTerms, certificate: &OriginCertificate, write: bool) -> bool {
    let account = snapshot.account().id;
    certificate.hostnames.iter().all(|name| {
        let permission = Permission { area: Area::Certificates, write };
        // Names whose zone is gone are left to those who may do it everywhere.
        let zone = snapshot.zone_of(name.as_str()).map(|zone| Object::Zone(account, zone.id));
        terms.may(permission, zone.unwrap_or(Object::Account(account)))
    })
}

/// A certificate as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: CertificateId,
    certificate: &'a str,
    csr: &'a str,
    hostnames: &'a [Hostname],
    request_type: OriginRequestType,
    requested_validity: u32,
    expires_on: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
}

impl<'a> Shown<'a> {
    fn new(certificate: &'a OriginCertificate) -> Self {
        Self {
            id: certificate.id,
            certificate: &certificate.certificate,
            csr: &certificate.csr,
            hostnames: &certificate.hostnames,
            request_type: certificate.request_type,
            requested_validity: certificate.requested_validity,
            expires_on: certificate.expires_on,
            revoked_at: certificate.revoked_at,
        }
    }
}

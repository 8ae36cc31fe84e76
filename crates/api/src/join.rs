//! How one more machine becomes a node: somebody who may do everything makes a key, and the machine comes with it. It has
//! verified before, by the fingerprint in the key, that it speaks to a node of the edge; the rest of the key shows that it
//! may have what makes one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use certs::{Fingerprint, SharedAuthority};
use jiff::{SignedDuration, Timestamp};
use registry::{AuthorityPurpose, Invitation, Registry, audit};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authority::{AuthorityError, ensure_authority};
use crate::body;
use crate::credential::{self, caller};
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::limit::Who;
use crate::number::Whole;
use crate::state::Shared;

/// How long a key is good for, unless somebody says otherwise.
const USUAL_LIFE: u32 = 60 * 60;
/// At the least, and at the most.
const LIVES: std::ops::RangeInclusive<u32> = 60..=Invitation::MOST_LIFE.as_secs() as u32;

/// Of what a machine sends that wants to join: a key has less than 200.
const MOST_BYTES: usize = 4 << 10;

/// Everything that makes a machine a node of this edge, above all secrets. It does not print.
#[derive(Serialize, Deserialize)]
pub struct Handover {
    /// Visitors' names lie under it.
    pub domain: String,
    /// Where the registry is: `etcd://…`.
    pub registry: String,
    /// The authority of etcd's certificates, PEM, if one is named.
    pub registry_ca: Option<String>,
    /// The nodes' certificate for etcd, PEM, if they have one.
    pub registry_cert: Option<String>,
    /// Its key, PEM.
    pub registry_key: Option<String>,
    /// The keys of the registry's secrets, as the text of their file.
    pub secrets_key: String,
    /// The visitors' authority, PEM.
    pub ca: String,
    /// Its key, PEM.
    pub ca_key: String,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handover({}, {}, …)", self.domain, self.registry)
    }
}

/// Gathers what makes a node, as it is now. It may block for a moment, on the disk.
pub type GatherHandover = Arc<dyn Fn() -> Result<Handover, String> + Send + Sync>;

/// What lets one machine join: a secret, and the fingerprint of the authority that nodes' certificates are of. It does not
/// print.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinKey {
    /// Shows that the machine may join.
    pub secret: String,
    /// Shows the machine that it speaks to a node.
    pub authority: Fingerprint,
}

/// The text is no key for joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a key for joining: snj_…, a dot, and 64 hexadecimal digits are wanted, whole, as `snicket node invite` prints it"
)]
pub struct BadJoinKey;

impl JoinKey {
    /// The text, for whoever invites.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.secret, self.authority)
    }
}

impl fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinKey(….{})", self.authority)
    }
}

impl FromStr for JoinKey {
    type Err = BadJoinKey;

    fn from_str(text: &str) -> Result<Self, BadJoinKey> {
        let (secret, authority) = text.trim().split_once('.').ok_or(BadJoinKey)?;
        let authority = authority.parse().map_err(|_| BadJoinKey)?;
        let random = secret.strip_prefix("snj_").ok_or(BadJoinKey)?;
        let is_whole =
            random.len() == 43 && random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_whole.then(|| Self { secret: secret.to_owned(), authority }).ok_or(BadJoinKey)
    }
}

#[derive(Deserialize)]
struct InviteBody {
    for_seconds: Option<Whole>,
}

/// Makes a key. Whoever makes it may do everything, since whoever has it gets everything.
pub(crate) async fn invite(State(shared): State<Arc<Shared>>, body: Body) -> Answer {
    let body: InviteBody = body::json(body, body::SMALL).await?;
    let life = body.for_seconds.map_or(USUAL_LIFE, |seconds| seconds.0);
    if !LIVES.contains(&life) {
        let (least, most) = (LIVES.start(), LIVES.end());
        return Err(ApiError::not_valid(format!("for_seconds: a whole number from {least} to {most} is wanted")));
    }
    if shared.state.gather_handover.is_none() {
        return Err(ApiError::stands_alone());
    }
    let (registry, now) = (&shared.state.registry, Timestamp::now());
    check_keys(registry)?;
    let authority = node_authority(registry, now).await?;
    let (invitation, secret) = registry.invite(now, SignedDuration::from_secs(life.into())).await?;
    tracing::info!(until = %invitation.expires_at, "a machine was invited to become a node");
    let key = JoinKey { secret, authority: Fingerprint::of(authority.certificate()) };
    Ok(success(json!({
        "key": key.reveal(),
        "expires_at": invitation.expires_at,
        "api": shared.state.facts.api,
    })))
}

#[derive(Deserialize)]
struct JoinBody {
    key: String,
}

/// Takes a key, and answers what makes a node. There is no token: the key is what shows that the machine may.
pub(crate) async fn join(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let from = caller(request.extensions()).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |from| from.ip());
    shared.limits.count(Who::joining(from), Instant::now()).map_err(ApiError::too_many)?;
    // Nobody has shown a token, so that the log has the address alone.
    let actor = credential::actor(None, ("POST", "/join"), request.extensions());
    let body: JoinBody = body::json(request.into_body(), MOST_BYTES).await?;
    let gather_handover = shared.state.gather_handover.clone().ok_or_else(ApiError::stands_alone)?;
    let (registry, now) = (&shared.state.registry, Timestamp::now());
    // Before anything is read, let alone spent.
    registry.snapshot().invitation(&body.key, now).inspect_err(|problem| {
        tracing::warn!(%from, %problem, "a machine that wanted to join was refused");
    })?;
    check_keys(registry)?;
    let gathered = tokio::task::spawn_blocking(move || gather_handover()).await;
    let handover = gathered.map_err(|error| error.to_string()).and_then(|gathered| gathered).map_err(|problem| {
        tracing::error!(problem, "a machine cannot join");
        ApiError::broken("this node cannot gather what another one needs; its log says why")
    })?;
    audit::on_behalf_of(actor, registry.spend_invitation(now, &body.key)).await?;
    tracing::info!(%from, "a machine was given what makes it a node");
    Ok(success(handover))
}

/// What a node without the key of now could give makes a node that reads nothing.
fn check_keys(registry: &Registry) -> Result<(), ApiError> {
    registry.check_keys().map_err(|problem| {
        tracing::error!(%problem, "no machine joins by this node");
        ApiError::broken(format!(
            "no machine joins by this node, whose keys are out of date: {problem}, or ask another node"
        ))
    })
}

async fn node_authority(registry: &Registry, now: Timestamp) -> Result<SharedAuthority, AuthorityError> {
    let authority = ensure_authority(registry, now, AuthorityPurpose::Node).await?;
    Ok(SharedAuthority::load(&authority.certificate, authority.key.reveal())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read_and_does_not_print() {
        let secret = format!("snj_{}", "aZ0-_".repeat(9).split_off(2));
        let key = JoinKey { secret: secret.clone(), authority: Fingerprint::of(b"x") };
        let text = key.reveal();
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(format!("  {text}\n").parse(), Ok(key.clone()));
        assert!(!format!("{key:?}").contains(&secret));
        for bad in [
            "",
            ".",
            &text[1..],
            &text[..text.len() - 1],
            &text.replace('.', ""),
            &text.replace("snj_", "snk_"),
            &text.replace('0', "é"),
            &format!("{text}.x"),
        ] {
            assert_eq!(bad.parse::<JoinKey>(), Err(BadJoinKey), "{bad}");
        }
    }
}

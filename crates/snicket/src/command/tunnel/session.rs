//! Who manages tunnels, at which edge: cert.pem, or the token of an edge on this machine.

use std::path::PathBuf;

use agent::file;
use anyhow::Context as _;
use wire::identity::OriginCert;

use super::Settings;
use crate::fetch::Trust;
use crate::local::LocalEdge;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::v4::Api;

/// The right to manage tunnels.
#[derive(Debug)]
pub(super) struct Session {
    /// The edge's API.
    pub(super) api: Api,
    /// The account.
    pub(super) account: String,
    /// The zone that the right is for; without one the API is asked which zone a name lies in.
    pub(super) zone: Option<String>,
    /// Where credentials files go.
    pub(super) directory: PathBuf,
}

impl Session {
    /// cert.pem when it was named, or when it was found and an API was named; else the edge on this machine. A cert.pem
    /// that only lies around may belong to somebody else's edge, so its token is sent nowhere unasked.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let values = &settings.values;
        let local = LocalEdge::meant(values.api_url.as_deref())?;
        let cert = values.origincert.clone().or_else(|| values.api_url.as_ref().and_then(|_| file::find_origincert()));
        let trust = Trust::choose(values.cacert.as_deref(), local.as_ref())?;
        let base = values.api_url.clone().or_else(|| local.as_ref().map(|local| local.api.clone()));
        let base = base.ok_or_else(|| {
            Problem::usage(
                "no edge to manage tunnels of",
                "start one here (`snicket up`), or name one: --api-url https://EDGE:7845/client/v4 with --origincert \
                 cert.pem from `snicket tunnel login`",
            )
        })?;
        if let Some(path) = cert {
            return Self::from_cert(&base, path, trust).await;
        }
        let token_file = local.map(|local| local.token_file).ok_or_else(|| {
            Problem::usage(
                format!("no right to manage tunnels at {base}"),
                "fetch it with `snicket tunnel login`, or name the file with --origincert",
            )
        })?;
        let api = Api::new(&base, Some(Secret::read(&token_file)?), trust)?;
        let account = api.account().await?;
        Ok(Self { api, account, zone: None, directory: default_directory() })
    }

    async fn from_cert(base: &str, path: PathBuf, trust: Trust) -> anyhow::Result<Self> {
        let refuse = || {
            Problem::usage(
                format!("cannot use {} to manage tunnels", path.display()),
                "fetch a new one with `snicket tunnel login --origincert FILE`",
            )
        };
        let text = crate::secret::read_file(&path).with_context(refuse)?;
        let cert = OriginCert::parse(text.as_bytes()).with_context(refuse)?;
        let api = Api::new(base, Some(Secret::new(&cert.api_token)), trust)?;
        let account = match cert.account_id {
            Some(account) => account,
            None => api.account().await?,
        };
        let directory = path.parent().map_or_else(default_directory, PathBuf::from);
        Ok(Self { api, account, zone: Some(cert.zone_id), directory })
    }
}

/// The first place where credentials are looked for later.
pub(super) fn default_directory() -> PathBuf {
    file::directories().into_iter().next().unwrap_or_else(|| PathBuf::from("."))
}

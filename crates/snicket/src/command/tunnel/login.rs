//! `tunnel login`: fetching the right to manage tunnels of an edge, kept as cert.pem.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use registry::Hostname;
use serde_json::json;
use wire::identity::OriginCert;

use super::Flags;
use super::session::default_directory;
use crate::bootstrap;
use crate::fetch::Trust;
use crate::local::LocalEdge;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::{Secret, write_private};
use crate::v4::Api;

/// The file's name.
const FILE: &str = "cert.pem";

const EXAMPLES: &str = "\
Examples:
  snicket tunnel login                        the edge on this machine
  export TUNNEL_API_URL=https://tunnel.example.com:7845 TUNNEL_CACERT=ca.pem
  snicket tunnel login                        an edge elsewhere, by a page to open
  snicket tunnel login --token-file api-token
  ssh tunnel.example.com cat api-token | snicket tunnel login --token-file -

The token is the edge's API token: the file `api-token` in the data directory of `snicket up`.";

/// Arguments of `tunnel login`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The edge's API token in a file; `-` is standard input
    #[arg(long, value_name = "FILE", env = "SNICKET_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// The domain to manage [default: the edge's]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

/// Writes cert.pem.
pub(super) async fn run(args: Args, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let settings = flags.settings()?;
    let values = &settings.values;
    let path = values.origincert.clone().unwrap_or_else(|| default_directory().join(FILE));
    if path.exists() {
        return Err(Problem::usage(
            format!("{} exists already", path.display()),
            "move it away first, or write to another file with --origincert",
        )
        .into());
    }
    let local = LocalEdge::meant(values.api_url.as_deref())?;
    let api_url =
        values.api_url.clone().or_else(|| local.as_ref().map(|local| local.api.clone())).ok_or_else(|| {
            Problem::usage("no edge to log in to", "name its API: --api-url https://EDGE:7845 with --cacert ca.pem")
        })?;
    let trust = Trust::choose(values.cacert.as_deref(), local.as_ref())?;
    let token = match (args.token_file, local) {
        (Some(path), _) => Secret::read(&path)?,
        (None, Some(local)) => Secret::read(&local.token_file)?,
        (None, None) => {
            let cert = bootstrap::login(&api_url, &trust, screen).await?;
            return keep(&cert, &path, &api_url, screen);
        }
    };
    let domain = match args.domain {
        Some(domain) => domain,
        None => bootstrap::ask(&api_url, &trust).await?.domain,
    };
    let domain =
        Hostname::parse(&domain).context(Problem::usage("the domain is no name", "give a name such as example.com"))?;
    let cert = certificate(&api_url, token, trust, domain.as_str()).await?;
    keep(&cert, &path, &api_url, screen)
}

fn keep(cert: &OriginCert, path: &Path, api_url: &str, screen: Screen) -> anyhow::Result<()> {
    write_private(path, cert.to_pem().as_bytes())?;
    screen.event(&json!({ "event": "login", "origincert": path, "api": api_url }));
    screen.say(format!(
        "You may now manage tunnels at {api_url}.\nWritten to {}; keep it secret. Use it with --api-url {api_url}.",
        path.display()
    ));
    Ok(())
}

/// What this token may manage, as cert.pem holds it.
pub(crate) async fn certificate(
    api_url: &str,
    token: Secret,
    trust: Trust,
    domain: &str,
) -> anyhow::Result<OriginCert> {
    let api = Api::new(api_url, Some(token.clone()), trust)?;
    let account = api.account().await?;
    let zone = api.zone_of(domain).await?.ok_or_else(|| {
        Problem::new(
            format!("the edge at {api_url} has no domain {domain}"),
            "leave --domain out to manage the edge's own",
        )
    })?;
    Ok(OriginCert { zone_id: zone, account_id: Some(account), api_token: token.reveal().to_owned(), endpoint: None })
}

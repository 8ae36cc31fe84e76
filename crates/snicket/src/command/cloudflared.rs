//! `snicket cloudflared`: what a stock cloudflared needs to join this edge.

use std::path::PathBuf;

use serde_json::json;

use crate::bootstrap;
use crate::fetch::Trust;
use crate::local::LocalEdge;
use crate::paths;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::{Secret, write_private};
use crate::v4::api_url;

const EXAMPLES: &str = "\
Examples:
  snicket cloudflared
  snicket cloudflared --write-cert cert.pem      also the right to create and list tunnels
  snicket cloudflared --edge tunnel.example.com --ca ca.pem --token-file token --write-cert cert.pem";

/// Arguments of `cloudflared`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// API address of the edge, host[:port] or URL [default: the edge on this machine]
    #[arg(long, value_name = "ADDR", env = "SNICKET_EDGE", hide_env_values = true)]
    edge: Option<String>,
    /// Certificates to trust for the edge (its ca.pem)
    #[arg(long, value_name = "FILE", env = "SNICKET_CA", hide_env_values = true, requires = "edge")]
    ca: Option<PathBuf>,
    /// Write a cert.pem for the management commands here
    #[arg(long, value_name = "FILE")]
    write_cert: Option<PathBuf>,
    /// API token of the edge for it, in a file; `-` is standard input
    #[arg(long, value_name = "FILE", env = "SNICKET_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// Data directory of the edge on this machine, when it is not the default one
    #[arg(long, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true)]
    data: Option<PathBuf>,
}

/// Prints it.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let directory = args.data.unwrap_or_else(paths::edge_data);
    let local = if args.edge.is_some() { None } else { LocalEdge::find(&directory)? };
    let (api, ca, token_file) = match (args.edge, local) {
        (Some(edge), _) => (edge, args.ca, args.token_file),
        (None, Some(local)) => (local.api, Some(local.ca), args.token_file.or(Some(local.token_file))),
        (None, None) => {
            return Err(Problem::usage(
                "no edge runs on this machine",
                "start one (`snicket up`), or name one with --edge HOST --ca ca.pem",
            )
            .into());
        }
    };
    let trust = Trust::choose(ca.as_deref(), None)?;
    let known = bootstrap::ask(&api, &trust).await?;
    let base = api_url(&api)?;
    let service = crate::fetch::origin_of(&base);
    let file =
        |path: Option<PathBuf>, usual: &str| path.map_or_else(|| usual.to_owned(), |path| path.display().to_string());
    let ca_path = file(ca, "ca.pem");
    let edges = known.tunnel.join(",");
    if let Some(path) = &args.write_cert {
        let token_file = token_file.ok_or_else(|| {
            Problem::usage("--write-cert needs the edge's API token", "name its file with --token-file")
        })?;
        let token = Secret::read(&token_file)?;
        let cert = super::tunnel::certificate(base.as_str(), token, trust, &known.domain).await?;
        write_private(path, cert.to_pem().as_bytes())?;
    }
    screen.event(&json!({
        "event": "cloudflared",
        "variables": { "TUNNEL_EDGE": edges, "TUNNEL_CACERT": ca_path, "TUNNEL_API_URL": base.as_str() },
        "quick_service": service,
        "domain": known.domain,
        "cert": args.write_cert,
    }));
    let cert = shell_word(&file(args.write_cert, "cert.pem"));
    let ca = shell_word(&ca_path);
    let domain = &known.domain;
    screen.say(format!(
        "# What a stock cloudflared needs to join this edge. Paste into a shell:
export TUNNEL_EDGE={edges}
export TUNNEL_CACERT={ca}
export TUNNEL_API_URL={base}

# A quick tunnel:
cloudflared tunnel --quick-service {service} --url http://localhost:8080

# A named tunnel by its token:
TUNNEL_TOKEN=$(snicket tunnel token web) cloudflared tunnel run

# Managing tunnels. Once: snicket cloudflared --write-cert cert.pem
export TUNNEL_ORIGIN_CERT={cert}
cloudflared tunnel create --credentials-file web.json web
cloudflared tunnel route dns web www.{domain}
cloudflared tunnel list
cloudflared tunnel --credentials-file web.json --url http://localhost:8080 run web

# Where UDP is blocked add --protocol http2 after `tunnel`. With one edge address cloudflared keeps one connection."
    ));
    Ok(())
}

/// A path as one word of a POSIX shell; quoted only where it must be.
fn shell_word(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        assert_eq!(shell_word("/home/me/ca.pem"), "/home/me/ca.pem");
        assert_eq!(shell_word("/my home/ca's.pem"), r"'/my home/ca'\''s.pem'");
    }
}

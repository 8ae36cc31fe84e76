//! `snicket health`: an exit code from the `/ready` of an agent or an edge.

use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::fetch::{Fetch, Trust};
use crate::local::LocalEdge;
use crate::paths;
use crate::problem::Problem;
use crate::screen::Screen;

/// Ports that an agent takes for its metrics, the first free one (section 15.1).
const AGENT_PORTS: std::ops::RangeInclusive<u16> = 20241..=20245;

/// A health check that takes longer has answered the question.
const LIMIT: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  snicket health                             whatever runs on this machine
  snicket health --metrics localhost:20241   one agent
  snicket health --api 127.0.0.1:7845        one edge

Exit code 0: ready. 1: not ready, or nothing there.";

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An agent's metrics address [default: localhost:20241 to 20245]
    #[arg(long, value_name = "ADDR", env = "TUNNEL_METRICS", hide_env_values = true)]
    metrics: Option<String>,
    /// An edge's API address [default: that of the edge on this machine]
    #[arg(long, value_name = "ADDR", conflicts_with = "metrics")]
    api: Option<String>,
    /// Certificates to trust when the API has https
    #[arg(long, value_name = "FILE", requires = "api")]
    ca: Option<std::path::PathBuf>,
}

/// What answered.
#[derive(Debug)]
struct Health {
    role: &'static str,
    address: String,
    ready: bool,
    detail: Value,
}

/// Checks.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    if args.metrics.is_some() {
        return agent(args.metrics.as_deref(), screen).await;
    }
    if let Some(api) = &args.api {
        let trust = Trust::choose(args.ca.as_deref(), None)?;
        return report(vec![ask("edge", api, &trust).await?], screen);
    }
    let mut found = scan().await;
    if let Some(local) = LocalEdge::find(&paths::edge_data())? {
        let trust = Trust::file(&local.ca)?;
        found.push(ask("edge", &local.api, &trust).await?);
    }
    report(found, screen)
}

/// Checks an agent only: at this address, or wherever one answers.
pub(crate) async fn agent(metrics: Option<&str>, screen: Screen) -> anyhow::Result<()> {
    let found = match metrics {
        Some(address) => vec![ask("agent", address, &Trust::System).await?],
        None => scan().await,
    };
    report(found, screen)
}

async fn scan() -> Vec<Health> {
    let mut found = Vec::new();
    for port in AGENT_PORTS {
        // Nobody there is the ordinary case.
        found.extend(ask("agent", &format!("127.0.0.1:{port}"), &Trust::System).await.ok());
    }
    found
}

async fn ask(role: &'static str, address: &str, trust: &Trust) -> anyhow::Result<Health> {
    let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let url = Url::parse(&base)
        .and_then(|url| url.join("/ready"))
        .with_context(|| Problem::usage(format!("{address:?} is not an address"), "write host:port"))?;
    let fetch = Fetch { method: Method::GET, url: &url, token: None, body: None, trust, limit: LIMIT };
    let answer = fetch.send().await.with_context(|| {
        Problem::new(
            format!("no {role} answers at {address}"),
            "check that it runs, and its --metrics or --api address",
        )
    })?;
    let detail = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    // Ports are used anew, and many services say 200 to whatever they are asked.
    let known = if role == "edge" { "revision" } else { "readyConnections" };
    if detail.get(known).is_none() {
        let advice = "give the address that it prints at its start: an agent's for --metrics, an edge's for --api";
        return Err(Problem::new(format!("what answers at {address} is no {role} of snicket"), advice).into());
    }
    Ok(Health { role, address: address.to_owned(), ready: answer.status() == StatusCode::OK, detail })
}

fn report(found: Vec<Health>, screen: Screen) -> anyhow::Result<()> {
    for health in &found {
        let Health { role, address, ready, detail } = health;
        screen.event(&json!({ "event": "health", "role": role, "address": address, "ready": ready, "detail": detail }));
        let word = if *ready { "ready" } else { "not ready" };
        let connections = detail.get("readyConnections").and_then(Value::as_u64);
        let connections = connections.map(|count| format!(", {count} connections")).unwrap_or_default();
        screen.say(format!("{role} at {address}: {word}{connections}"));
    }
    if found.is_empty() {
        return Err(Problem::new(
            "neither an agent nor an edge answers on this machine",
            "start one (`snicket up`, `snicket tunnel run`), or give its address with --metrics or --api",
        )
        .into());
    }
    if found.iter().all(|health| health.ready) {
        return Ok(());
    }
    Err(Problem::new("not ready", "look at its log; `snicket doctor` looks for what is in the way").into())
}

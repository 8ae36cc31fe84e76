//! `snicket doctor`: what could be in the way, each with what to do.

mod checks;

use serde::Serialize;
use serde_json::json;

use crate::local::LocalEdge;
use crate::paths;
use crate::problem::Problem;
use crate::screen::{Paint, Screen};

const EXAMPLES: &str = "\
Examples:
  snicket doctor
  snicket doctor --edge tunnel.example.com --ca ca.pem   the way to an edge elsewhere
  snicket doctor --json

Exit code 1 when something failed; warnings alone are 0.";

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// API address of the edge, host[:port] or URL [default: the edge on this machine]
    #[arg(long, value_name = "ADDR", env = "SNICKET_EDGE", hide_env_values = true)]
    edge: Option<String>,
    /// Certificates to trust for the edge (its ca.pem)
    #[arg(long, value_name = "FILE", env = "SNICKET_CA", hide_env_values = true)]
    ca: Option<std::path::PathBuf>,
    /// Data directory of the edge on this machine, when it is not the default one
    #[arg(long, value_name = "DIR", env = "SNICKET_DATA", hide_env_values = true)]
    data: Option<std::path::PathBuf>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check and its outcome.
#[derive(Debug, Clone)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, text: text.into(), advice: String::new() }
    }

    fn warn(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, text: text.into(), advice: advice.into() }
    }

    fn fail(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, text: text.into(), advice: advice.into() }
    }
}

/// Checks everything and prints as it goes.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let data = args.data.unwrap_or_else(paths::edge_data);
    let mut failures = 0;
    let mut tell = |findings: Vec<Finding>| {
        for finding in findings {
            failures += usize::from(finding.verdict == Verdict::Fail);
            print(&finding, screen);
        }
    };
    let (local, found) = match LocalEdge::find(&data) {
        Ok(Some(edge)) => {
            let text = format!("an edge runs on this machine (process {}, domain {})", edge.pid, edge.domain);
            (Some(edge), Finding::ok("edge", text))
        }
        Ok(None) => (None, Finding::ok("edge", "no edge runs on this machine")),
        Err(error) => (None, Finding::fail("edge", format!("{error:#}"), "run as the user who runs the edge")),
    };
    tell(vec![found]);
    tell(checks::ports(local.as_ref()));
    tell(checks::secret_files(&data));
    tell(checks::authority(&data));
    tell(vec![checks::localhost_names().await]);
    tell(checks::open_files());
    tell(checks::edge(args.edge.as_deref(), args.ca.as_deref(), local.as_ref()).await);
    if failures == 0 {
        return Ok(());
    }
    Err(Problem::new(format!("{failures} of the checks failed"), "see what is said at each").into())
}

fn print(finding: &Finding, screen: Screen) {
    let Finding { check, verdict, text, advice } = finding;
    screen.event(&json!({ "event": "check", "check": check, "verdict": verdict, "text": text, "advice": advice }));
    let (paint, word) = match verdict {
        Verdict::Ok => (Paint::Green, "ok  "),
        Verdict::Warn => (Paint::Yellow, "warn"),
        Verdict::Fail => (Paint::Red, "fail"),
    };
    screen.say(format!("{}  {check}: {text}", screen.paint(paint, word)));
    if !advice.is_empty() {
        screen.say(format!("      what to do: {advice}"));
    }
}

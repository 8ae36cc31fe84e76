//! `snicket node`: nodes of the edge.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::status::Which;
use super::up::duration;
use crate::screen::{Paint, Screen};

/// Long enough to walk over to the other machine, short enough for a key that gives away everything.
const LIFE: &str = "1h";

const EXAMPLES: &str = "\
Examples:
  snicket node invite
  snicket node invite --for 10m
  SNICKET_JOIN_KEY=… snicket up --join tunnel.example.com    on the other machine";

const INVITE_EXAMPLES: &str = "\
Examples:
  snicket node invite
  snicket node invite --for 10m --edge https://tunnel.example.com:7845 --ca ca.pem --token-file api-token
  snicket node invite --json

Whoever has the key gets all secrets of the edge: it is good once, and not for long.";

/// Arguments of `node`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key by which one more machine becomes a node
    #[command(after_help = INVITE_EXAMPLES)]
    Invite(Invite),
}

#[derive(Debug, clap::Args)]
struct Invite {
    /// How long the key is good for, up to 168h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = LIFE)]
    life: Duration,
    #[command(flatten)]
    which: Which,
}

/// Does it.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    match args.command {
        Command::Invite(args) => invite(args, screen).await,
    }
}

async fn invite(args: Invite, screen: Screen) -> anyhow::Result<()> {
    let invited = args.which.api()?.invite(args.life).await?;
    let (key, until) = (invited.key.as_str(), invited.expires_at);
    screen.event(&json!({ "event": "invited", "key": key, "expires_at": until }));
    screen.say(format!("{}\n", screen.paint(Paint::Bold, key)));
    let port = invited.api.port();
    screen.say(format!(
        "Good for one machine until {until:.0}. There, with this node's address for HOST:\n\n  \
         SNICKET_JOIN_KEY={key} snicket up --join HOST:{port}\n"
    ));
    if invited.api.ip().is_loopback() {
        screen.say(format!(
            "This node's API listens on this machine only ({}); others reach it after `snicket up --api 0.0.0.0:{port}`.",
            invited.api
        ));
    }
    Ok(())
}

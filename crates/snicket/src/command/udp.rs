//! `snicket udp`: a UDP service at a public port of an edge.

use std::num::NonZeroUsize;
use std::time::Duration;

use policy::{Access, Network};

use super::place::Place;
use super::share::{AgentArgs, EdgeArgs};
use super::tcp;
use crate::bootstrap::{PortWish, StreamWish, Wish};
use crate::ports::PortRange;
use crate::problem::Problem;
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  snicket udp 53                                     DNS of this machine, at a port that the edge chooses
  snicket udp 34197 --port 34197                     a game, at this port
  snicket udp 127.0.0.1:5000-5010 --port 5000-5010   several ports, each to its own
  snicket udp 514 --proxy-protocol v2                the origin is told each visitor's address
  snicket udp 53 --allow 192.0.2.0/24 --edge tunnel.example.com --ca ca.pem

Visitors need no program of ours: they send to the address that is shown, and answers come from it. The same origin or
name has the same port again on the next run. The edge says which ports there are (snicket up --ports).";

/// Arguments of `udp`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What the port leads to: a port of this machine, host:port, or host:first-last
    #[arg(value_parser = Place::udp)]
    origin: Place,
    /// Public port, or a range to choose from [default: chosen by the edge]
    #[arg(long, value_name = "RANGE")]
    port: Option<PortRange>,
    #[command(flatten)]
    edge: EdgeArgs,
    /// Only visitors from this network (repeatable)
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Network>,
    /// Tell the origin each visitor's address in front of every datagram
    #[arg(long, value_name = "VERSION", value_parser = ["v2"])]
    proxy_protocol: Option<String>,
    /// Flows of visitors at once on one port [default: 1000]
    #[arg(long, value_name = "COUNT")]
    max_flows: Option<NonZeroUsize>,
    /// A flow ends when no datagram goes either way for this long [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = super::up::duration)]
    idle_timeout: Option<Duration>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Shares.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    if args.idle_timeout.is_some_and(|idle| idle < Duration::from_secs(1)) {
        let advice = "give --idle-timeout a second or more";
        return Err(Problem::usage("a flow of datagrams has no other end than being idle", advice).into());
    }
    let access = Some(Access { allow: args.allow, ..Access::default() }).filter(|rules| !rules.is_empty());
    let stream =
        StreamWish { proxy_protocol: args.proxy_protocol, max_connections: args.max_flows, idle: args.idle_timeout };
    let port = PortWish::new(&args.origin, args.port, stream);
    let wish = Wish { access, port: Some(port), ..Wish::default() };
    let share = tcp::Share { command: "udp", origin: args.origin, edge: args.edge, wish, agent: args.agent };
    share.run(screen).await
}

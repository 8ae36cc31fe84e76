//! `snicket tcp`: a TCP service at a public port of an edge.

use std::num::NonZeroUsize;
use std::time::Duration;

use policy::{Access, Network};

use super::place::Place;
use super::share::{self, AgentArgs, EdgeArgs, Way};
use crate::bootstrap::{self, PortWish, StreamWish, Wish};
use crate::inspect::Inspect;
use crate::ports::PortRange;
use crate::problem::Problem;
use crate::ready::{self, Ready};
use crate::screen::{Paint, Screen};

const EXAMPLES: &str = "\
Examples:
  snicket tcp 22                                     SSH of this machine, at a port that the edge chooses
  snicket tcp 5432 --port 20432                      a database, at this port
  snicket tcp db.internal:5432 --port 20400-20499    at one of these
  snicket tcp host:5000-5010 --port 5000-5010        several ports, each to its own
  snicket tcp 25 --proxy-protocol v2                 the origin is told each visitor's address
  snicket tcp 8443 --tls                             TLS with the origin's own certificate, by its name
  snicket tcp 22 --allow 192.0.2.0/24 --edge tunnel.example.com --ca ca.pem

Visitors need no program of ours: they connect to the address that is shown. The same origin or name has the same port
again on the next run. The edge says which ports there are (snicket up --ports).";

/// Arguments of `tcp`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What the port leads to: a port of this machine, host:port, or host:first-last
    #[arg(value_parser = Place::tcp)]
    origin: Place,
    /// Public port, or a range to choose from [default: chosen by the edge]
    #[arg(long, value_name = "RANGE")]
    port: Option<PortRange>,
    /// At the edge's HTTPS port instead, by the name in TLS, which passes to the origin unopened
    #[arg(long, conflicts_with = "port")]
    tls: bool,
    #[command(flatten)]
    edge: EdgeArgs,
    /// Only visitors from this network (repeatable)
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Network>,
    /// Tell the origin each visitor's address in front of its bytes
    #[arg(long, value_name = "VERSION", value_parser = ["v1", "v2"])]
    proxy_protocol: Option<String>,
    /// Connections of visitors at once [default: 1000]
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<NonZeroUsize>,
    /// Cut connections on which no byte goes either way for this long; 0s is never [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = super::up::duration)]
    idle_timeout: Option<Duration>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Shares.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let access = Some(Access { allow: args.allow, ..Access::default() }).filter(|rules| !rules.is_empty());
    let stream = StreamWish {
        proxy_protocol: args.proxy_protocol,
        max_connections: args.max_connections,
        idle: args.idle_timeout,
    };
    let wish = if args.tls {
        if args.origin.count() > 1 {
            return Err(Problem::usage("TLS by a name leads to one port", "give one port, or leave --tls out").into());
        }
        Wish { access, tls: Some(stream), ..Wish::default() }
    } else {
        Wish { access, port: Some(PortWish::new(&args.origin, args.port, stream)), ..Wish::default() }
    };
    let share = Share { command: "tcp", origin: args.origin, edge: args.edge, wish, agent: args.agent };
    share.run(screen).await
}

/// A service to be shared at a public port, or under a name of TLS.
pub(super) struct Share {
    pub(super) command: &'static str,
    pub(super) origin: Place,
    pub(super) edge: EdgeArgs,
    pub(super) wish: Wish,
    pub(super) agent: AgentArgs,
}

impl Share {
    /// Shares it.
    pub(super) async fn run(self, screen: Screen) -> anyhow::Result<()> {
        let Self { command, origin, edge, wish, agent } = self;
        agent.start_logging()?;
        let way = Way::find(&edge, None)?;
        let known = bootstrap::ask(&way.api, &way.trust).await?;
        let by_name = wish.tls.is_some();
        let service = origin.to_string();
        let tunnel = share::tunnel(&edge, &way, &known, &service, wish).await?;
        let document = origin.document(&tunnel.hostname)?;
        let config = share::config(&edge, &way, &known, &tunnel, document)?;
        let (https, _) = known.ports();
        let port = tunnel.port.unwrap_or(https);
        let last = port.saturating_add(origin.count() - 1);
        let row = if last > port { format!("{port}-{last}") } else { port.to_string() };
        let connector = agent.connector(config, Inspect::Off);
        let ready = |facts: Ready, screen: Screen| {
            let ready = Ready {
                command,
                url: by_name.then(|| ready::url("https", &tunnel.hostname, port)),
                address: Some(match tunnel.port {
                    Some(_) => format!("{}:{row}", public_host(&tunnel.hostname, &known.domain)),
                    // The name alone says which service it is.
                    None => format!("{}:{port}", tunnel.hostname),
                }),
                port: Some(port),
                origin: Some(service.clone()),
                api: Some(way.api.clone()),
                ca: way.ca.clone(),
                token_file: way.token_file.clone(),
                ..Ready::from(&known).or(facts)
            };
            announce(&ready, screen);
        };
        connector.serve(screen, ready).await
    }
}

/// The name that visitors dial. Few resolvers know names under localhost, and the port alone says which service it is.
fn public_host<'a>(hostname: &'a str, domain: &'a str) -> &'a str {
    if domain == super::up::DOMAIN { domain } else { hostname }
}

fn announce(ready: &Ready, screen: Screen) {
    screen.event(ready);
    let address = ready.address.as_deref().unwrap_or_default();
    screen.say(format!("\n{}\n", screen.paint(Paint::Bold, address)));
    screen.say(format!(
        "leads to {}, through {} ({}). Ctrl-C stops.",
        ready.origin.as_deref().unwrap_or_default(),
        ready.api.as_deref().unwrap_or_default(),
        ready.protocol.as_deref().unwrap_or_default(),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_under_localhost_the_domain_itself_is_shown() {
        assert_eq!(public_host("two-words.localhost", "localhost"), "localhost");
        assert_eq!(public_host("db.edge.example", "edge.example"), "db.edge.example");
    }
}

//! `tunnel port`: public ports that lead to a tunnel.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use registry::{PortId, PortProtocol};
use serde_json::json;

use super::Flags;
use super::session::Session;
use crate::bootstrap::{PortWish, StreamWish};
use crate::command::event;
use crate::command::up::duration;
use crate::ports::PortRange;
use crate::screen::Screen;
use crate::table::Table;
use crate::v4::Port;

const EXAMPLES: &str = "\
Examples:
  snicket tunnel port add web udp://10.0.0.5:53 --port 20053     DNS that the agents reach
  snicket tunnel port add web tcp://db.example.com               the rule of this host says where it is
  snicket tunnel port list
  snicket tunnel port rm web 20053/udp";

/// Arguments of `tunnel port`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

const ADD_EXAMPLES: &str = "\
Examples:
  snicket tunnel port add web udp://10.0.0.5:53 --port 20053
  snicket tunnel port add web tcp://db.example.com --max-connections 50 --idle-timeout 10m

An address is reached by stock agents, and by ours with `warp-routing: enabled: true`; a host's rule has a service
of the same kind (`udp://HOST:PORT` or `tcp://HOST:PORT`). More: docs/ports.md";

const LIST_EXAMPLES: &str = "\
Examples:
  snicket tunnel port list
  snicket tunnel port list web --json";

const REMOVE_EXAMPLES: &str = "\
Example:
  snicket tunnel port rm web 20053/udp 20432/tcp";

#[derive(Debug, Subcommand)]
enum Action {
    /// Give a tunnel a public port
    #[command(after_help = ADD_EXAMPLES)]
    Add(Add),
    /// List the public ports of a tunnel, or of all
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Name or id
        tunnel: Option<String>,
    },
    /// Take public ports from a tunnel
    #[command(after_help = REMOVE_EXAMPLES)]
    Rm {
        /// Name or id
        tunnel: String,
        /// PORT/udp or PORT/tcp
        #[arg(required = true, value_name = "PORT", value_parser = port_id)]
        ports: Vec<PortId>,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Name or id
    tunnel: String,
    /// udp:// or tcp://, and IP:PORT or the name of a host in the agents' rules
    service: Service,
    /// This port of the edge, or one of these [default: any that is free]
    #[arg(long, value_name = "PORT|FIRST-LAST")]
    port: Option<PortRange>,
    /// Visitors at once: connections, or flows of UDP [default: 1000]
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<NonZeroUsize>,
    /// End what is silent for this long [default: 1h, flows of UDP 2m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle_timeout: Option<Duration>,
    /// Tell the origin each visitor's address in front of its bytes: v1 (TCP alone) or v2
    #[arg(long, value_name = "VERSION", value_parser = ["v1", "v2"], hide_possible_values = true)]
    proxy_protocol: Option<String>,
}

/// Where a port leads, and what its visitors speak.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    protocol: PortProtocol,
    place: String,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = text.split_once("://").and_then(|(scheme, place)| Some((protocol(scheme)?, place)));
        match found {
            Some((protocol, place)) if !place.is_empty() => Ok(Self { protocol, place: place.to_owned() }),
            _ => Err(format!("{text:?} is no service of a port; write for example udp://10.0.0.5:53")),
        }
    }
}

fn protocol(name: &str) -> Option<PortProtocol> {
    [PortProtocol::Tcp, PortProtocol::Udp].into_iter().find(|protocol| protocol.to_string() == name)
}

fn port_id(text: &str) -> Result<PortId, String> {
    // TCP and UDP have each their own ports, so none of them is meant without being named.
    let found = text.split_once('/').and_then(|(number, name)| {
        Some(PortId { protocol: protocol(name)?, number: number.parse().ok().filter(|number| *number != 0)? })
    });
    found.ok_or_else(|| format!("{text:?} is no port; write for example 20053/udp or 20053/tcp"))
}

/// Does what was asked.
pub(super) async fn run(args: Args, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let session = Session::open(&flags.settings()?).await?;
    match args.action {
        Action::Add(args) => add(args, &session, screen).await,
        Action::List { tunnel } => list(tunnel.as_deref(), &session, screen).await,
        Action::Rm { tunnel, ports } => remove(&tunnel, &ports, &session, screen).await,
    }
}

async fn add(args: Add, session: &Session, screen: Screen) -> anyhow::Result<()> {
    let Add { tunnel, service, port, max_connections, idle_timeout, proxy_protocol } = args;
    let tunnel = session.api.find(&session.account, &tunnel).await?;
    let stream = StreamWish { proxy_protocol, max_connections, idle: idle_timeout };
    let wish = PortWish { protocol: service.protocol, count: 1, range: port, prefer: None, stream };
    let port = session.api.add_port(tunnel.id, &service.place, &wish).await?;
    screen.event(&event("port", &port)?);
    screen.say(format!(
        "Port {}/{} of the edge now leads to {} through tunnel {}",
        port.port, port.protocol, port.service, tunnel.name
    ));
    if !port.connected {
        screen.say(format!("No agent is connected. `snicket tunnel run {}` connects one.", tunnel.name));
    }
    Ok(())
}

async fn list(tunnel: Option<&str>, session: &Session, screen: Screen) -> anyhow::Result<()> {
    let tunnel = match tunnel {
        Some(tunnel) => Some(session.api.find(&session.account, tunnel).await?.id),
        None => None,
    };
    let mut ports = session.api.ports().await?;
    ports.retain(|port| tunnel.is_none_or(|tunnel| port.tunnel_id == tunnel));
    for port in &ports {
        screen.event(&event("port", port)?);
    }
    if ports.is_empty() {
        screen.say("No ports. `snicket tunnel port add TUNNEL udp://IP:PORT` adds one.");
        return Ok(());
    }
    screen.say(table(&ports).to_string());
    Ok(())
}

fn table(ports: &[Port]) -> Table {
    let mut table = Table::new(&["PORT", "TUNNEL", "SERVICE", "CONNECTED", "MAX", "IDLE"]);
    for port in ports {
        table.row([
            format!("{}/{}", port.port, port.protocol),
            port.tunnel_name.clone().unwrap_or_else(|| port.tunnel_id.to_string()),
            port.service.clone(),
            if port.connected { "yes" } else { "no" }.to_owned(),
            port.max_connections.to_string(),
            format!("{}s", port.idle_seconds),
        ]);
    }
    table
}

async fn remove(tunnel: &str, ports: &[PortId], session: &Session, screen: Screen) -> anyhow::Result<()> {
    let tunnel = session.api.find(&session.account, tunnel).await?;
    for PortId { protocol, number } in ports {
        session.api.remove_port(tunnel.id, *protocol, *number).await?;
        screen.event(&json!({
            "event": "port_removed", "port": number, "protocol": protocol, "tunnel_id": tunnel.id,
            "tunnel_name": tunnel.name,
        }));
        screen.say(format!("Removed port {number}/{protocol} of tunnel {}", tunnel.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_say_what_visitors_speak() {
        for (text, protocol, place) in [
            ("udp://10.0.0.5:53", PortProtocol::Udp, "10.0.0.5:53"),
            ("tcp://db.example.com", PortProtocol::Tcp, "db.example.com"),
            ("udp://[2001:db8::5]:53", PortProtocol::Udp, "[2001:db8::5]:53"),
        ] {
            assert_eq!(text.parse(), Ok(Service { protocol, place: place.to_owned() }));
        }
        for text in ["", "10.0.0.5:53", "http://10.0.0.5:53", "udp://", "udp:53"] {
            assert!(text.parse::<Service>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_say_of_which_kind_they_are() {
        assert_eq!(port_id("20053/udp"), Ok(PortId::udp(20_053)));
        assert_eq!(port_id("1/tcp"), Ok(PortId::tcp(1)));
        for text in ["20053", "0/udp", "65536/udp", "20053/http", "/udp", "20053/"] {
            assert!(port_id(text).is_err(), "{text}");
        }
    }
}

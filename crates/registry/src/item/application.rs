//! Applications: ports at a name of a zone whose TCP or UDP goes to an origin. Pure.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Value, json};

use super::form::{Form, Member, Shape, flag, may, must, number, text};
use super::network::check_network;
use super::{Check, Item, ItemError, MOST, Members, Rules, bad};
use crate::{Hostname, ItemKind};

pub(super) static RULES: Rules =
    Rules { name: "applications", title: "application", has_uuid: false, most: MOST, members: &MEMBERS, check, index };

/// Origins of one application.
const MAX_ORIGINS: usize = 20;
/// Addresses of one's own.
const MAX_ADDRESSES: usize = 20;

static MEMBERS: [Member; 13] = [
    must(
        "dns",
        Form::Object(&[text("type", Form::Choice(&["CNAME", "ADDRESS"]), "CNAME"), must("name", Form::Hostname)]),
    ),
    must(
        "protocol",
        Form::Own(Shape::Text, |value| {
            read::<Protocol>(value, "a protocol and a port or several, such as tcp/22 or udp/1000-2000")
        }),
    ),
    text("traffic_type", Form::Choice(&["direct", "http", "https"]), "direct"),
    may("origin_direct", Form::List(&Form::Own(Shape::Text, read_origin), 1, MAX_ORIGINS)),
    may(
        "origin_dns",
        Form::Object(&[
            must("name", Form::Hostname),
            text("type", Form::Choice(&["", "A", "AAAA", "SRV"]), ""),
            number("ttl", Form::Whole(1, 86_400), 600),
        ]),
    ),
    may("origin_port", Form::Own(Shape::TextOrNumber, read_ports)),
    text("proxy_protocol", Form::Choice(&["off", "v1", "v2", "simple"]), "off"),
    text("tls", Form::Choice(&["off", "flexible", "full", "strict"]), "off"),
    flag("ip_firewall", false),
    flag("argo_smart_routing", false),
    may(
        "edge_ips",
        Form::Object(&[
            text("type", Form::Choice(&["dynamic", "static"]), "dynamic"),
            may("connectivity", Form::Choice(&["all", "ipv4", "ipv6"])),
            may("ips", Form::List(&Form::Own(Shape::Text, read_address), 1, MAX_ADDRESSES)),
        ]),
    ),
    may("virtual_network_id", Form::Uuid),
    may("comment", Form::Text(500)),
];

/// What travels, and by which ports of the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Protocol {
    is_tcp: bool,
    ports: Ports,
}

/// One port, or several in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ports(RangeInclusive<u16>);

impl Ports {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.0.start() <= other.0.end() && other.0.start() <= self.0.end()
    }
}

impl FromStr for Ports {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let port = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| is_number && *port > 0).ok_or(())
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self(first..=last)) } else { Err(()) }
    }
}

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, ports) = text.split_once('/').ok_or(())?;
        let is_tcp = match name.to_ascii_lowercase().as_str() {
            "tcp" => true,
            "udp" => false,
            _ => return Err(()),
        };
        Ok(Self { is_tcp, ports: ports.parse()? })
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", if self.is_tcp { "tcp" } else { "udp" }, self.ports)
    }
}

fn read<T: FromStr + Display>(value: &Value, wanted: &str) -> Result<Value, String> {
    let read = value.as_str().and_then(|text| text.parse::<T>().ok());
    read.map(|read| Value::from(read.to_string())).ok_or_else(|| format!("{wanted} is wanted"))
}

/// A number where it is one port, and a text where it is several.
fn read_ports(value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::Number(number) if number.is_f64() => number.as_f64().map(|number| number.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let ports: Option<Ports> = text.and_then(|text| text.parse().ok());
    match ports.ok_or("a port or several are wanted, such as 22 or \"1000-2000\"")? {
        Ports(ports) if ports.start() == ports.end() => Ok(json!(ports.start())),
        ports => Ok(json!(ports.to_string())),
    }
}

/// Such as `tcp://192.0.2.1:22`, or with several ports.
fn read_origin(value: &Value) -> Result<Value, String> {
    let origin = value.as_str().and_then(|text| text.parse::<Origin>().ok());
    let wanted =
        "a protocol, an IP address and a port are wanted, such as tcp://192.0.2.1:22 or udp://[2001:db8::1]:53";
    Ok(origin.ok_or(wanted)?.to_string().into())
}

/// An origin by its address.
struct Origin {
    is_tcp: bool,
    first: SocketAddr,
    ports: Ports,
}

impl FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, address) = text.split_once("://").ok_or(())?;
        let (host, ports) = address.rsplit_once(':').ok_or(())?;
        let ports: Ports = ports.parse()?;
        let protocol: Protocol = format!("{name}/{ports}").parse()?;
        let first = format!("{host}:{}", ports.0.start()).parse().map_err(|_| ())?;
        Ok(Self { is_tcp: protocol.is_tcp, first, ports })
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_tcp { "tcp" } else { "udp" };
        match self.first {
            SocketAddr::V4(first) => write!(f, "{name}://{}:{}", first.ip(), self.ports),
            SocketAddr::V6(first) => write!(f, "{name}://[{}]:{}", first.ip(), self.ports),
        }
    }
}

fn read_address(value: &Value) -> Result<Value, String> {
    let address = value.as_str().and_then(|text| text.parse::<std::net::IpAddr>().ok());
    Ok(address.ok_or("an IP address is wanted")?.to_string().into())
}

fn index(terms: &Members) -> Option<&str> {
    terms.get("dns")?.get("name")?.as_str()
}

fn protocol(item: &Item) -> Protocol {
    item.text("protocol").parse().expect("only what was read as one is kept")
}

fn check(check: &mut Check<'_>) -> Result<(), ItemError> {
    complete(&mut check.new.terms)?;
    let item = &*check.new;
    check_origin(item)?;
    let protocol = protocol(item);
    let name = Hostname::parse(index(&item.terms).unwrap_or_default()).map_err(|problem| bad("dns.name", problem))?;
    if let Some(zone) = item.zone.and_then(|zone| check.snapshot.zone(zone)).filter(|zone| !name.is_within(&zone.name))
    {
        return Err(bad("dns.name", format_args!("{name} does not lie in the zone {}", zone.name)));
    }
    check_network(check.snapshot, item)?;
    let others = check.snapshot.items_named(ItemKind::Application, name.as_str()).filter(|other| other.id != item.id);
    for other in others {
        let other = self::protocol(other);
        if other.is_tcp == protocol.is_tcp && other.ports.overlaps(&protocol.ports) {
            return Err(ItemError::Taken(format!("an application for {name} at {other}")));
        }
    }
    Ok(())
}

/// Adds where visitors are to come, if nothing was said of it.
fn complete(terms: &mut Members) -> Result<(), ItemError> {
    let is_name = terms["dns"]["type"] == "CNAME";
    let usual = || json!({ "type": "dynamic", "connectivity": "all" });
    match terms.get_mut("edge_ips") {
        None if is_name => drop(terms.insert("edge_ips".into(), usual())),
        None => return Err(bad("edge_ips", "for dns.type ADDRESS, type static and ips are wanted")),
        Some(addresses) => match (addresses["type"] == "dynamic", addresses.get("ips").is_some()) {
            (true, false) if is_name => {
                if addresses.get("connectivity").is_none() {
                    *addresses = usual();
                }
            }
            (true, _) if !is_name => return Err(bad("edge_ips.type", "static is wanted for dns.type ADDRESS")),
            (true, _) => return Err(bad("edge_ips.ips", "not with type dynamic")),
            (false, _) if is_name => return Err(bad("edge_ips.type", "dynamic is wanted for dns.type CNAME")),
            (false, false) => return Err(bad("edge_ips.ips", "a list of addresses is wanted with type static")),
            (false, true) if addresses.get("connectivity").is_some() => {
                return Err(bad("edge_ips.connectivity", "not with type static"));
            }
            (false, true) => (),
        },
    }
    Ok(())
}

fn check_origin(item: &Item) -> Result<(), ItemError> {
    let terms = &item.terms;
    let protocol = protocol(item);
    let same = "as many ports as in protocol are wanted";
    match (terms.get("origin_direct").and_then(Value::as_array), terms.get("origin_dns"), terms.get("origin_port")) {
        (Some(origins), None, None) => {
            for (index, origin) in origins.iter().filter_map(Value::as_str).enumerate() {
                let origin: Origin = origin.parse().expect("only what was read as one is kept");
                let place = format!("origin_direct[{index}]");
                if origin.is_tcp != protocol.is_tcp {
                    return Err(bad(&place, "the protocol is not that of the application"));
                }
                if origin.ports.count() != protocol.ports.count() {
                    return Err(bad(&place, same));
                }
            }
        }
        (None, Some(dns), port) => match port {
            // The record says which.
            None if dns["type"] == "SRV" => (),
            None => return Err(bad("origin_port", "a port is wanted with origin_dns")),
            Some(port) => {
                let ports: Ports = port
                    .as_str()
                    .map_or_else(|| port.to_string().parse(), str::parse)
                    .map_err(|()| bad("origin_port", same))?;
                if ports.count() != protocol.ports.count() {
                    return Err(bad("origin_port", same));
                }
            }
        },
        (Some(_), None, Some(_)) => return Err(bad("origin_port", "only with origin_dns; origin_direct has its own")),
        _ => return Err(bad("origin_direct", "either this or origin_dns is wanted, and not both")),
    }
    if protocol.is_tcp {
        return match item.text("proxy_protocol") {
            "simple" => Err(bad("proxy_protocol", "simple is for UDP; off, v1 or v2 is wanted")),
            _ => Ok(()),
        };
    }
    for (member, usual) in [("traffic_type", "direct"), ("tls", "off")] {
        if item.text(member) != usual {
            return Err(bad(member, format_args!("{usual} is wanted for UDP")));
        }
    }
    match item.text("proxy_protocol") {
        "v1" => Err(bad("proxy_protocol", "v1 is for TCP; off, v2 or simple is wanted")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_origins_are_read_as_people_write_them() {
        for (text, form) in [("tcp/22", "tcp/22"), ("UDP/1000-2000", "udp/1000-2000"), ("tcp/5-5", "tcp/5")] {
            assert_eq!(text.parse::<Protocol>().map(|read| read.to_string()), Ok(form.to_owned()));
        }
        for text in ["tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/2-1", "tcp/1-2-3", "ssh/22", "tcp/+1", "/1", "tcp/ 1"] {
            assert_eq!(text.parse::<Protocol>(), Err(()), "{text}");
        }
        for (text, form) in [
            ("tcp://192.0.2.1:22", "tcp://192.0.2.1:22"),
            ("UDP://[2001:DB8:0::1]:53", "udp://[2001:db8::1]:53"),
            ("tcp://192.0.2.1:1-3", "tcp://192.0.2.1:1-3"),
        ] {
            assert_eq!(read_origin(&json!(text)), Ok(json!(form)));
        }
        for text in ["192.0.2.1:22", "tcp://host:22", "tcp://192.0.2.1", "http://192.0.2.1:80", "tcp://192.0.2.1:22/"] {
            assert!(read_origin(&json!(text)).is_err(), "{text}");
        }
        for (value, read) in
            [(json!(22), json!(22)), (json!("22"), json!(22)), (json!(22.0), json!(22)), (json!("1-2"), json!("1-2"))]
        {
            assert_eq!(read_ports(&value), Ok(read));
        }
        for value in [json!(0), json!(-1), json!(1.5), json!("x"), json!(null), json!(1e300)] {
            assert!(read_ports(&value).is_err(), "{value}");
        }
    }
}

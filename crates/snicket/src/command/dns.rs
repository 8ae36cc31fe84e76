//! `snicket dns`: zones and their records.

mod file;
mod record;

use clap::Subcommand;
use serde_json::json;

use super::event;
use super::status::Which;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::table::Table;
use crate::v4::{Api, Zone};

const EXAMPLES: &str = "\
Examples:
  snicket dns                                              the zones that there are
  snicket dns create example.com
  snicket dns list example.com
  snicket dns add example.com www A 192.0.2.1 --proxied
  snicket dns add example.com @ MX 10 mail.example.net --ttl 3600
  snicket dns rm example.com www A
  snicket dns export example.com > example.com.zone
  snicket dns dnssec example.com on

Other edges than that on this machine: --edge, --ca and --token-file. More: docs/dns.md";

const CREATE_EXAMPLES: &str = "\
Examples:
  snicket dns create example.com
  snicket dns create example.com && snicket dns import example.com example.com.zone";

const DELETE_EXAMPLES: &str = "\
Example:
  snicket dns export example.com kept.zone && snicket dns delete example.com";

const DNSSEC_EXAMPLES: &str = "\
Examples:
  snicket dns dnssec example.com           whether it is signed, and its DS record
  snicket dns dnssec example.com on        the DS record goes to the registrar then
  snicket dns dnssec example.com off       once the DS record is away from there";

/// Arguments of `dns`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a zone
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name
        zone: String,
    },
    /// Remove a zone and all its records
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// Its name
        zone: String,
    },
    /// List the records of a zone
    #[command(after_help = record::LIST_EXAMPLES)]
    List(record::List),
    /// Add a record to a zone
    #[command(after_help = record::ADD_EXAMPLES)]
    Add(record::Add),
    /// Remove records from a zone
    #[command(after_help = record::REMOVE_EXAMPLES)]
    Rm(record::Remove),
    /// Write a zone as a zone file
    #[command(after_help = file::EXPORT_EXAMPLES)]
    Export(file::Export),
    /// Add the records of a zone file that are not there yet
    #[command(after_help = file::IMPORT_EXAMPLES)]
    Import(file::Import),
    /// Sign a zone, or end that; prints the DS record for the registrar
    #[command(after_help = DNSSEC_EXAMPLES)]
    Dnssec {
        /// Its name
        zone: String,
        /// `on` or `off`; only shows it if left out
        #[arg(value_parser = ["on", "off"], hide_possible_values = true)]
        wanted: Option<String>,
    },
}

/// Does what was asked.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let Some(action) = args.action else { return zones(&args.which.api()?, screen).await };
    match action {
        Action::Create { zone } => create(&zone, &args.which.api()?, screen).await,
        Action::Delete { zone } => delete(&zone, &args.which.api()?, screen).await,
        Action::List(list) => record::list(list, &args.which.api()?, screen).await,
        Action::Add(add) => record::add(add, &args.which.api()?, screen).await,
        Action::Rm(remove) => record::remove(remove, &args.which.api()?, screen).await,
        Action::Export(export) => file::export(export, &args.which.api()?, screen).await,
        Action::Import(import) => file::import(import, &args.which.api()?, screen).await,
        Action::Dnssec { zone, wanted } => {
            dnssec(&zone, wanted.map(|wanted| wanted == "on"), &args.which.api()?, screen).await
        }
    }
}

async fn zones(api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zones = api.zones().await?;
    for zone in &zones {
        screen.event(&event("zone", zone)?);
    }
    if zones.is_empty() {
        screen.say("No zones. `snicket dns create ZONE` makes one.");
        return Ok(());
    }
    let mut table = Table::new(&["ZONE", "TYPE", "STATE", "NAME SERVERS"]);
    for Zone { name, kind, paused, name_servers, .. } in &zones {
        let state = if *paused { "paused" } else { "active" };
        let servers = if name_servers.is_empty() { "-".to_owned() } else { name_servers.join(" ") };
        table.row([name.clone(), kind.clone(), state.to_owned(), servers]);
    }
    screen.say(table.to_string());
    if zones.iter().all(|zone| zone.name_servers.is_empty()) {
        screen.say("\nNo node answers by DNS; `snicket up --dns 53` does.");
    }
    Ok(())
}

async fn create(name: &str, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.create_zone(name).await?;
    screen.event(&event("zone", &zone)?);
    screen.say(match &zone.name_servers[..] {
        [] => format!(
            "Made the zone {}. Once a node answers by DNS (`snicket up --dns 53`), it can be delegated.",
            zone.name
        ),
        servers => format!(
            "Made the zone {}. To delegate it, name these servers at the registrar: {}",
            zone.name,
            servers.join(" ")
        ),
    });
    Ok(())
}

async fn delete(name: &str, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.zone(name).await?;
    api.delete_zone(&zone).await?;
    screen.event(&json!({ "event": "zone_removed", "id": zone.id, "name": zone.name }));
    screen.say(format!("Removed the zone {} with its records", zone.name));
    Ok(())
}

async fn dnssec(name: &str, on: Option<bool>, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.zone(name).await?;
    let found = api.dnssec(&zone, on).await?;
    let mut said = event("dnssec", &found)?;
    said["zone"] = zone.name.clone().into();
    screen.event(&said);
    match (found.ds.as_deref(), found.status.as_str()) {
        (Some(ds), status) => {
            screen.say(format!("{} is signed. Its DS record, for the registrar:\n\n  {ds}", zone.name));
            if status == "pending" {
                screen.say("\nNo node answers by DNS yet; `snicket up --dns 53` does. Give the record away after that.");
            }
        }
        (None, _) if on == Some(false) => screen.say(format!(
            "{} is not signed any more. Where its DS record still stands, resolvers refuse the zone: take it away there.",
            zone.name
        )),
        (None, _) => screen.say(format!("{0} is not signed. `snicket dns dnssec {0} on` signs it.", zone.name)),
    }
    Ok(())
}

/// What a name within a zone is in full: `@` is the zone, and what does not lie in it is meant below it.
fn whole_name(name: &str, zone: &Zone) -> anyhow::Result<String> {
    let parse = |text: &str| {
        registry::Hostname::parse(text).map_err(|problem| {
            let advice = "write for example www, *.www, _sip._tcp, or @ for the zone itself";
            anyhow::Error::new(problem).context(Problem::usage(format!("{name:?} is no name of a record"), advice))
        })
    };
    if name == "@" {
        return Ok(zone.name.clone());
    }
    let of_zone = parse(&zone.name)?;
    match parse(name) {
        Ok(found) if found.is_within(&of_zone) => Ok(found.as_str().to_owned()),
        Ok(found) if name.ends_with('.') => {
            let what = format!("{} does not lie in the zone {}", found.as_str(), zone.name);
            Err(Problem::usage(
                what,
                "`snicket dns` lists the zones; without the dot at the end it is meant below the zone",
            )
            .into())
        }
        _ => Ok(parse(&format!("{}.{}", name.trim_end_matches('.'), zone.name))?.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_the_api_does() {
        let zone = Zone {
            id: String::new(),
            name: "example.test".to_owned(),
            kind: String::new(),
            paused: false,
            name_servers: Vec::new(),
        };
        for (name, whole) in [
            ("@", "example.test"),
            ("www", "www.example.test"),
            ("WWW.Example.test", "www.example.test"),
            ("www.example.test.", "www.example.test"),
            ("example.test", "example.test"),
            ("*", "*.example.test"),
            ("_sip._tcp", "_sip._tcp.example.test"),
            ("www.other.test", "www.other.test.example.test"),
            ("bücher", "xn--bcher-kva.example.test"),
        ] {
            assert_eq!(whole_name(name, &zone).unwrap(), whole, "{name}");
        }
        for name in ["", "a..b", "www.other.test.", "a b"] {
            assert!(whole_name(name, &zone).is_err(), "{name}");
        }
    }
}

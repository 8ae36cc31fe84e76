//! `dns list`, `add` and `rm`.

use anyhow::anyhow;
use registry::{RecordContent, RecordType};
use serde_json::json;

use super::whole_name;
use crate::command::event;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::table::Table;
use crate::v4::{Api, Record, Refusal, Zone};

/// Codes for what is there already, or for what cannot be beside it.
const IN_THE_WAY: [i64; 4] = [81053, 81054, 81057, 81058];

/// How the API writes that the edge chooses the time to live.
const AUTOMATIC: u32 = 1;

pub(super) const LIST_EXAMPLES: &str = "\
Examples:
  snicket dns list example.com
  snicket dns list example.com --name www --type A
  snicket dns list example.com --json | jq -r 'select(.proxied) | .name'";

/// Arguments of `dns list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Its name
    zone: String,
    /// Only those of this name, such as www or @
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only those of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<RecordType>,
}

pub(super) const ADD_EXAMPLES: &str = "\
Examples:
  snicket dns add example.com www A 192.0.2.1 --proxied
  snicket dns add example.com @ MX 10 mail.example.net
  snicket dns add example.com _sip._tcp SRV 1 2 5060 sip.example.com --ttl 300
  snicket dns add example.com @ TXT 'v=spf1 -all' --comment 'no mail from here'
  snicket dns add example.com www A 192.0.2.7 --replace      in the place of the addresses before";

/// Arguments of `dns add`.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The zone's name
    zone: String,
    /// www, *.www, _sip._tcp, or @ for the zone itself
    name: String,
    /// A, AAAA, CNAME, MX, TXT, SRV, …
    #[arg(value_name = "TYPE")]
    kind: RecordType,
    /// As a zone file has it; several words are one content
    #[arg(required = true)]
    content: Vec<String>,
    /// Time to live in seconds, 60 to 86400 [default: automatic]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    /// Visitors come through the edge
    #[arg(long)]
    proxied: bool,
    /// A note for people
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// A note for filters, such as team:web; several times for several
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// In the place of all records of this name and type
    #[arg(long)]
    replace: bool,
}

pub(super) const REMOVE_EXAMPLES: &str = "\
Examples:
  snicket dns rm example.com www A 192.0.2.1
  snicket dns rm example.com www A                 if there is only one
  snicket dns rm example.com old --all             all records of the name";

/// Arguments of `dns rm`.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The zone's name
    zone: String,
    /// www, *.www, _sip._tcp, or @ for the zone itself
    name: String,
    /// Only those of this type
    #[arg(value_name = "TYPE")]
    kind: Option<RecordType>,
    /// Only the one with this content
    content: Vec<String>,
    /// All of them, if there are several
    #[arg(long)]
    all: bool,
}

/// Shows them.
pub(super) async fn list(args: List, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.zone(&args.zone).await?;
    let name = args.name.as_deref().map(|name| whole_name(name, &zone)).transpose()?;
    let records = api.records(&zone, name.as_deref(), args.kind).await?;
    for record in &records {
        screen.event(&event("record", record)?);
    }
    if records.is_empty() {
        screen.say(format!("No records. `snicket dns add {} www A 192.0.2.1` adds one.", zone.name));
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "TYPE", "TTL", "PROXIED", "CONTENT"]);
    for record in &records {
        let proxied = if record.proxied { "yes" } else { "no" };
        let ttl = ttl(record.ttl);
        table.row([record.name.clone(), record.kind.clone(), ttl, proxied.to_owned(), with_notes(record)]);
    }
    screen.say(table.to_string());
    Ok(())
}

fn ttl(seconds: u32) -> String {
    if seconds == AUTOMATIC { "auto".to_owned() } else { seconds.to_string() }
}

/// The data, with what people noted behind it.
fn with_notes(record: &Record) -> String {
    let notes: Vec<&str> = record.comment.iter().chain(&record.tags).map(String::as_str).collect();
    if notes.is_empty() { record.data() } else { format!("{}  ; {}", record.data(), notes.join(", ")) }
}

fn line(record: &Record) -> String {
    format!("{} {} {}", record.name, record.kind, record.data())
}

/// Makes one.
pub(super) async fn add(args: Add, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.zone(&args.zone).await?;
    let name = whole_name(&args.name, &zone)?;
    let new = json!({
        "name": name, "type": args.kind.name(), "content": args.content.join(" "), "ttl": args.ttl.unwrap_or(AUTOMATIC),
        "proxied": args.proxied, "comment": args.comment, "tags": args.tag,
    });
    let old = if args.replace { api.records(&zone, Some(&name), Some(args.kind)).await? } else { Vec::new() };
    let record = api.replace_records(&zone, &old, new).await.map_err(|error| in_the_way(error, &zone, &name))?;
    screen.event(&event("record", &record)?);
    let proxied = if record.proxied { ", proxied" } else { "" };
    let instead = if old.is_empty() { String::new() } else { format!(", in the place of {}", counted(old.len())) };
    screen.say(format!("Added {} (TTL {}{proxied}){instead}", line(&record), ttl(record.ttl)));
    Ok(())
}

fn counted(count: usize) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

fn in_the_way(error: anyhow::Error, zone: &Zone, name: &str) -> anyhow::Error {
    if !error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.has(&IN_THE_WAY)) {
        return error;
    }
    let advice = format!(
        "`snicket dns list {} --name {name}` shows what is there; --replace puts it in the place of those of its type",
        zone.name
    );
    error.context(Problem::new("the record was not added", advice))
}

/// Removes those that are meant.
pub(super) async fn remove(args: Remove, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let zone = api.zone(&args.zone).await?;
    let name = whole_name(&args.name, &zone)?;
    let mut records = api.records(&zone, Some(&name), args.kind).await?;
    if let (Some(kind), false) = (args.kind, args.content.is_empty()) {
        let wanted = RecordContent::parse(kind, &args.content.join(" "), None, None).map_err(|problem| {
            anyhow!("{problem}")
                .context(Problem::usage("no record has such a content", "write it as `snicket dns list` does"))
        })?;
        records.retain(|record| record.is(&wanted));
    }
    let shows = format!("`snicket dns list {} --name {name}`", zone.name);
    if records.is_empty() {
        return Err(
            Problem::new(format!("there is no such record at {name}"), format!("{shows} shows what is there")).into()
        );
    }
    if records.len() > 1 && !args.all {
        let found: Vec<String> = records.iter().map(line).collect();
        let problem = Problem::usage(
            format!("{} are meant, and none was removed", counted(records.len())),
            "say which by type and content, or --all",
        );
        return Err(anyhow!(found.join("\n")).context(problem));
    }
    api.remove_records(&zone, &records).await?;
    for record in &records {
        screen.event(&event("record_removed", record)?);
        screen.say(format!("Removed {}", line(record)));
    }
    Ok(())
}

//! `snicket pools`: the pools of load balancers, and their members.

mod member;

use clap::Subcommand;
use registry::{BadLabel, LabelSteering, LabelWord};
use serde_json::json;

use super::event;
use super::status::Which;
use crate::screen::Screen;
use crate::table::Table;
use crate::v4::{Api, Member, Pool, Split};

const EXAMPLES: &str = "\
Examples:
  snicket pools                                the pools, and how they are
  snicket pools show web
  snicket pools add web 198.51.100.7:8080 --name oslo
  snicket pools set-weight web oslo 0.25
  snicket pools drain web oslo                 nobody new; who has a session there stays
  snicket pools disable web oslo
  snicket pools remove web oslo
  snicket pools split web release stable=90 canary=10

Other edges than that on this machine: --edge, --ca and --token-file. More: docs/balance.md";

const SHOW_EXAMPLES: &str = "\
Examples:
  snicket pools show web
  snicket pools show web --json | jq '.members[] | select(.healthy | not)'

Requests and shares are those of the latest 5 to 10 minutes through the node that is asked.";

const ENABLE_EXAMPLES: &str = "\
Examples:
  snicket pools enable web oslo
  snicket pools enable web             the pool itself";

const DISABLE_EXAMPLES: &str = "\
Examples:
  snicket pools disable web oslo       who has a session there leaves after the load balancer's drain_duration
  snicket pools disable web            the pool itself";

const SPLIT_EXAMPLES: &str = "\
Examples:
  snicket pools split web release stable=90 canary=10    nine visitors of ten get the stable release
  snicket pools split web release stable=0 canary=1      nobody new gets it any more
  snicket pools split web --off                          labels do not matter

Labels are those of tunnels (`snicket tunnel --label release=canary`) and of members at addresses.";

/// Arguments of `pools`.
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
    /// Show a pool: its members, their health, and who gets how much
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Name or id
        pool: String,
    },
    /// Add a member at an address
    #[command(after_help = member::ADD_EXAMPLES)]
    Add(member::Add),
    /// Take members out of a pool
    #[command(after_help = member::REMOVE_EXAMPLES)]
    Remove {
        /// Name or id
        pool: String,
        /// Name, id or address
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<String>,
    },
    /// Say which share of visitors a member gets
    #[command(after_help = member::WEIGHT_EXAMPLES)]
    SetWeight {
        /// Name or id
        pool: String,
        /// Name, id or address
        member: String,
        /// 0 to 1, compared with those of the others
        #[arg(value_parser = member::weight)]
        weight: f64,
    },
    /// Lead nobody new to a member, as long as there is another one; sessions stay
    #[command(after_help = member::DRAIN_EXAMPLES)]
    Drain {
        /// Name or id
        pool: String,
        /// Name, id or address
        member: String,
    },
    /// Share visitors out by a label, whichever number of members has each of its values
    #[command(after_help = SPLIT_EXAMPLES)]
    Split {
        /// Name or id
        pool: String,
        /// The label, such as release
        #[arg(required_unless_present = "off")]
        key: Option<LabelWord>,
        /// What the members with each value get, compared with the others
        #[arg(value_name = "VALUE=WEIGHT", value_parser = split_weight, required_unless_present = "off")]
        weights: Vec<(LabelWord, f64)>,
        /// By no label
        #[arg(long, conflicts_with_all = ["key", "weights"])]
        off: bool,
    },
    /// Lead visitors to a member, or to a pool, again
    #[command(after_help = ENABLE_EXAMPLES)]
    Enable {
        /// Name or id
        pool: String,
        /// Name, id or address; the pool itself if left out
        member: Option<String>,
    },
    /// Lead no visitors to a member, or to a pool
    #[command(after_help = DISABLE_EXAMPLES)]
    Disable {
        /// Name or id
        pool: String,
        /// Name, id or address; the pool itself if left out
        member: Option<String>,
    },
}

/// Does what was asked.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    let api = args.which.api()?;
    match args.action {
        None => list(&api, screen).await,
        Some(Action::Show { pool }) => show(&api.pool(&pool).await?, screen),
        Some(Action::Add(add)) => member::add(add, &api, screen).await,
        Some(Action::Remove { pool, members }) => member::remove(&pool, &members, &api, screen).await,
        Some(Action::SetWeight { pool, member, weight }) => {
            member::set_weight(&pool, &member, weight, &api, screen).await
        }
        Some(Action::Drain { pool, member }) => member::drain(&pool, &member, &api, screen).await,
        Some(Action::Split { pool, key, weights, off: _ }) => split(&pool, key, weights, &api, screen).await,
        Some(Action::Enable { pool, member }) => enable(&pool, member.as_deref(), true, &api, screen).await,
        Some(Action::Disable { pool, member }) => enable(&pool, member.as_deref(), false, &api, screen).await,
    }
}

async fn list(api: &Api, screen: Screen) -> anyhow::Result<()> {
    let pools = api.pools().await?;
    for pool in &pools {
        screen.event(&event("pool", pool)?);
    }
    if pools.is_empty() {
        screen.say("No pools. `snicket tunnel route lb TUNNEL HOSTNAME POOL` makes one, with a tunnel in it.");
        return Ok(());
    }
    let mut table = Table::new(&["POOL", "STATE", "MEMBERS", "MONITOR", "LEADS"]);
    for pool in &pools {
        let well = pool.members.iter().filter(|member| member.enabled && member.healthy).count();
        let monitor = if pool.monitor.is_some() { "yes" } else { "no" };
        let members = format!("{well} of {}", pool.members.len());
        table.row([
            pool.name.clone(),
            state(pool).to_owned(),
            members,
            monitor.to_owned(),
            pool.load_balancers.join(" "),
        ]);
    }
    screen.say(table.to_string());
    Ok(())
}

fn state(pool: &Pool) -> &'static str {
    match (pool.enabled, pool.healthy) {
        (false, _) => "disabled",
        (true, true) => "healthy",
        (true, false) => "unhealthy",
    }
}

fn state_of_member(member: &Member) -> &'static str {
    match (member.enabled, member.healthy) {
        (false, _) => "disabled",
        (true, false) => "unhealthy",
        (true, true) if member.weight == 0.0 => "drained",
        (true, true) => "healthy",
    }
}

fn show(pool: &Pool, screen: Screen) -> anyhow::Result<()> {
    screen.event(&event("pool", pool)?);
    let monitor = pool.monitor.as_deref().unwrap_or("none: only tunnels' connections count");
    screen.say(format!(
        "POOL      {} ({}), at least {} of its members well",
        pool.name,
        state(pool),
        pool.minimum_origins
    ));
    screen.say(format!(
        "LEADS     {}",
        if pool.load_balancers.is_empty() { "nobody".to_owned() } else { pool.load_balancers.join(" ") }
    ));
    if let Some(split) = &pool.label_steering {
        screen.say(format!("SPLIT     {}", split_text(split)));
    }
    screen.say(format!("POLICY    {}\nMONITOR   {monitor}\n", pool.policy));
    if pool.members.is_empty() {
        screen.say(format!("No members. `snicket pools add {} ADDRESS` adds one.", pool.name));
        return Ok(());
    }
    let mut table =
        Table::new(&["MEMBER", "AT", "STATE", "LINK", "PROBE", "SINCE", "WEIGHT", "WANTED", "SERVED", "REASON"]);
    for member in &pool.members {
        let or_none = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
        table.row([
            member.title(),
            member.place(),
            state_of_member(member).to_owned(),
            or_none(member.link.as_ref()),
            or_none(member.probe.as_ref()),
            member.since.map_or_else(|| "-".to_owned(), |since| format!("{since:.0}")),
            member.weight.to_string(),
            share(member.wanted_share),
            share(member.served_share),
            member.reason.clone().unwrap_or_default(),
        ]);
    }
    screen.say(table.to_string());
    let requests: u64 = pool.members.iter().map(|member| member.recent_requests).sum();
    screen.say(format!(
        "\nServed: {requests} requests through the node asked ({}) in the latest minutes",
        pool.counted_by.location
    ));
    show_history(pool, screen);
    Ok(())
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0))
}

/// What has happened, the latest last. Nothing has if no member has turned since it was first seen.
fn show_history(pool: &Pool, screen: Screen) {
    let mut changes: Vec<_> =
        pool.members.iter().flat_map(|member| member.history.iter().map(move |change| (change, member))).collect();
    changes.sort_by_key(|(change, _)| change.at);
    if changes.is_empty() {
        return;
    }
    let mut table = Table::new(&["WHEN", "MEMBER", "TURNED"]);
    for (change, member) in changes {
        let turned = match (&change.reason, change.healthy) {
            (_, true) => "healthy".to_owned(),
            (Some(reason), false) => format!("unhealthy: {reason}"),
            (None, false) => "unhealthy".to_owned(),
        };
        table.row([format!("{:.0}", change.at), member.title(), turned]);
    }
    screen.say(format!("\n{table}"));
}

fn split_weight(text: &str) -> Result<(LabelWord, f64), String> {
    let (value, weight) = text.split_once('=').ok_or("VALUE=WEIGHT is wanted, such as canary=10")?;
    let most = LabelSteering::MAX_WEIGHT;
    let weight = weight.parse().ok().filter(|weight| (0.0..=most).contains(weight));
    let weight = weight.ok_or_else(|| format!("a weight from 0 to {most} is wanted"))?;
    Ok((value.parse().map_err(|bad: BadLabel| bad.to_string())?, weight))
}

fn split_text(split: &Split) -> String {
    let weights: Vec<_> = split.weights.iter().map(|(value, weight)| format!("{value} {weight}")).collect();
    format!("by {}: {}", split.key, weights.join(", "))
}

async fn split(
    name: &str,
    key: Option<LabelWord>,
    weights: Vec<(LabelWord, f64)>,
    api: &Api,
    screen: Screen,
) -> anyhow::Result<()> {
    let pool = api.pool(name).await?;
    let split = key.map(|key| Split { key, weights: weights.into_iter().collect() });
    api.split_pool(&pool, split.as_ref()).await?;
    screen.event(&json!({ "event": "pool_changed", "pool": pool.name, "label_steering": split }));
    let Some(split) = split else {
        screen.say(format!("Labels do not matter in the pool {} any more", pool.name));
        return Ok(());
    };
    screen.say(format!("Visitors of the pool {} are shared out {}", pool.name, split_text(&split)));
    let pool = api.pool(&pool.id).await?;
    let has = |value: &LabelWord| pool.members.iter().any(|member| member.label.as_ref() == Some(value));
    for (value, _) in split.weights.iter().filter(|(value, weight)| **weight > 0.0 && !has(value)) {
        screen.say(format!("No member has {}={value} yet; the others share what it would get.", split.key));
    }
    Ok(())
}

async fn enable(name: &str, which: Option<&str>, enabled: bool, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let pool = api.pool(name).await?;
    if let Some(which) = which {
        return member::enable(&pool, which, enabled, api, screen).await;
    }
    api.enable_pool(&pool, enabled).await?;
    screen.event(&json!({ "event": "pool_changed", "pool": pool.name, "enabled": enabled }));
    let word = if enabled { "again" } else { "no more" };
    screen.say(format!("Visitors are led to the pool {} {word}", pool.name));
    Ok(())
}

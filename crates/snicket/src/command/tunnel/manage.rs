//! `tunnel create`, `list`, `info`, `delete`, `cleanup`, `token` and `route dns`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use registry::Labels;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use wire::identity::{Credentials, TunnelSecret};

use super::Flags;
use super::session::Session;
use crate::command::event;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::{Secret, write_private};
use crate::table::Table;
use crate::v4::{Balanced, Connector, Tunnel, encode};

/// Shortest secret that the reference takes.
const SHORTEST_SECRET: usize = 32;

/// `-o`: the objects as the API shows them, in one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Document {
    Json,
    Yaml,
}

impl Document {
    fn print(self, screen: Screen, value: &impl Serialize) -> anyhow::Result<()> {
        let value = serde_json::to_value(value)?;
        screen.say(match self {
            Self::Json => serde_json::to_string_pretty(&value)?,
            Self::Yaml => crate::table::yaml(&value),
        });
        Ok(())
    }
}

const CREATE_EXAMPLES: &str = "\
Examples:
  snicket tunnel create web
  snicket tunnel create --credentials-file web.json web
  snicket tunnel create --secret-file secret.b64 web
  snicket tunnel create --label release=canary web-next";

/// Arguments of `tunnel create`.
#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(super) struct Create {
    /// The tunnel's name
    name: String,
    /// Base64 of at least 32 bytes, instead of a secret made here
    #[arg(long, value_name = "BASE64", env = "TUNNEL_CREATE_SECRET", hide_env_values = true)]
    secret: Option<Secret>,
    /// The same from a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    secret_file: Option<PathBuf>,
    /// Print the tunnel as one document
    #[arg(long, short, value_name = "FORM")]
    output: Option<Document>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  snicket tunnel list
  snicket tunnel list --name web -o json
  snicket tunnel list --name-prefix web- --sort-by createdAt --invert-sort";

/// Arguments of `tunnel list`.
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct List {
    /// Deleted ones as well
    #[arg(long, short = 'd')]
    show_deleted: bool,
    /// Only the one with this name
    #[arg(long, short = 'n', value_name = "NAME")]
    name: Option<String>,
    /// Only those whose name begins with this
    #[arg(long, value_name = "TEXT")]
    name_prefix: Option<String>,
    /// Only those whose name does not begin with this
    #[arg(long, value_name = "TEXT")]
    exclude_name_prefix: Option<String>,
    /// Only those that existed at this time, RFC 3339
    #[arg(long, short = 'w', value_name = "TIME")]
    when: Option<jiff::Timestamp>,
    /// Only the one with this id
    #[arg(long, short = 'i', value_name = "UUID")]
    id: Option<Uuid>,
    /// Connections that are lost and expected back as well
    #[arg(long)]
    show_recently_disconnected: bool,
    /// name, id, createdAt, deletedAt or numConnections
    #[arg(
        long, value_name = "KEY", value_parser = ["name", "id", "createdAt", "deletedAt", "numConnections"],
        hide_possible_values = true, default_value = "name"
    )]
    sort_by: String,
    /// The other way round
    #[arg(long)]
    invert_sort: bool,
    /// Print one document
    #[arg(long, short, value_name = "FORM")]
    output: Option<Document>,
}

const INFO_EXAMPLES: &str = "\
Examples:
  snicket tunnel info web
  snicket tunnel info -o json 11111111-2222-4333-8444-555555555555";

/// Arguments of `tunnel info`.
#[derive(Debug, clap::Args)]
#[command(after_help = INFO_EXAMPLES)]
pub(super) struct Info {
    /// Name or id
    tunnel: String,
    /// Print one document
    #[arg(long, short, value_name = "FORM")]
    output: Option<Document>,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  snicket tunnel delete web
  snicket tunnel delete -f web api       also while agents are connected";

/// Arguments of `tunnel delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct Delete {
    /// Names or ids
    #[arg(required = true)]
    tunnels: Vec<String>,
    /// Also while agents are connected, and with all that points to the tunnel
    #[arg(long, short)]
    force: bool,
}

const CLEANUP_EXAMPLES: &str = "\
Examples:
  snicket tunnel cleanup web
  snicket tunnel cleanup -c 1efd11b3-a34d-440c-9afc-4d6408a6cd9b web";

/// Arguments of `tunnel cleanup`.
#[derive(Debug, clap::Args)]
#[command(after_help = CLEANUP_EXAMPLES)]
pub(super) struct Cleanup {
    /// Names or ids
    #[arg(required = true)]
    tunnels: Vec<String>,
    /// Only those of this connector
    #[arg(long, short = 'c', value_name = "UUID")]
    connector_id: Option<Uuid>,
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  snicket tunnel token web > web.token
  snicket tunnel token --credentials-file web.json web";

/// Arguments of `tunnel token`.
#[derive(Debug, clap::Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub(super) struct Token {
    /// Name or id
    tunnel: String,
}

const ROUTE_EXAMPLES: &str = "\
Examples:
  snicket tunnel route dns web www.example.com
  snicket tunnel route dns --overwrite-dns web www.example.com
  snicket tunnel route lb berlin www.example.com web     the pool \"web\" leads to the tunnel, too";

/// Arguments of `tunnel route`.
#[derive(Debug, clap::Args)]
#[command(after_help = ROUTE_EXAMPLES, disable_help_subcommand = true)]
pub(super) struct Route {
    #[command(subcommand)]
    action: RouteAction,
}

#[derive(Debug, Subcommand)]
enum RouteAction {
    /// Give a tunnel a public name
    #[command(after_help = ROUTE_EXAMPLES)]
    Dns {
        /// Name or id
        tunnel: String,
        /// The public name
        hostname: String,
        /// Take the name even when it leads elsewhere now
        #[arg(long, short = 'f')]
        overwrite_dns: bool,
    },
    /// Make a tunnel a member of a pool behind a public name
    #[command(after_help = ROUTE_EXAMPLES)]
    Lb {
        /// Name or id
        tunnel: String,
        /// The public name
        hostname: String,
        /// The pool's name
        pool: String,
    },
}

/// Makes a tunnel.
pub(super) async fn create(args: Create, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let secret = match (&args.secret, &args.secret_file) {
        (Some(secret), _) => given_secret(secret)?,
        (None, Some(path)) => given_secret(&Secret::read(path)?)?,
        (None, None) => TunnelSecret::generate(),
    };
    let labels = flags.labels()?;
    let settings = flags.settings()?;
    let session = Session::open(&settings).await?;
    let path = settings.values.credentials_file.as_deref();
    let (tunnel, path) = make(&session, &args.name, secret, &labels, path).await?;
    screen.event(&json!({
        "event": "tunnel", "id": tunnel.id, "name": tunnel.name, "created_at": tunnel.created_at,
        "credentials_file": path,
    }));
    if let Some(form) = args.output {
        return form.print(screen, &tunnel);
    }
    screen.say(format!(
        "Tunnel credentials written to {}. Whoever has this file can serve the tunnel: keep it secret.\n\nCreated \
         tunnel {} with id {}",
        path.display(),
        tunnel.name,
        tunnel.id
    ));
    Ok(())
}

/// Makes a tunnel and writes its credentials file; without a path to `<uuid>.json` where `run` looks for it.
pub(super) async fn make(
    session: &Session,
    name: &str,
    secret: TunnelSecret,
    labels: &Labels,
    path: Option<&Path>,
) -> anyhow::Result<(Tunnel, PathBuf)> {
    if let Some(path) = path.filter(|path| path.exists()) {
        return Err(Problem::usage(
            format!("{} exists already", path.display()),
            "choose another credentials file, or move this one away; it may be the only copy of a tunnel's secret",
        )
        .into());
    }
    let tunnel = session.api.create(&session.account, name, &secret.to_base64(), labels).await?;
    let credentials = Credentials { account_tag: session.account.clone(), tunnel: tunnel.id, secret, endpoint: None };
    let path = path.map_or_else(|| session.directory.join(format!("{}.json", tunnel.id)), Path::to_owned);
    if let Err(error) = write_private(&path, credentials.to_json().as_bytes()) {
        // Without its secret the tunnel is of no use, and its name would be taken.
        if let Err(left) = session.api.delete(&session.account, tunnel.id, false).await {
            tracing::warn!(tunnel = %tunnel.id, error = %left, "the new tunnel could not be taken back");
        }
        return Err(error);
    }
    Ok((tunnel, path))
}

fn given_secret(text: &Secret) -> anyhow::Result<TunnelSecret> {
    let secret =
        TunnelSecret::from_base64(text.reveal()).ok().filter(|secret| secret.as_bytes().len() >= SHORTEST_SECRET);
    secret.ok_or_else(|| {
        Problem::usage("the secret is not base64 of at least 32 bytes", "make one: `openssl rand -base64 32`").into()
    })
}

/// Lists tunnels.
pub(super) async fn list(args: List, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let session = Session::open(&flags.settings()?).await?;
    let mut query = vec![];
    if !args.show_deleted {
        query.push("is_deleted=false".to_owned());
    }
    for (key, value) in [
        ("name", args.name.clone()),
        ("name_prefix", args.name_prefix.clone()),
        ("exclude_prefix", args.exclude_name_prefix.clone()),
        ("existed_at", args.when.map(|when| when.to_string())),
        ("uuid", args.id.map(|id| id.to_string())),
    ] {
        query.extend(value.map(|value| format!("{key}={}", encode(&value))));
    }
    let mut tunnels = session.api.tunnels(&session.account, &query.join("&")).await?;
    sort(&mut tunnels, &args.sort_by);
    if args.invert_sort {
        tunnels.reverse();
    }
    for tunnel in &tunnels {
        screen.event(&event("tunnel", tunnel)?);
    }
    if let Some(form) = args.output {
        return form.print(screen, &tunnels);
    }
    if tunnels.is_empty() {
        screen.say("No tunnels. `snicket tunnel create NAME` makes one.");
        return Ok(());
    }
    let mut table = Table::new(&["ID", "NAME", "CREATED", "CONNECTIONS"]);
    for tunnel in &tunnels {
        let connections = places(
            tunnel.connections.iter().filter(|conn| args.show_recently_disconnected || !conn.is_pending_reconnect),
        );
        table.row([tunnel.id.to_string(), tunnel.name.clone(), time(tunnel.created_at.as_deref()), connections]);
    }
    screen.say(table.to_string());
    Ok(())
}

fn sort(tunnels: &mut [Tunnel], key: &str) {
    match key {
        "id" => tunnels.sort_by_key(|tunnel| tunnel.id),
        "createdAt" => tunnels.sort_by(|a, b| a.created_at.cmp(&b.created_at)),
        "deletedAt" => tunnels.sort_by(|a, b| a.deleted_at.cmp(&b.deleted_at)),
        "numConnections" => tunnels.sort_by_key(|tunnel| tunnel.connections.len()),
        _ => tunnels.sort_by(|a, b| a.name.cmp(&b.name)),
    }
}

/// Shows a tunnel and its connectors.
pub(super) async fn info(args: Info, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let session = Session::open(&flags.settings()?).await?;
    let tunnel = session.api.find(&session.account, &args.tunnel).await?;
    let connectors = session.api.connectors(&session.account, tunnel.id).await?;
    let whole = json!({ "id": tunnel.id, "name": tunnel.name, "createdAt": tunnel.created_at, "conns": connectors });
    screen.event(&event("tunnel", &whole)?);
    if let Some(form) = args.output {
        return form.print(screen, &whole);
    }
    screen.say(format!(
        "NAME:     {}\nID:       {}\nCREATED:  {}\n",
        tunnel.name,
        tunnel.id,
        time(tunnel.created_at.as_deref())
    ));
    if connectors.is_empty() {
        screen.say(format!("No agent is connected. `snicket tunnel run {}` connects one.", tunnel.name));
        return Ok(());
    }
    screen.say(connector_table(&connectors).to_string());
    Ok(())
}

fn connector_table(connectors: &[Connector]) -> Table {
    let mut table = Table::new(&["CONNECTOR ID", "CREATED", "ARCHITECTURE", "VERSION", "ORIGIN IP", "EDGE"]);
    for connector in connectors {
        let address = connector.conns.iter().find_map(|conn| conn.origin_ip.clone());
        table.row([
            connector.id.to_string(),
            time(connector.run_at.as_deref()),
            connector.arch.clone(),
            connector.version.clone(),
            address.unwrap_or_default(),
            places(&connector.conns),
        ]);
    }
    table
}

/// Deletes tunnels.
pub(super) async fn delete(args: Delete, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let session = Session::open(&flags.settings()?).await?;
    for name in &args.tunnels {
        let tunnel = session.api.find(&session.account, name).await?;
        session.api.delete(&session.account, tunnel.id, args.force).await?;
        let file = session.directory.join(format!("{}.json", tunnel.id));
        // The secret in it opens nothing any more.
        let removed = std::fs::remove_file(&file).is_ok();
        screen.event(
            &json!({ "event": "deleted", "id": tunnel.id, "name": tunnel.name, "credentials_removed": removed }),
        );
        screen.say(format!("Deleted tunnel {} ({})", tunnel.name, tunnel.id));
    }
    Ok(())
}

/// Drops connections.
pub(super) async fn cleanup(args: Cleanup, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let session = Session::open(&flags.settings()?).await?;
    for name in &args.tunnels {
        let tunnel = session.api.find(&session.account, name).await?;
        session.api.cleanup(&session.account, tunnel.id, args.connector_id).await?;
        screen.event(&json!({ "event": "cleaned", "id": tunnel.id, "name": tunnel.name }));
        screen.say(format!("Cleaned up connections of tunnel {} ({})", tunnel.name, tunnel.id));
    }
    Ok(())
}

/// Prints a tunnel's token, or writes the credentials file that it stands for.
pub(super) async fn token(args: Token, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let settings = flags.settings()?;
    let session = Session::open(&settings).await?;
    let tunnel = session.api.find(&session.account, &args.tunnel).await?;
    let token = session.api.token(&session.account, tunnel.id).await?;
    let Some(path) = settings.values.credentials_file else {
        screen.event(&json!({ "event": "token", "id": tunnel.id, "token": token.reveal() }));
        screen.say(token.reveal());
        return Ok(());
    };
    let credentials = Credentials::from_token(token.reveal()).map_err(|error| {
        anyhow::Error::new(error).context(Problem::new("the edge's token is not readable", "update this program"))
    })?;
    write_private(&path, credentials.to_json().as_bytes())?;
    screen.event(&json!({ "event": "token", "id": tunnel.id, "credentials_file": path }));
    screen.say(format!("Wrote the credentials of tunnel {} to {}", tunnel.name, path.display()));
    Ok(())
}

/// Gives a tunnel a public name.
pub(super) async fn route(args: Route, flags: &Flags, screen: Screen) -> anyhow::Result<()> {
    let session = Session::open(&flags.settings()?).await?;
    let (tunnel, hostname, overwrite_dns) = match args.action {
        RouteAction::Dns { tunnel, hostname, overwrite_dns } => (tunnel, hostname, overwrite_dns),
        RouteAction::Lb { tunnel, hostname, pool } => {
            let labels = flags.labels()?;
            let tunnel = session.api.find(&session.account, &tunnel).await?;
            if !labels.is_empty() {
                // Before anybody is led there.
                session.api.label(&session.account, tunnel.id, &labels).await?;
            }
            let zone = zone_of(&session, &hostname).await?;
            let routed = session.api.route_lb(&zone, tunnel.id, &hostname, &pool).await?;
            let Balanced { load_balancer, pool: of_pool, name } = routed;
            screen.event(&json!({
                "event": "route", "hostname": name, "tunnel": tunnel.id, "pool": pool, "load_balancer": load_balancer,
                "change": of_pool,
            }));
            screen.say(format!("{name} leads to the pool {pool}, with tunnel {} ({}) in it", tunnel.name, tunnel.id));
            return Ok(());
        }
    };
    let tunnel = session.api.find(&session.account, &tunnel).await?;
    let (change, name) = route_to(&session, &tunnel, &hostname, overwrite_dns).await?;
    screen.event(&json!({ "event": "route", "hostname": name, "tunnel": tunnel.id, "change": change }));
    screen.say(match change.as_str() {
        "new" => format!("{name} now leads to tunnel {} ({})", tunnel.name, tunnel.id),
        "updated" => format!("{name} led elsewhere and now leads to tunnel {} ({})", tunnel.name, tunnel.id),
        _ => format!("{name} leads to tunnel {} ({}) already", tunnel.name, tunnel.id),
    });
    Ok(())
}

/// What changed (`new`, `updated`, `unchanged`), and the name as the edge writes it.
pub(super) async fn route_to(
    session: &Session,
    tunnel: &Tunnel,
    hostname: &str,
    overwrite: bool,
) -> anyhow::Result<(String, String)> {
    let zone = zone_of(session, hostname).await?;
    let routed = session.api.route_dns(&zone, tunnel.id, hostname, overwrite).await?;
    let name = if routed.name.is_empty() { hostname.to_owned() } else { routed.name };
    Ok((routed.cname, name))
}

/// The zone that the right to manage is for, or else the one in which the name lies.
pub(super) async fn zone_of(session: &Session, hostname: &str) -> anyhow::Result<String> {
    match &session.zone {
        Some(zone) => Ok(zone.clone()),
        None => session.api.zone_of(hostname).await?.ok_or_else(|| {
            let problem = Problem::new(
                format!("{hostname} lies in no domain of the edge at {}", session.api.origin()),
                "use a name under the edge's domain (`snicket up --domain`), or add the zone by the API",
            );
            problem.into()
        }),
    }
}

/// `2xams1, 1xlon1`, as the reference shows places.
fn places<'a>(connections: impl IntoIterator<Item = &'a crate::v4::Conn>) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for connection in connections {
        *counts.entry(&connection.colo_name).or_default() += 1;
    }
    counts.into_iter().map(|(place, count)| format!("{count}x{place}")).collect::<Vec<_>>().join(", ")
}

/// Without the fraction of a second, which nobody reads.
fn time(text: Option<&str>) -> String {
    let Some(text) = text else { return "-".to_owned() };
    text.parse::<jiff::Timestamp>()
        .map_or_else(|_| text.to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_given_by_hand_are_long_enough() {
        assert!(given_secret(&Secret::new("AAAA")).is_err());
        assert!(given_secret(&Secret::new("not base64!")).is_err());
        let good = TunnelSecret::generate().to_base64();
        assert_eq!(given_secret(&Secret::new(&good)).unwrap().to_base64(), good);
    }

    #[test]
    fn places_are_counted() {
        let conn = |place: &str| crate::v4::Conn {
            colo_name: place.to_owned(),
            id: None,
            is_pending_reconnect: false,
            origin_ip: None,
            opened_at: None,
        };
        assert_eq!(places(&[conn("lab02"), conn("lab01"), conn("lab02")]), "1xlab01, 2xlab02");
        assert_eq!(places(&[]), "");
    }
}

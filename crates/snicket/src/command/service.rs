//! `snicket service`: an agent or an edge that systemd keeps running.

mod machine;
mod steps;
mod unit;
mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use crate::cli::Command;
use crate::problem::Problem;
use crate::screen::{Paint, Screen};
use crate::secret::{Secret, read_stdin};
use crate::table::Table;
use machine::Host;
use steps::{Foreign, Outcome};
use unit::{Credential, Role, Unit};
use words::{Source, Words};

/// The variable that a token may come in, as for `tunnel run`.
const TOKEN_VARIABLE: &str = "TUNNEL_TOKEN";

/// The flag that takes a token's file.
const TOKEN_FLAG: &str = "token-file";

/// What a service hides from its program, so that nothing that it needs may lie there.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

const EXAMPLES: &str = "\
Examples:
  sudo snicket service install up --domain tunnel.example.com --https 443 --http 80
  sudo snicket service install http 3000 --edge tunnel.example.com --ca ca.pem --token-file token
  sudo snicket service install tunnel --edge HOST:7844 --cacert ca.pem run --token-file - < web.token
  snicket service install --print up --domain tunnel.example.com
  snicket service status
  sudo snicket service uninstall

What the service may and may not do, and where its files are: docs/service.md";

/// Arguments of `service`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have systemd run a command of snicket, now and whenever the machine starts
    Install(Install),
    /// Stop a service and remove it; what it has stored stays
    Uninstall(Uninstall),
    /// Say which services are installed and whether they run
    Status(Status),
}

const INSTALL_EXAMPLES: &str = "\
Examples:
  sudo snicket service install up --domain tunnel.example.com --https 443 --http 80
  sudo snicket service install --name snicket-web http 3000 --edge tunnel.example.com --token-file token
  sudo snicket service install tunnel --config /etc/snicket/agent.yml run
  TUNNEL_TOKEN=… snicket service install tunnel --edge HOST:7844 run

Without a command: tunnel run. Files that the command names are handed over by systemd, so only root needs to be able
to read them. The same again changes nothing; other words replace the service.";

#[derive(Debug, clap::Args)]
#[command(after_help = INSTALL_EXAMPLES)]
struct Install {
    /// Show the unit, write nothing
    #[arg(long)]
    print: bool,
    /// Name of the unit [default: snicket-edge or snicket-agent]
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    name: Option<String>,
    /// Run as this user [default: one that systemd makes for it]
    #[arg(long, value_name = "USER", value_parser = user_name)]
    user: Option<String>,
    /// The program to start [default: this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Below this directory instead of on the running machine
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
    /// What to run: up, http or tunnel, with its flags
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  sudo snicket service uninstall                     the only one there is
  sudo snicket service uninstall --name snicket-edge";

#[derive(Debug, clap::Args)]
#[command(after_help = UNINSTALL_EXAMPLES)]
struct Uninstall {
    /// Name of the unit [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    name: Option<String>,
    /// Below this directory instead of on the running machine
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  snicket service status
  snicket service status --name snicket-edge --json

Exit code 0: all run. 1: one does not, or there is none.";

#[derive(Debug, clap::Args)]
#[command(after_help = STATUS_EXAMPLES)]
struct Status {
    /// Name of the unit [default: all]
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    name: Option<String>,
    /// Below this directory instead of on the running machine
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

/// What a role knows of itself once its configuration file is read.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The file.
    pub(crate) config: Option<PathBuf>,
    /// Files that it names, each with the flag that would name it as well.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
    /// Whether it says where the edge is.
    pub(crate) knows_edge: bool,
    /// Whether it says which tunnel to serve, credentials included.
    pub(crate) knows_tunnel: bool,
    /// Ports that it listens on.
    pub(crate) ports: Vec<u16>,
    /// How long requests may go on after a signal.
    pub(crate) grace: Option<Duration>,
}

/// Does what was asked.
pub(crate) fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    match args.action {
        Action::Install(args) => install(args, screen),
        Action::Uninstall(args) => uninstall(&args, screen),
        Action::Status(args) => status(&args, screen),
    }
}

fn install(args: Install, screen: Screen) -> anyhow::Result<()> {
    let host = Host::new(args.root);
    let directory = std::env::current_dir().context("the current directory cannot be told")?;
    let run = ["tunnel".to_owned(), "run".to_owned()];
    let mut words = Words::read(if args.command.is_empty() { &run } else { &args.command }, &directory)?;
    if !args.print {
        host.check()?;
    }
    let facts = facts(&words)?;
    complete(&mut words, facts)?;
    check_files(&words, args.user.is_some())?;
    let program = match args.program {
        Some(program) => directory.join(program),
        None => own_program(host.is_image())?,
    };
    let name = args.name.unwrap_or_else(|| words.role.unit_name().to_owned());
    let (unit, stored) = unit(name, program, args.user, words);
    if args.print {
        print(&unit, screen);
        return Ok(());
    }
    let secrets =
        stored.into_iter().map(|(path, place)| Ok((path, place.read()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let found = host.read(&unit.path())?;
    let (outcome, steps) =
        steps::install(&unit.name, unit.to_string(), secrets, found.as_deref(), host.machine()).map_err(foreign)?;
    host.take(&steps)?;
    tell(&unit, outcome, screen);
    Ok(())
}

/// What the role says of itself.
fn facts(words: &Words) -> anyhow::Result<Facts> {
    match &words.command {
        Command::Up(args) => super::up::service_facts((**args).clone()),
        Command::Tunnel(args) => super::tunnel::service_facts(args),
        _ => Ok(Facts { knows_tunnel: true, ..Facts::default() }),
    }
}

/// What the configuration file names and what the environment holds, as flags; refuses what would fail at each start.
fn complete(words: &mut Words, facts: Facts) -> anyhow::Result<()> {
    if words.config.is_none()
        && let Some(path) = facts.config
    {
        words.words.extend(["--config".into(), unit::Word::Plain(path.display().to_string())]);
        words.config = Some(path);
    }
    for (flag, path) in facts.files {
        if !words.credentials.iter().any(|(name, _)| name == flag) {
            words.hand_over(flag, Source::File(path));
        }
    }
    words.low_ports |= facts.ports.iter().any(|port| words::is_low_port(&port.to_string()));
    words.grace = words.grace.or(facts.grace);
    if !words.knows_edge && !facts.knows_edge {
        return Err(Problem::usage(
            "the service would not know its edge",
            "name it with --edge: HOST for `http`, HOST:7844 for `tunnel`; on this machine 127.0.0.1:7845 and \
             127.0.0.1:7844",
        )
        .into());
    }
    let has_token = words.credentials.iter().any(|(name, _)| name == TOKEN_FLAG);
    if words.role == Role::Agent && !facts.knows_tunnel && !has_token {
        if std::env::var_os(TOKEN_VARIABLE).is_none_or(|token| token.is_empty()) {
            return Err(Problem::usage(
                "the service would not know its tunnel",
                "give the token with --token-file FILE (`-` is standard input) or in TUNNEL_TOKEN; \
                 `snicket tunnel token NAME` prints it",
            )
            .into());
        }
        words.hand_over(TOKEN_FLAG, Source::Variable(TOKEN_VARIABLE));
    }
    Ok(())
}

/// Refuses what the service could not read, with what to do about it.
fn check_files(words: &Words, own_user: bool) -> anyhow::Result<()> {
    for (flag, source) in &words.credentials {
        if let Source::File(path) = source
            && !path.is_file()
        {
            let what = format!("--{flag} {} is no file that can be read", path.display());
            return Err(Problem::usage(what, "check the path; a relative one counts from here").into());
        }
    }
    if words.credentials.iter().filter(|(_, source)| *source == Source::Input).count() > 1 {
        let advice = "give one of them in a file";
        return Err(Problem::usage("standard input cannot hold two secrets", advice).into());
    }
    let Some(config) = &words.config else { return Ok(()) };
    let advice = format!(
        "move it to where the service can read it: install -D -m 644 {} /etc/snicket/{}",
        config.display(),
        config.file_name().unwrap_or_default().display()
    );
    if is_hidden(config) {
        return Err(Problem::usage(format!("a service does not see {}", config.display()), advice).into());
    }
    if !own_user && !machine::is_readable_by_all(config) {
        return Err(Problem::usage(format!("a service cannot read {}", config.display()), advice).into());
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    HIDDEN.iter().any(|hidden| path.starts_with(hidden))
}

/// This program, if a service can start it where it lies.
fn own_program(in_image: bool) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("this program does not know where it lies")?;
    if is_hidden(&program) && !in_image {
        return Err(Problem::usage(
            format!("a service does not see {}", program.display()),
            format!("install -m 755 {} /usr/local/bin/snicket, then call that one", program.display()),
        )
        .into());
    }
    Ok(program)
}

/// The unit, and the secrets that have to be stored for it.
fn unit(name: String, program: PathBuf, user: Option<String>, words: Words) -> (Unit, Vec<(PathBuf, Source)>) {
    let mut stored = Vec::new();
    let mut credentials = Vec::new();
    for (credential, source) in words.credentials {
        let path = match source {
            Source::File(path) => path,
            Source::Input | Source::Variable(_) => {
                let path = steps::secret_path(&name, &credential);
                stored.push((path.clone(), source));
                path
            }
        };
        credentials.push(Credential { name: credential, path });
    }
    let grace = words.grace.unwrap_or(super::up::GRACE_PERIOD);
    let low_ports = words.low_ports;
    (Unit { name, role: words.role, program, words: words.words, credentials, low_ports, user, grace }, stored)
}

impl Source {
    fn read(&self) -> anyhow::Result<String> {
        let secret = match self {
            Self::File(path) => Secret::read(path)?,
            Self::Input => Secret::new(&read_stdin().context("standard input cannot be read")?),
            Self::Variable(name) => Secret::new(&std::env::var(name).unwrap_or_default()),
        };
        if secret.reveal().is_empty() {
            return Err(Problem::usage("the secret is empty", "give it on standard input or in a file").into());
        }
        Ok(format!("{}\n", secret.reveal()))
    }
}

fn print(unit: &Unit, screen: Screen) {
    let (path, text) = (unit.path(), unit.to_string());
    screen.event(&json!({ "event": "unit", "name": unit.name, "path": path, "text": text }));
    screen.say(text.trim_end());
}

fn tell(unit: &Unit, outcome: Outcome, screen: Screen) {
    let (name, path) = (&unit.name, unit.path());
    screen.event(&json!({ "event": "service", "name": name, "path": path, "outcome": outcome.word() }));
    let word = match outcome {
        Outcome::Installed => "Installed",
        Outcome::Replaced => "Replaced",
        Outcome::Unchanged => "Nothing to change in",
    };
    screen.say(format!("{word} {}\n", screen.paint(Paint::Bold, &format!("{name}.service"))));
    screen.say(format!("  unit     {}", path.display()));
    screen.say(format!("  data     /var/lib/{name}"));
    screen.say(format!("  log      journalctl -u {name}"));
    screen.say(format!("  state    snicket service status\n  remove   snicket service uninstall --name {name}"));
}

fn uninstall(args: &Uninstall, screen: Screen) -> anyhow::Result<()> {
    let host = Host::new(args.root.clone());
    host.check()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => only(&host.ours()?)?,
    };
    let found = host.read(&unit::path(&name))?;
    let Some(steps) = steps::uninstall(&name, found.as_deref(), host.machine()).map_err(foreign)? else {
        screen.event(&json!({ "event": "service", "name": name, "outcome": "absent" }));
        screen.say(format!("There is no service {name}."));
        return Ok(());
    };
    host.take(&steps)?;
    screen.event(&json!({ "event": "service", "name": name, "outcome": "removed" }));
    screen.say(format!("Removed {name}.service. What it has stored is still in /var/lib/private/{name}."));
    Ok(())
}

fn only(names: &[String]) -> anyhow::Result<String> {
    match names {
        [name] => Ok(name.clone()),
        [] => {
            Err(Problem::new("no service of snicket is installed", "`snicket service install --help` shows how").into())
        }
        several => {
            Err(Problem::usage(format!("there are several: {}", several.join(", ")), "choose one with --name").into())
        }
    }
}

fn foreign(foreign: Foreign) -> anyhow::Error {
    anyhow::Error::new(foreign)
        .context(Problem::new("a unit with this name is there", "choose another one with --name"))
}

fn status(args: &Status, screen: Screen) -> anyhow::Result<()> {
    let host = Host::new(args.root.clone());
    let names = match &args.name {
        Some(name) if host.read(&unit::path(name))?.is_some() => vec![name.clone()],
        Some(_) => Vec::new(),
        None => host.ours()?,
    };
    if names.is_empty() {
        only(&names)?;
    }
    let mut table = Table::new(&["SERVICE", "STATE", "AT START", "PROCESS", "RESTARTS"]);
    let mut all_run = true;
    for name in names {
        let state = host.state(&name)?;
        all_run &= state.runs();
        screen.event(&json!({
            "event": "service", "name": name, "path": unit::path(&name), "state": state.active, "enabled": state.enabled,
            "pid": state.pid, "restarts": state.restarts
        }));
        let enabled = if state.enabled { "starts" } else { "does not" };
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        table.row([name, state.active, enabled.to_owned(), number(state.pid), number(state.restarts)]);
    }
    screen.say(table.to_string());
    if all_run {
        return Ok(());
    }
    Err(Problem::new("not every service runs", "`journalctl -u NAME` says why").into())
}

/// A unit's name is a file's name and stands in other settings, so that it is kept plain.
fn unit_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix(".service").unwrap_or(text);
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('-') || !name.chars().all(plain) {
        return Err("use letters, digits, - and _".to_owned());
    }
    Ok(name.to_owned())
}

/// systemd cuts names at 255 bytes, and makes users of at most 31 from those of services.
const LONGEST_NAME: usize = 31;

/// What `useradd` takes.
fn user_name(text: &str) -> Result<String, String> {
    unit_name(text).map_err(|_| format!("{text:?} is no name of a user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_plain() {
        assert_eq!(unit_name("snicket-web.service").as_deref(), Ok("snicket-web"));
        for wrong in ["", "a b", "../x", "a\nb", "-x", "a@b", &"x".repeat(32)] {
            assert!(unit_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_only_service_needs_no_name() {
        assert_eq!(only(&["a".to_owned()]).unwrap(), "a");
        assert!(only(&["a".to_owned(), "b".to_owned()]).unwrap_err().to_string().contains("several: a, b"));
        assert!(only(&[]).is_err());
    }
}

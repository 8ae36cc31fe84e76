//! The command that a service is to run: what may stand in it, and what of it becomes a credential. Reads no file.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, FromArgMatches as _};

use super::unit::{Role, Word};
use crate::cli::Cli;
use crate::problem::Problem;

/// Values that must not be seen in a unit, which everybody may read.
const SECRETS: [&str; 3] = ["token", "credentials-contents", "join-key"];

/// What systemd does itself.
const OUTPUTS: [&str; 2] = ["logfile", "pidfile"];

/// The configuration file stays where it is, since an agent reads it again when it changes.
pub(super) const CONFIG: &str = "config";

/// The first port that needs no privilege.
const FIRST_FREE_PORT: u16 = 1024;

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// This file, absolute.
    File(PathBuf),
    /// Standard input.
    Input,
    /// This variable.
    Variable(&'static str),
}

/// A command line, understood.
#[derive(Debug)]
pub(super) struct Words {
    /// Which end it is.
    pub(super) role: Role,
    /// What the unit starts.
    pub(super) words: Vec<Word>,
    /// What has to be handed over, by name.
    pub(super) credentials: Vec<(String, Source)>,
    /// The configuration file that it names.
    pub(super) config: Option<PathBuf>,
    /// Whether it says where the edge is; for an edge, true.
    pub(super) knows_edge: bool,
    /// Whether a port below 1024 is asked for.
    pub(super) low_ports: bool,
    /// How long requests may go on after a signal, if it says so.
    pub(super) grace: Option<Duration>,
    /// The same command, to ask it for more.
    pub(super) command: crate::cli::Command,
}

impl Words {
    /// Understands the words. Relative paths are those of `directory`.
    pub(super) fn read(words: &[String], directory: &Path) -> Result<Self, Problem> {
        if words.iter().any(|word| word.chars().any(char::is_control)) {
            return Err(Problem::usage("a word of the command has a control character", "leave it out"));
        }
        if let [word] = words
            && wire::identity::Credentials::from_token(word).is_ok()
        {
            return Err(Problem::usage(
                "a token on the command line can be read by everybody on this machine",
                "give it on standard input: snicket service install tunnel --edge HOST:7844 --cacert ca.pem run --token-file -",
            ));
        }
        let mut tree = command_line();
        let whole = std::iter::once("snicket").chain(words.iter().map(String::as_str));
        let matches = tree.try_get_matches_from_mut(whole).map_err(|error| refused(&error))?;
        let command = Cli::from_arg_matches(&matches).map_err(|error| refused(&error))?.command;
        let (path, leaf) = leaf(&matches);
        let role = role(&path)?;
        let mut flags: Vec<&Arg> = tree.get_arguments().collect();
        let mut at = &tree;
        for name in &path {
            at = at.find_subcommand(name).expect("the parser went this way");
            flags.extend(at.get_arguments());
        }
        let mut read = Self {
            role,
            words: Vec::new(),
            credentials: Vec::new(),
            config: None,
            knows_edge: role == Role::Edge || leaf.try_contains_id("edge").unwrap_or(false),
            low_ports: role == Role::Edge && ["http", "https", "tunnel", "api"].iter().any(|id| is_low(leaf, id)),
            grace: leaf.try_get_one("grace_period").ok().flatten().copied(),
            command,
        };
        read.rewrite(words, &flags, directory)?;
        if role == Role::Edge {
            read.words.extend(["--data".into(), Word::StateDirectory]);
        }
        Ok(read)
    }

    /// Adds a flag whose value is a file.
    pub(super) fn hand_over(&mut self, flag: &str, source: Source) {
        let taken = |name: &str| self.credentials.iter().any(|(other, _)| other == name);
        let name = if taken(flag) { format!("{flag}-{}", self.credentials.len()) } else { flag.to_owned() };
        self.words.extend([Word::Plain(format!("--{flag}")), Word::Credential(name.clone())]);
        self.credentials.push((name, source));
    }

    fn rewrite(&mut self, words: &[String], flags: &[&Arg], directory: &Path) -> Result<(), Problem> {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, attached) = match word.strip_prefix("--").map(|flag| flag.split_once('=').ok_or(flag)) {
                Some(Ok((name, value))) => (name, Some(value)),
                Some(Err(name)) => (name, None),
                None => ("", None),
            };
            let Some(flag) = flags.iter().find(|flag| is_named(flag, name)) else {
                self.words.push(Word::Plain(word.clone()));
                continue;
            };
            let long = flag.get_long().expect("it was found by its long name");
            let kind = flag.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
            if SECRETS.contains(&long) {
                return Err(Problem::usage(
                    format!("--{long} would stand in the unit, which everybody may read"),
                    "put the secret into a file: --token-file FILE, --credentials-file FILE, --key-file FILE; `-` is standard input",
                ));
            }
            if !matches!(kind, Some("FILE" | "DIR")) {
                self.words.push(Word::Plain(word.clone()));
                continue;
            }
            let value = attached.or_else(|| words.next().map(String::as_str)).expect("the parser saw a value");
            if kind == Some("DIR") {
                return Err(Problem::usage(
                    format!("a service keeps its data in /var/lib, so --{long} has no place here"),
                    format!("leave --{long} out; docs/service.md says how data moves there"),
                ));
            }
            if OUTPUTS.contains(&long) {
                return Err(Problem::usage(
                    format!("a service writes no --{long}; systemd keeps its log and its process id"),
                    format!("leave --{long} out; `journalctl -u UNIT` shows the log"),
                ));
            }
            let file = absolute(directory, value);
            if long == CONFIG {
                self.words.extend([Word::from("--config"), Word::Plain(file.display().to_string())]);
                self.config = Some(file);
            } else if value == "-" {
                self.hand_over(long, Source::Input);
            } else {
                self.hand_over(long, Source::File(file));
            }
        }
        Ok(())
    }
}

/// Our own command line without its variables: those of the shell that installs are not the service's.
fn command_line() -> Command {
    fn without_variables(command: Command) -> Command {
        command.mut_args(|arg| arg.env(None::<&str>)).mut_subcommands(without_variables)
    }
    let mut command = without_variables(<Cli as clap::CommandFactory>::command());
    command.build();
    command
}

fn refused(error: &clap::Error) -> Problem {
    let text = error.render().to_string();
    // What comes after the first empty line is how the command is used by hand.
    let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
    Problem::usage(
        format!("the command of the service is not usable: {first}"),
        "try it first by hand, then put `snicket service install` before it",
    )
}

/// The names of the subcommands down to the last one, and what was given to that.
fn leaf(matches: &ArgMatches) -> (Vec<&str>, &ArgMatches) {
    let (mut path, mut leaf) = (Vec::new(), matches);
    while let Some((name, deeper)) = leaf.subcommand() {
        path.push(name);
        leaf = deeper;
    }
    (path, leaf)
}

fn role(path: &[&str]) -> Result<Role, Problem> {
    match path {
        ["up"] => Ok(Role::Edge),
        ["http" | "tcp" | "udp"] | ["tunnel"] | ["tunnel", "run"] => Ok(Role::Agent),
        _ => Err(Problem::usage(
            format!("`snicket {}` does not run for long, so it is no service", path.join(" ")),
            "write for example `snicket service install up --domain tunnel.example.com` or \
             `snicket service install http 3000 --edge tunnel.example.com`",
        )),
    }
}

fn is_named(flag: &Arg, name: &str) -> bool {
    !name.is_empty()
        && (flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name)))
}

fn is_low(matches: &ArgMatches, id: &str) -> bool {
    let Ok(Some(texts)) = matches.try_get_raw(id) else { return false };
    texts.filter_map(|text| text.to_str()).flat_map(|text| text.split(',')).any(is_low_port)
}

/// Whether an address to listen on has a port that needs a privilege. 0 is any free one.
pub(super) fn is_low_port(address: &str) -> bool {
    let digits = address.rsplit_once(':').map_or(address, |(_, digits)| digits);
    digits.parse::<u16>().is_ok_and(|port| (1..FIRST_FREE_PORT).contains(&port))
}

/// The path without `.` and `..` in it, as far as that can be said without looking.
fn absolute(directory: &Path, path: &str) -> PathBuf {
    let mut found = PathBuf::new();
    for component in directory.join(path).components() {
        match component {
            Component::ParentDir => {
                found.pop();
            }
            Component::CurDir => (),
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => found.push(component),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Words, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Words::read(&words, Path::new("/srv/web")).map_err(|problem| problem.to_string())
    }

    fn start(words: &Words) -> String {
        words.words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn files_become_credentials_and_the_rest_stays() {
        let words = read("tunnel --cacert ../ca.pem --edge h:7844 run --token-file=web.token").unwrap();
        assert_eq!(
            start(&words),
            "tunnel --cacert ${CREDENTIALS_DIRECTORY}/cacert --edge h:7844 run \
             --token-file ${CREDENTIALS_DIRECTORY}/token-file"
        );
        assert_eq!(
            words.credentials,
            [
                ("cacert".to_owned(), Source::File("/srv/ca.pem".into())),
                ("token-file".to_owned(), Source::File("/srv/web/web.token".into())),
            ]
        );
        assert!(words.knows_edge && words.role == Role::Agent);
    }

    #[test]
    fn a_dash_is_standard_input() {
        let words = read("http 3000 --edge h --token-file -").unwrap();
        assert_eq!(words.credentials, [("token-file".to_owned(), Source::Input)]);
    }

    #[test]
    fn the_configuration_file_stays_where_it_is() {
        let words = read("tunnel --config agent.yml run").unwrap();
        assert_eq!(words.config.as_deref(), Some(Path::new("/srv/web/agent.yml")));
        assert!(!words.knows_edge && words.credentials.is_empty());
        assert_eq!(start(&words), "tunnel --config /srv/web/agent.yml run");
    }

    #[test]
    fn an_edge_keeps_its_data_in_the_directory_of_the_service() {
        let words = read("up --domain t.example --grace-period 2m").unwrap();
        assert_eq!(start(&words), "up --domain t.example --grace-period 2m --data ${STATE_DIRECTORY}");
        assert_eq!((words.low_ports, words.grace), (false, Some(Duration::from_secs(120))));
        for line in ["up --https 443", "up --http :80", "up --tunnel [::]:443", "up --tunnel 7844,0.0.0.0:443"] {
            assert!(read(line).unwrap().low_ports, "{line}");
        }
        for line in ["up --https 0", "up --https 8443"] {
            assert!(!read(line).unwrap().low_ports, "{line}");
        }
    }

    #[test]
    fn what_has_no_place_in_a_service_is_refused() {
        for (line, reason) in [
            ("tunnel run --token eyJ", "everybody may read"),
            ("up --join h --join-key snj_x", "everybody may read"),
            ("up --data /srv/edge", "/var/lib"),
            ("up --pidfile /run/x", "pidfile"),
            ("tunnel --logfile x run", "logfile"),
            ("tunnel list", "no service"),
            ("try", "no service"),
            ("doctor", "no service"),
            ("up --domian x", "not usable"),
            ("nonsense", "not usable"),
        ] {
            let refusal = read(line).unwrap_err();
            assert!(refusal.contains(reason), "{line}: {refusal}");
        }
        let newline = Words::read(&["up".to_owned(), "--domain=a\nUser=root".to_owned()], Path::new("/"));
        assert!(newline.unwrap_err().to_string().contains("control character"));
    }

    #[test]
    fn a_token_among_the_words_is_refused() {
        let credentials = wire::identity::Credentials {
            account_tag: "a".into(),
            tunnel: uuid::Uuid::nil(),
            secret: wire::identity::TunnelSecret::generate(),
            endpoint: None,
        };
        let refusal = read(&credentials.to_token()).unwrap_err();
        assert!(refusal.contains("can be read by everybody"), "{refusal}");
    }
}

//! What installing and removing a service changes. Pure: what is there goes in, steps come out.

use std::path::{Path, PathBuf};

use super::unit::{self, MARK};

/// Where secrets lie that came by standard input or a variable.
pub(super) const SECRETS: &str = "/etc/snicket";

/// The target that starts with the machine.
const WANTED_BY: &str = "/etc/systemd/system/multi-user.target.wants";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write a file that everybody may read.
    Write(PathBuf, String),
    /// Write a file that only root may read.
    WriteSecret(PathBuf, String),
    /// Make a symbolic link at the first path that leads to the second one.
    Link(PathBuf, PathBuf),
    /// Remove a file or link, if it is there.
    Remove(PathBuf),
    /// Run `systemctl` with these words.
    Systemctl(Vec<String>),
}

/// Whose machine is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// This one, run by systemd.
    Running,
    /// A directory that will be a machine's root, such as an image.
    Image,
}

/// What an installation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was none.
    Installed,
    /// There was another one of ours.
    Replaced,
    /// It was there, word by word.
    Unchanged,
}

impl Outcome {
    /// For people and programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A unit of that name is there, and it is not ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is there already and was not written by this program", .0.display())]
pub(super) struct Foreign(PathBuf);

/// The file for a secret of the service.
pub(super) fn secret_path(service: &str, credential: &str) -> PathBuf {
    Path::new(SECRETS).join(format!("{service}.{credential}"))
}

/// Puts a service in place. `found` is the text of the unit that is there.
pub(super) fn install(
    name: &str,
    text: String,
    secrets: Vec<(PathBuf, String)>,
    found: Option<&str>,
    machine: Machine,
) -> Result<(Outcome, Vec<Step>), Foreign> {
    let path = unit::path(name);
    let outcome = match found {
        None => Outcome::Installed,
        Some(found) if found == text => Outcome::Unchanged,
        Some(found) if is_ours(found) => Outcome::Replaced,
        Some(_) => return Err(Foreign(path)),
    };
    let new_secret = !secrets.is_empty();
    let mut steps: Vec<Step> = secrets.into_iter().map(|(path, secret)| Step::WriteSecret(path, secret)).collect();
    if outcome != Outcome::Unchanged {
        steps.push(Step::Write(path.clone(), text));
    }
    match machine {
        Machine::Image => steps.push(Step::Link(wanted(name), path)),
        Machine::Running => {
            steps.push(systemctl(&["daemon-reload"], name));
            steps.push(systemctl(&["enable"], name));
            // A service that runs as it should is left alone.
            let restart = outcome == Outcome::Replaced || new_secret;
            steps.push(systemctl(&[if restart { "restart" } else { "start" }], name));
        }
    }
    Ok((outcome, steps))
}

/// Takes a service away; its state directory stays. `None` if there is none.
pub(super) fn uninstall(name: &str, found: Option<&str>, machine: Machine) -> Result<Option<Vec<Step>>, Foreign> {
    let path = unit::path(name);
    let Some(found) = found else { return Ok(None) };
    if !is_ours(found) {
        return Err(Foreign(path));
    }
    let mut steps = match machine {
        Machine::Image => vec![Step::Remove(wanted(name))],
        Machine::Running => vec![systemctl(&["disable", "--now"], name)],
    };
    steps.extend(stored_secrets(name, found).map(Step::Remove));
    steps.push(Step::Remove(path));
    if machine == Machine::Running {
        steps.push(systemctl(&["daemon-reload"], name));
    }
    Ok(Some(steps))
}

fn is_ours(text: &str) -> bool {
    text.lines().next() == Some(MARK)
}

fn wanted(name: &str) -> PathBuf {
    Path::new(WANTED_BY).join(format!("{name}.service"))
}

/// Of the files that a unit hands over, those that were written with it.
fn stored_secrets(name: &str, text: &str) -> impl Iterator<Item = PathBuf> {
    let loaded = text.lines().filter_map(|line| line.strip_prefix("LoadCredential=")?.split_once(':'));
    loaded
        .filter(move |(credential, path)| Path::new(path) == secret_path(name, credential))
        .map(|(_, path)| path.into())
}

fn systemctl(words: &[&str], name: &str) -> Step {
    let unit = format!("{name}.service");
    let takes_unit = words != ["daemon-reload"];
    Step::Systemctl(words.iter().map(|word| (*word).to_owned()).chain(takes_unit.then_some(unit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        format!("{MARK}\n{body}\n")
    }

    fn verbs(steps: &[Step]) -> Vec<&str> {
        let mut verbs = Vec::new();
        for step in steps {
            if let Step::Systemctl(words) = step {
                verbs.extend(words.first().map(String::as_str));
            }
        }
        verbs
    }

    #[test]
    fn a_first_installation_writes_enables_and_starts() {
        let (outcome, steps) = install("web", text("a"), Vec::new(), None, Machine::Running).unwrap();
        assert_eq!(outcome, Outcome::Installed);
        assert_eq!(steps.first(), Some(&Step::Write("/etc/systemd/system/web.service".into(), text("a"))));
        assert_eq!(verbs(&steps), ["daemon-reload", "enable", "start"]);
    }

    #[test]
    fn the_same_again_writes_nothing_and_disturbs_nothing() {
        let (outcome, steps) = install("web", text("a"), Vec::new(), Some(&text("a")), Machine::Running).unwrap();
        assert_eq!(outcome, Outcome::Unchanged);
        assert!(!steps.iter().any(|step| matches!(step, Step::Write(..))), "{steps:?}");
        assert_eq!(verbs(&steps), ["daemon-reload", "enable", "start"]);
    }

    #[test]
    fn a_change_or_a_new_secret_restarts() {
        let (outcome, steps) = install("web", text("b"), Vec::new(), Some(&text("a")), Machine::Running).unwrap();
        assert_eq!((outcome, verbs(&steps)), (Outcome::Replaced, vec!["daemon-reload", "enable", "restart"]));
        let secret = (secret_path("web", "token-file"), "new".to_owned());
        let (_, steps) = install("web", text("a"), vec![secret], Some(&text("a")), Machine::Running).unwrap();
        assert_eq!(verbs(&steps), ["daemon-reload", "enable", "restart"]);
    }

    #[test]
    fn a_unit_of_somebody_else_is_left_alone() {
        let theirs = "[Unit]\nDescription=cloudflared\n";
        assert!(install("web", text("a"), Vec::new(), Some(theirs), Machine::Running).is_err());
        assert!(uninstall("web", Some(theirs), Machine::Running).is_err());
    }

    #[test]
    fn removal_takes_what_installation_wrote_and_no_file_of_the_owner() {
        let body = "LoadCredential=token-file:/etc/snicket/web.token-file\nLoadCredential=ca:/srv/ca.pem";
        let steps = uninstall("web", Some(&text(body)), Machine::Running).unwrap().unwrap();
        let removed: Vec<_> = steps.iter().filter(|step| matches!(step, Step::Remove(_))).collect();
        assert_eq!(
            removed,
            [
                &Step::Remove("/etc/snicket/web.token-file".into()),
                &Step::Remove("/etc/systemd/system/web.service".into())
            ]
        );
        assert_eq!(verbs(&steps), ["disable", "daemon-reload"]);
        assert_eq!(uninstall("web", None, Machine::Running), Ok(None));
    }

    #[test]
    fn an_image_gets_a_link_and_no_command() {
        let (_, steps) = install("web", text("a"), Vec::new(), None, Machine::Image).unwrap();
        assert!(verbs(&steps).is_empty());
        assert!(matches!(steps.last(), Some(Step::Link(..))), "{steps:?}");
    }
}

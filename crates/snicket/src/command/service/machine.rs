//! The machine that services are installed on: files below a root, and `systemctl`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::steps::{Machine, Step};
use super::unit::MARK;
use crate::problem::Problem;
use crate::secret::write_private;

/// There where systemd runs the machine (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// Where units of this machine's administrator lie.
const UNITS: &str = "/etc/systemd/system";

/// A machine, or the directory that will become one.
#[derive(Debug)]
pub(super) struct Host {
    root: Option<PathBuf>,
}

/// What systemd says of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// `active`, `activating`, `failed` …
    pub(super) active: String,
    /// Whether it starts with the machine.
    pub(super) enabled: bool,
    /// Its main process, while there is one.
    pub(super) pid: Option<u64>,
    /// How often it was started anew after a failure.
    pub(super) restarts: Option<u64>,
}

impl Host {
    pub(super) fn new(root: Option<PathBuf>) -> Self {
        Self { root }
    }

    pub(super) fn is_image(&self) -> bool {
        self.root.is_some()
    }

    pub(super) fn machine(&self) -> Machine {
        if self.is_image() { Machine::Image } else { Machine::Running }
    }

    /// Refuses where changing services cannot go well.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.is_image() {
            return Ok(());
        }
        if !is_root() {
            let words: Vec<String> = std::env::args().collect();
            return Err(Problem::new(
                "only root may change services",
                format!("the same with sudo: sudo {}; `install --print` shows the unit without", words.join(" ")),
            )
            .into());
        }
        if !Path::new(BOOTED).is_dir() {
            return Err(Problem::new(
                "this machine is not run by systemd",
                "let its own service manager start `snicket` in the foreground; `install --print` shows a unit for \
                 another machine, docs/container.md is about containers",
            )
            .into());
        }
        Ok(())
    }

    /// A text file of the machine; `None` if there is none.
    pub(super) fn read(&self, path: &Path) -> anyhow::Result<Option<String>> {
        let path = self.place(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| cannot("read", &path)),
        }
    }

    /// The names of all services that this program has installed.
    pub(super) fn ours(&self) -> anyhow::Result<Vec<String>> {
        let directory = self.place(Path::new(UNITS));
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| cannot("read", &directory)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| cannot("read", &directory))?.path();
            let is_unit = path.extension().is_some_and(|extension| extension == "service");
            // What cannot be read, such as a link that leads nowhere, is not ours.
            let text = if is_unit { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
            if text.starts_with(MARK) {
                names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Takes the steps, up to the first that fails.
    pub(super) fn take(&self, steps: &[Step]) -> anyhow::Result<()> {
        steps.iter().try_for_each(|step| self.take_one(step))
    }

    fn take_one(&self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Write(path, text) => {
                let path = self.place(path);
                write(&path, text).with_context(|| cannot("write", &path))
            }
            Step::WriteSecret(path, secret) => {
                let path = self.place(path);
                // The directory also holds configuration files, which services read.
                path.parent().map_or(Ok(()), std::fs::create_dir_all).with_context(|| cannot("write", &path))?;
                write_private(&path, secret.as_bytes())
            }
            Step::Link(path, target) => {
                let path = self.place(path);
                link(&path, target).with_context(|| cannot("write", &path))
            }
            Step::Remove(path) => {
                let path = self.place(path);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        Err(error).with_context(|| cannot("remove", &path))
                    }
                    _ => Ok(()),
                }
            }
            Step::Systemctl(words) => systemctl(words).map(|_| ()),
        }
    }

    /// How the service is; of a directory only what files say.
    pub(super) fn state(&self, name: &str) -> anyhow::Result<State> {
        if !self.is_image() && Path::new(BOOTED).is_dir() {
            let properties = "--property=ActiveState,UnitFileState,MainPID,NRestarts";
            return Ok(State::parse(&systemctl(&["show", properties, &format!("{name}.service")].map(str::to_owned))?));
        }
        let link = self.place(Path::new(UNITS)).join(format!("multi-user.target.wants/{name}.service"));
        Ok(State { active: "inactive".to_owned(), enabled: link.is_symlink(), pid: None, restarts: None })
    }

    fn place(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }
}

impl State {
    fn parse(shown: &str) -> Self {
        let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| value(key).and_then(|text| text.parse().ok());
        Self {
            active: value("ActiveState").unwrap_or("unknown").to_owned(),
            enabled: value("UnitFileState") == Some("enabled"),
            pid: number("MainPID").filter(|pid| *pid != 0),
            restarts: number("NRestarts"),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.active == "active"
    }
}

fn systemctl(words: &[String]) -> anyhow::Result<String> {
    let output = Command::new("systemctl")
        .args(words)
        .output()
        .with_context(|| Problem::new("systemctl cannot be run", "check that it is in PATH"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let advice = match words.last().filter(|word| word.ends_with(".service")) {
        Some(unit) => format!("`journalctl -u {unit}` says why; the unit stays, and the same command tries again"),
        None => "see what systemctl says above".to_owned(),
    };
    Err(anyhow::anyhow!(said).context(Problem::new(format!("systemctl {} failed", words.join(" ")), advice)))
}

fn cannot(verb: &str, path: &Path) -> Problem {
    Problem::new(format!("cannot {verb} {}", path.display()), "check the directory and that its disk is not full")
}

/// Writes a file whole, or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(directory)?;
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })
}

#[cfg(unix)]
fn link(path: &Path, target: &Path) -> std::io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(directory)?;
    match std::fs::read_link(path) {
        Ok(found) if found == target => Ok(()),
        _ => std::os::unix::fs::symlink(target, path),
    }
}

/// Only Unix has systemd.
#[cfg(not(unix))]
fn link(_path: &Path, _target: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Our own process belongs to whoever runs it.
#[cfg(unix)]
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

/// Only Unix has root.
#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Whether every user may read the file.
#[cfg(unix)]
pub(super) fn is_readable_by_all(path: &Path) -> bool {
    let readable = 0o004;
    std::fs::metadata(path)
        .is_ok_and(|file| std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & readable != 0)
}

/// Where the system has no such notion: yes.
#[cfg(not(unix))]
pub(super) fn is_readable_by_all(_path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_systemctl_are_understood() {
        let running = State::parse("ActiveState=active\nUnitFileState=enabled\nMainPID=17\nNRestarts=2\n");
        assert!(running.runs() && running.enabled);
        assert_eq!((running.pid, running.restarts), (Some(17), Some(2)));
        let failed = State::parse("ActiveState=failed\nUnitFileState=disabled\nMainPID=0\nNRestarts=0\n");
        assert!(!failed.runs() && !failed.enabled && failed.pid.is_none());
        assert_eq!(State::parse("").active, "unknown");
    }
}

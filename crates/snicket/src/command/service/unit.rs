//! The text of a systemd unit. Pure: what a service is goes in, `systemd.unit(5)` comes out.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// First line of each unit of ours, so that nobody else's is ever replaced or removed.
pub(super) const MARK: &str =
    "# Written by `snicket service install`, which also replaces it; `snicket service uninstall` removes it.";

/// What a unit needs beyond the time that requests get to end: closing files and sockets.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Between two starts of a service that failed: soon enough for visitors, rare enough for an edge that refuses it.
const RESTART: Duration = Duration::from_secs(5);

/// Without a sign of life for so long the process hangs, and systemd starts it anew. A starved machine is slow, not dead.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Each visitor is a descriptor; systemd's own hard limit.
const DESCRIPTORS: u32 = 524_288;

/// Which end of a tunnel a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It dials out.
    Agent,
    /// It listens.
    Edge,
}

impl Role {
    /// The name of its unit unless another one is given.
    pub(super) fn unit_name(self) -> &'static str {
        match self {
            Self::Agent => "snicket-agent",
            Self::Edge => "snicket-edge",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Agent => "Snicket agent",
            Self::Edge => "Snicket edge",
        }
    }
}

/// A word of the command line that the unit starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// As it stands.
    Plain(String),
    /// The path of the credential with this name.
    Credential(String),
    /// The directory that is the service's own.
    StateDirectory,
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(&quoted(text)),
            Self::Credential(name) => write!(f, "${{CREDENTIALS_DIRECTORY}}/{name}"),
            Self::StateDirectory => f.write_str("${STATE_DIRECTORY}"),
        }
    }
}

/// A word as systemd reads it back: quoted where need be, without specifiers (`%`) and variables (`$`).
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = |character: char| character.is_ascii_alphanumeric() || "_./:=@,+-%$".contains(character);
    if !text.is_empty() && text.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

/// A file that only root may read, and that systemd hands to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credential {
    /// Its name for the service.
    pub(super) name: String,
    /// Where it lies; absolute.
    pub(super) path: PathBuf,
}

/// Everything that a unit says of one service rather than of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Without `.service`.
    pub(super) name: String,
    /// Which end of the tunnel.
    pub(super) role: Role,
    /// The program; absolute.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) words: Vec<Word>,
    /// What is handed to it.
    pub(super) credentials: Vec<Credential>,
    /// Whether it listens below port 1024.
    pub(super) low_ports: bool,
    /// A user that exists; without one, systemd makes one for the time the service runs.
    pub(super) user: Option<String>,
    /// How long requests may go on after a signal.
    pub(super) grace: Duration,
}

impl Unit {
    /// Where its file lies.
    pub(super) fn path(&self) -> PathBuf {
        path(&self.name)
    }
}

/// Where the file of the unit with this name lies.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new("/etc/systemd/system").join(format!("{name}.service"))
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MARK}\n[Unit]\nDescription={} ({})", self.role.description(), self.name)?;
        writeln!(f, "Wants=network-online.target\nAfter=network-online.target")?;
        if self.role == Role::Agent {
            writeln!(f, "After={}.service", Role::Edge.unit_name())?;
        }
        // An edge that is away for long is no reason to give up.
        writeln!(f, "StartLimitIntervalSec=0\n\n[Service]\nType=notify\nNotifyAccess=main")?;
        let mut start = quoted(&self.program.display().to_string());
        for word in &self.words {
            write!(start, " {word}")?;
        }
        writeln!(f, "ExecStart={start}")?;
        if self.role == Role::Agent {
            writeln!(f, "ExecReload=/bin/kill -HUP $MAINPID")?;
        }
        writeln!(f, "Restart=on-failure\nRestartSec={}", RESTART.as_secs())?;
        // Status 2 is a wrong command line or configuration, which no further start mends.
        writeln!(f, "RestartPreventExitStatus=2")?;
        writeln!(f, "WatchdogSec={}", WATCHDOG.as_secs())?;
        writeln!(f, "TimeoutStopSec={}\nKillMode=mixed", (self.grace + STOP_MARGIN).as_secs())?;
        writeln!(f, "LimitNOFILE={DESCRIPTORS}\n")?;
        match &self.user {
            Some(user) => writeln!(f, "User={user}")?,
            None => writeln!(f, "DynamicUser=yes")?,
        }
        let name = &self.name;
        writeln!(f, "StateDirectory={name}\nStateDirectoryMode=0700\nUMask=0077")?;
        writeln!(f, "Environment=XDG_STATE_HOME=%S/{name} XDG_DATA_HOME=%S/{name}")?;
        for Credential { name, path } in &self.credentials {
            // A path ends with its line here, so that only specifiers have to be taken out.
            writeln!(f, "LoadCredential={name}:{}", path.display().to_string().replace('%', "%%"))?;
        }
        let capabilities = if self.low_ports { "CAP_NET_BIND_SERVICE" } else { "" };
        writeln!(f, "\nCapabilityBoundingSet={capabilities}\nAmbientCapabilities={capabilities}")?;
        if !self.low_ports {
            // In a user namespace of its own the service could not bind low ports of the machine.
            writeln!(f, "PrivateUsers=yes")?;
        }
        f.write_str(SANDBOX)?;
        writeln!(f, "\n[Install]\nWantedBy=multi-user.target")
    }
}

/// What no service of ours needs. Look-ups of names use netlink, origins may be Unix sockets.
const SANDBOX: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
";

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Unit {
        Unit {
            name: "snicket-agent".into(),
            role: Role::Agent,
            program: "/usr/local/bin/snicket".into(),
            words: ["tunnel", "--edge", "tunnel.example.com:7844", "run", "--token-file"]
                .map(Word::from)
                .into_iter()
                .chain([Word::Credential("token-file".into())])
                .collect(),
            credentials: vec![Credential { name: "token-file".into(), path: "/etc/snicket/web.token".into() }],
            low_ports: false,
            user: None,
            grace: Duration::from_secs(30),
        }
    }

    #[test]
    fn the_units_are_those_that_people_were_shown() {
        assert_eq!(agent().to_string(), include_str!("agent.service"));
        let edge = Unit {
            name: "snicket-edge".into(),
            role: Role::Edge,
            words: ["up", "--domain", "tunnel.example.com", "--https", "443", "--data"]
                .map(Word::from)
                .into_iter()
                .chain([Word::StateDirectory])
                .collect(),
            credentials: Vec::new(),
            low_ports: true,
            ..agent()
        };
        assert_eq!(edge.to_string(), include_str!("edge.service"));
    }

    #[test]
    fn only_low_ports_bring_a_capability() {
        let text = agent().to_string();
        assert!(text.contains("\nCapabilityBoundingSet=\n") && text.contains("\nPrivateUsers=yes\n"), "{text}");
        let text = Unit { low_ports: true, ..agent() }.to_string();
        assert!(text.contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"), "{text}");
        assert!(!text.contains("PrivateUsers"), "{text}");
    }

    #[test]
    fn a_user_of_ones_own_takes_the_place_of_the_dynamic_one() {
        let text = Unit { user: Some("web".into()), ..agent() }.to_string();
        assert!(text.contains("\nUser=web\n") && !text.contains("DynamicUser"), "{text}");
    }

    #[test]
    fn systemd_gets_more_time_than_requests_do() {
        let text = Unit { grace: Duration::from_secs(300), ..agent() }.to_string();
        assert!(text.contains("\nTimeoutStopSec=310\n"), "{text}");
    }

    #[test]
    fn words_come_back_as_they_were() {
        for (text, expected) in [
            ("3000", "3000"),
            ("http://localhost:3000/a", "http://localhost:3000/a"),
            ("X-Note: a b", "\"X-Note: a b\""),
            ("100%", "100%%"),
            ("$HOME", "$$HOME"),
            ("say \"hi\" \\o/", "\"say \\\"hi\\\" \\\\o/\""),
            (";", "\";\""),
            ("", "\"\""),
        ] {
            assert_eq!(Word::from(text).to_string(), expected);
        }
    }
}

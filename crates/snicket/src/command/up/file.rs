//! The configuration file of `up`: the same keys as the flags.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use api::QuickTunnels;
use clap::ValueEnum as _;
use config::Mapping;
use geo::BadPlace;
use policy::Network;

use super::PublicPorts;
use crate::acme::{self, AcmeArgs};
use crate::keep::{RegistryArgs, registry_address};
use crate::logging::{Form, Level};
use crate::ports::Listen;
use crate::problem::Problem;
use crate::whereabouts::{self, GeoArgs};

/// What the file says; `None` where a key is absent.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) domain: Option<String>,
    pub(super) data: Option<PathBuf>,
    pub(super) registry: RegistryArgs,
    pub(super) http: Option<Listen>,
    pub(super) https: Option<Listen>,
    pub(super) tunnel: Vec<Listen>,
    pub(super) api: Option<Listen>,
    pub(super) dns: Option<Listen>,
    pub(super) dns_tls: Option<Listen>,
    pub(super) ports: Option<PublicPorts>,
    pub(super) join: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) acme: AcmeArgs,
    pub(super) quick_tunnels: Option<QuickTunnels>,
    pub(super) location: Option<String>,
    pub(super) geo: GeoArgs,
    pub(super) advertise: Option<IpAddr>,
    pub(super) grace_period: Option<Duration>,
    pub(super) response_timeout: Option<Duration>,
    pub(super) max_connections: Option<NonZeroUsize>,
    pub(super) max_connections_per_address: Option<NonZeroUsize>,
    pub(super) origin_networks: Vec<Network>,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) loglevel: Option<Level>,
    pub(super) logfile: Option<PathBuf>,
    pub(super) output: Option<Form>,
}

impl File {
    /// Reads the file; all its mistakes come at once.
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            Problem::usage(
                format!("cannot read the configuration file {}", path.display()),
                "check the path and who may read it",
            )
        })?;
        Self::parse(&path.display().to_string(), &text).with_context(|| {
            Problem::usage(
                format!("the configuration file {} is not usable", path.display()),
                "correct what is named; the keys are the long flags of `snicket up --help`",
            )
        })
    }

    fn parse(name: &str, text: &str) -> Result<Self, config::Mistakes> {
        config::read(name, text, |file| Self {
            domain: file.optional("domain"),
            data: file.optional("data"),
            registry: RegistryArgs {
                registry: file.parsed("registry", registry_address),
                registry_ca: file.optional("registry-ca"),
                registry_cert: file.optional("registry-cert"),
                registry_key: file.optional("registry-key"),
                secrets_key: file.optional("secrets-key"),
            },
            http: listen(file, "http"),
            https: listen(file, "https"),
            tunnel: several(file, "tunnel"),
            api: listen(file, "api"),
            dns: listen(file, "dns"),
            dns_tls: listen(file, "dns-tls"),
            ports: file.parsed("ports", super::public_ports),
            join: file.optional("join"),
            key_file: file.optional("key-file"),
            cert: file.optional("cert"),
            key: file.optional("key"),
            acme: AcmeArgs {
                acme_email: file.parsed("acme-email", acme::email),
                acme_directory: file.parsed("acme-directory", acme::directory),
                acme_ca: file.optional("acme-ca"),
            },
            quick_tunnels: file.parsed("quick-tunnels", super::quick_tunnels),
            location: file.parsed("location", super::location),
            geo: GeoArgs {
                region: file.parsed("region", whereabouts::region),
                coordinates: file.parsed("coordinates", |text| text.parse().map_err(|bad: BadPlace| bad.to_string())),
                geo: file.optional("geo"),
            },
            advertise: file.parsed("advertise", |text| text.parse().map_err(|_| "write an IP address".to_owned())),
            grace_period: file.optional("grace-period"),
            response_timeout: file.optional("response-timeout"),
            max_connections: file.parsed("max-connections", super::count),
            max_connections_per_address: file.parsed("max-connections-per-address", super::count),
            origin_networks: several(file, "origin-networks"),
            pidfile: file.optional("pidfile"),
            loglevel: file.parsed("loglevel", |text| Level::from_str(text, false)),
            logfile: file.optional("logfile"),
            output: file.parsed("output", |text| Form::from_str(text, false)),
        })
    }
}

fn listen(file: &mut Mapping<'_>, key: &'static str) -> Option<Listen> {
    file.parsed(key, str::parse)
}

fn several<T: FromStr<Err: ToString>>(file: &mut Mapping<'_>, key: &'static str) -> Vec<T> {
    let texts: Vec<String> = file.list(key).unwrap_or_default();
    let mut found = Vec::new();
    for text in texts {
        match text.parse::<T>() {
            Ok(one) => found.push(one),
            Err(reason) => file.refuse(key, reason.to_string()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_the_flags() {
        use clap::Args as _;
        let flags = super::super::Args::augment_args(clap::Command::new("up"));
        // The file does not name itself, and others read it who are not to have that key.
        let only_flags = ["config", "join-key"];
        for flag in flags.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| !only_flags.contains(flag)) {
            let value = match flag {
                "grace-period" | "response-timeout" => "10s",
                "max-connections" | "max-connections-per-address" => "100",
                "loglevel" => "warn",
                "output" => "json",
                "quick-tunnels" => "token",
                "ports" => "20000-20010",
                "advertise" | "origin-networks" => "192.0.2.1",
                "acme-email" => "me@example.com",
                "region" => "WEU",
                "coordinates" => "52.5,13.4",
                "acme-directory" => "https://acme.example/directory",
                "registry" => "etcd://127.0.0.1:2379",
                "http" | "https" | "tunnel" | "api" | "dns" | "dns-tls" => "127.0.0.1:0",
                _ => "x",
            };
            File::parse("edge.yml", &format!("{flag}: {value}\n")).unwrap_or_else(|error| panic!("{flag}: {error}"));
        }
    }

    #[test]
    fn all_mistakes_come_at_once_with_their_lines() {
        let error = File::parse("edge.yml", "domian: x\nhttps: nowhere\ngrace-period: soon\ntunnel: [1, x]\n")
            .unwrap_err()
            .to_string();
        for expected in ["edge.yml:1:", "did you mean \"domain\"", "edge.yml:2:", "edge.yml:3:", "edge.yml:4:"] {
            assert!(error.contains(expected), "{expected} in {error}");
        }
    }
}

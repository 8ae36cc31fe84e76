//! What a machine was given when it joined an edge: kept in its data directory, so that later starts need no flag.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::Handover;
use certs::Authority;
use registry::{EtcdSettings, Hostname, Keys};
use serde::{Deserialize, Serialize};

use crate::keep::{KEY_FILE, REGISTRY_FILE, RegistryArgs, registry_address};
use crate::problem::Problem;
use crate::secret::{read_file, write_private};

/// Says that the machine joined, and what to; beside it lie the secrets.
const FILE: &str = "joined.json";
/// Is written and removed before anything is asked for.
const TRIAL_FILE: &str = "joining";
/// More than all that a machine is given.
const TRIAL_BYTES: usize = 64 << 10;
/// The authority of etcd's certificates.
const ETCD_CA_FILE: &str = "etcd-ca.pem";
/// The nodes' certificate for etcd.
const ETCD_CERTIFICATE_FILE: &str = "etcd-cert.pem";
/// Its key.
pub(crate) const ETCD_KEY_FILE: &str = "etcd-key.pem";

/// What a machine joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Visitors' names lie under it.
    pub(crate) domain: String,
    /// Where the registry is.
    pub(crate) registry: String,
    /// Names of files beside this one.
    registry_ca: Option<PathBuf>,
    registry_cert: Option<PathBuf>,
    registry_key: Option<PathBuf>,
}

impl Joined {
    /// What the machine with this data directory joined, if it did.
    pub(crate) fn load(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join(FILE);
        let text = match read_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => {
                text.with_context(|| Problem::new(format!("cannot read {}", path.display()), "check who may read it"))?
            }
        };
        let joined = serde_json::from_str(&text).with_context(|| {
            let advice = "restore it from a copy, or say with --domain and --registry… what was in it";
            Problem::new(format!("{} is damaged", path.display()), advice)
        })?;
        Ok(Some(joined))
    }

    /// Where the registry is, and how to get there.
    pub(crate) fn registry_args(&self, data: &Path) -> anyhow::Result<RegistryArgs> {
        let beside = |name: &Option<PathBuf>| name.as_ref().map(|name| data.join(name));
        let registry = registry_address(&self.registry).map_err(anyhow::Error::msg)?;
        Ok(RegistryArgs {
            registry: Some(registry),
            registry_ca: beside(&self.registry_ca),
            registry_cert: beside(&self.registry_cert),
            registry_key: beside(&self.registry_key),
            secrets_key: None,
        })
    }

    /// Refuses a data directory that has an edge of its own, whose secrets would be lost, or that cannot be written to: a key
    /// is good once, and must not be spent for what cannot be kept.
    pub(crate) fn check_room(data: &Path) -> anyhow::Result<()> {
        let own = [REGISTRY_FILE, KEY_FILE, Authority::KEY_FILE].map(|name| data.join(name));
        if let Some(found) = own.iter().find(|path| path.exists()) {
            let what = format!("{} is there: this data directory is that of an edge of its own", found.display());
            return Err(Problem::new(what, "name another directory with --data, or move this one away").into());
        }
        let trial = data.join(TRIAL_FILE);
        write_private(&trial, &[0; TRIAL_BYTES])?;
        std::fs::remove_file(&trial).with_context(|| {
            Problem::new(format!("cannot remove {}", trial.display()), "check who may write to its directory")
        })
    }

    /// Keeps what the machine was given. What says that it joined comes last: with half of it nobody starts.
    pub(crate) fn keep(data: &Path, given: &Handover) -> anyhow::Result<Self> {
        check(given).with_context(|| {
            Problem::new(
                "what the node gave is of no use",
                "update this program, or the edge, so that both are of one version",
            )
        })?;
        let write = |name: &str, text: &str| write_private(&data.join(name), text.as_bytes());
        let write_some = |name: &str, text: &Option<String>| -> anyhow::Result<Option<PathBuf>> {
            let Some(text) = text else { return Ok(None) };
            write(name, text)?;
            Ok(Some(name.into()))
        };
        write(KEY_FILE, &given.secrets_key)?;
        write(Authority::KEY_FILE, &given.ca_key)?;
        write(Authority::CERTIFICATE_FILE, &given.ca)?;
        let joined = Self {
            domain: given.domain.clone(),
            registry: given.registry.clone(),
            registry_ca: write_some(ETCD_CA_FILE, &given.registry_ca)?,
            registry_cert: write_some(ETCD_CERTIFICATE_FILE, &given.registry_cert)?,
            registry_key: write_some(ETCD_KEY_FILE, &given.registry_key)?,
        };
        write(FILE, &serde_json::to_string_pretty(&joined).context("names are plain JSON")?)?;
        Ok(joined)
    }
}

fn check(given: &Handover) -> anyhow::Result<()> {
    Hostname::parse(&given.domain).context("the domain")?;
    EtcdSettings::parse(&given.registry).context("the registry's address")?;
    Keys::parse(&given.secrets_key).context("the keys of the registry's secrets")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Handover {
        Handover {
            domain: "example.test".into(),
            registry: "etcd://10.0.0.1:2379/snicket".into(),
            registry_ca: Some("A".into()),
            registry_cert: None,
            registry_key: None,
            secrets_key: Keys::generate(),
            ca: "B".into(),
            ca_key: "C".into(),
        }
    }

    #[test]
    fn what_was_given_is_found_again_and_readable_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("edge");
        assert!(Joined::load(&data).unwrap().is_none());
        Joined::check_room(&data).unwrap();
        Joined::keep(&data, &given()).unwrap();
        let joined = Joined::load(&data).unwrap().expect("it was kept");
        assert_eq!(joined.domain, "example.test");
        let way = joined.registry_args(&data).unwrap();
        assert_eq!(std::fs::read_to_string(way.registry_ca.unwrap()).unwrap(), "A");
        assert_eq!((way.registry_cert, way.registry_key, way.secrets_key), (None, None, None));
        for file in std::fs::read_dir(&data).unwrap() {
            assert!(!crate::secret::is_exposed(&file.unwrap().path()).unwrap());
        }
        assert!(Joined::check_room(&data).is_err(), "it has what makes an edge now");
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_found_out_before() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("edge");
        Joined::check_room(&data).unwrap();
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing is left of the trial");
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let problem = format!("{:#}", Joined::check_room(&file.join("edge")).unwrap_err());
        assert!(problem.contains("cannot write"), "{problem}");
    }

    #[test]
    fn what_is_of_no_use_is_not_kept() {
        for bad in [
            Handover { domain: "not a domain".into(), ..given() },
            Handover { registry: "file:///x".into(), ..given() },
            Handover { secrets_key: "hunter2".into(), ..given() },
        ] {
            let directory = tempfile::tempdir().unwrap();
            let problem = format!("{:#}", Joined::keep(directory.path(), &bad).unwrap_err());
            assert!(!problem.contains("hunter2"), "{problem}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}

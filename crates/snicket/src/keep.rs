//! Where the registry is kept, as flags, variables and the configuration file say it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use registry::{
    Embedded, Engine, EngineError, Etcd, EtcdIdentity, EtcdSettings, EtcdTls, Keys, Mirror, OpenError, Registry,
    Sealed, StandIn,
};

use crate::problem::Problem;
use crate::secret::{read_file, write_private};

/// The registry's file in the data directory.
pub(crate) const REGISTRY_FILE: &str = "registry.redb";

/// The keys of the registry's secrets, in the data directory unless another file is named.
pub(crate) const KEY_FILE: &str = "registry.key";

/// What this node knows of the registry in etcd; beside the other one, which it could take the place of.
const COPY_FILE: &str = "registry-copy.redb";

/// Where the registry is kept.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In the data directory.
    OnDisk,
    /// For this process only.
    InMemory,
    /// In etcd, together with other nodes.
    Etcd(Box<EtcdSettings>),
}

/// Where the registry is kept, and under which keys its secrets are.
#[derive(Debug, Clone)]
pub(crate) struct Keep {
    /// Where.
    pub(crate) place: Place,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The key file; `None`: [`KEY_FILE`] in the data directory.
    pub(crate) secrets_key: Option<PathBuf>,
}

impl Keep {
    /// The registry for a node, and in one sentence what is otherwise than it should be.
    pub(crate) async fn open_registry(&self, now: Timestamp) -> anyhow::Result<(Registry, Option<String>)> {
        let failed = |error| self.unopened(error);
        let (engine, notice): (Arc<dyn Engine>, _) = match &self.place {
            Place::InMemory => {
                let engine = Embedded::in_memory().map_err(failed)?;
                return Ok((Registry::open(engine, now).await.map_err(failed)?, None));
            }
            Place::OnDisk => (Arc::new(Embedded::open(&self.data.join(REGISTRY_FILE)).map_err(failed)?), None),
            Place::Etcd(settings) => {
                let mirror = Mirror::open(settings, &self.data.join(COPY_FILE)).await.map_err(failed)?;
                let notice = mirror.stand_in().map(standing_in);
                (Arc::new(mirror), notice)
            }
        };
        let key_file = KeyFile::read_or_make(self.key_path())?;
        let sealed = Sealed::open(engine, key_file.keys).await;
        // Only where the registry is under another key: after any other failure something may be under this one already.
        let is_foreign = |error: &OpenError| matches!(error, OpenError::Engine(EngineError::Sealed { .. }));
        let sealed = sealed.inspect_err(|error| {
            if is_foreign(error) {
                key_file.made.take_back();
            }
        });
        let sealed = sealed.map_err(failed)?;
        Ok((Registry::open(sealed, now).await.map_err(failed)?, notice))
    }

    /// What keeps it, for a command beside the nodes that reads.
    pub(crate) async fn open_to_read(&self) -> anyhow::Result<Arc<dyn Engine>> {
        let file = self.data.join(REGISTRY_FILE);
        if matches!(self.place, Place::OnDisk) && !file.exists() {
            let what = format!("there is no registry {}", file.display());
            return Err(Problem::new(what, "name the edge's directory with --data, or etcd with --registry").into());
        }
        let path = self.key_path();
        // One from before has no keys, and needs none.
        let keys = if path.exists() { KeyFile::read_or_make(path)?.keys } else { new_keys().1 };
        Ok(Arc::new(Sealed::over(self.engine().await?, keys)))
    }

    /// What keeps it, for a command beside the nodes that writes; it is made if there is nothing.
    pub(crate) async fn open_to_write(&self) -> anyhow::Result<Arc<dyn Engine>> {
        let engine = self.engine().await?;
        let key_file = KeyFile::read_or_make(self.key_path())?;
        let sealed = Sealed::over(engine, key_file.keys);
        // Whatever is there must be under these keys.
        let state = sealed.load().await.inspect_err(|_| key_file.made.take_back());
        state.map_err(|error| self.unopened(error.into()))?;
        Ok(Arc::new(sealed))
    }

    async fn engine(&self) -> anyhow::Result<Arc<dyn Engine>> {
        let failed = |error| self.unopened(error);
        Ok(match &self.place {
            Place::InMemory => Arc::new(Embedded::in_memory().map_err(failed)?),
            Place::OnDisk => Arc::new(Embedded::open(&self.data.join(REGISTRY_FILE)).map_err(failed)?),
            Place::Etcd(settings) => Arc::new(Etcd::open(settings).await.map_err(failed)?),
        })
    }

    /// The file of the keys of the registry's secrets.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.secrets_key.clone().unwrap_or_else(|| self.data.join(KEY_FILE))
    }

    /// That it cannot be opened, and what to do.
    pub(crate) fn unopened(&self, error: OpenError) -> anyhow::Error {
        let what = match &self.place {
            Place::InMemory => "the registry cannot be made".to_owned(),
            Place::OnDisk => format!("the registry {} cannot be opened", self.data.join(REGISTRY_FILE).display()),
            Place::Etcd(_) => "the registry in etcd cannot be opened".to_owned(),
        };
        let advice = match &error {
            OpenError::InUse { .. } => "stop the edge that uses this directory, or name another one with --data",
            OpenError::Schema { .. } => {
                "update this program, or choose another directory (--data) or prefix (--registry)"
            }
            OpenError::HalfImported => "snicket registry import --replace FILE",
            OpenError::Settings(_) => "correct what --registry, --registry-ca, --registry-cert and --registry-key say",
            OpenError::Engine(EngineError::Unavailable(_) | EngineError::Uncertain(_)) => {
                "start etcd, or correct --registry; edges that have run before do without it meanwhile"
            }
            OpenError::Engine(EngineError::Sealed { .. }) => {
                "give this node the key file of the others, or of this registry's edge: registry.key in its data directory, \
                 or --secrets-key"
            }
            OpenError::Engine(EngineError::Refused(_)) => "give this node what etcd asks for",
            OpenError::Entry { .. } | OpenError::Founding(_) => {
                "see the reason above; a copy brings back what is damaged"
            }
            OpenError::File { .. }
            | OpenError::Engine(EngineError::Storage(_) | EngineError::Closed | EngineError::Slow) => {
                "check the disk; a damaged file is restored from a copy, or moved away to start anew without its tunnels"
            }
        };
        anyhow::Error::new(error).context(Problem::new(what, advice))
    }
}

/// Keys, and where they are from.
struct KeyFile {
    keys: Keys,
    made: Made,
}

/// The file, if it was made just now.
struct Made(Option<PathBuf>);

impl KeyFile {
    /// Reads the file, or makes it: before anything is encrypted under what is in it.
    fn read_or_make(path: PathBuf) -> anyhow::Result<Self> {
        let text = match read_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (text, keys) = new_keys();
                write_private(&path, text.as_bytes())?;
                return Ok(Self { keys, made: Made(Some(path)) });
            }
            text => text.with_context(|| {
                Problem::usage(format!("cannot read the key file {}", path.display()), "check who may read it")
            })?,
        };
        let keys = Keys::parse(&text).with_context(|| {
            let what = format!("the key file {} is not usable", path.display());
            Problem::usage(what, "restore it from a copy: without the keys in it the registry's secrets are lost")
        })?;
        Ok(Self { keys, made: Made(None) })
    }
}

impl Made {
    /// What is there is under other keys: ours are of no use, and would only be taken for those.
    fn take_back(&self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn new_keys() -> (String, Keys) {
    let text = Keys::generate();
    let keys = Keys::parse(&text).expect("it was made well-formed");
    (text, keys)
}

fn standing_in(stand_in: &StandIn) -> String {
    let StandIn { saved_at, problem } = stand_in;
    tracing::warn!(%problem, %saved_at, "this node starts without etcd");
    format!("etcd cannot be reached, so this node serves what it knew at {saved_at:.0}, and takes no changes yet")
}

/// Which registry, and how to get there.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Registry shared with other nodes: etcd://HOST:PORT[,HOST:PORT][/PREFIX] [default: a file in --data]
    #[arg(
        long, value_name = "ETCD", value_parser = registry_address, env = "SNICKET_REGISTRY", hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) registry: Option<EtcdSettings>,
    /// The authority of etcd's certificates (PEM); TLS, and this, is for every etcd beyond this machine
    #[arg(long, value_name = "FILE", env = "SNICKET_REGISTRY_CA", hide_env_values = true, hide_short_help = true)]
    pub(crate) registry_ca: Option<PathBuf>,
    /// This node's certificate for etcd (PEM, leaf first)
    #[arg(long, value_name = "FILE", env = "SNICKET_REGISTRY_CERT", hide_env_values = true, hide_short_help = true)]
    pub(crate) registry_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", env = "SNICKET_REGISTRY_KEY", hide_env_values = true, hide_short_help = true)]
    pub(crate) registry_key: Option<PathBuf>,
    /// Keys of the registry's secrets, the same on all its nodes; made if missing [default: registry.key in --data]
    #[arg(long, value_name = "FILE", env = "SNICKET_SECRETS_KEY", hide_env_values = true, hide_short_help = true)]
    pub(crate) secrets_key: Option<PathBuf>,
}

impl RegistryArgs {
    /// These over others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            registry: self.registry.or(other.registry),
            registry_ca: self.registry_ca.or(other.registry_ca),
            registry_cert: self.registry_cert.or(other.registry_cert),
            registry_key: self.registry_key.or(other.registry_key),
            secrets_key: self.secrets_key.or(other.secrets_key),
        }
    }

    /// What is named and has to be read, by flag.
    pub(crate) fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let key = self.secrets_key.clone().map(|path| ("secrets-key", path));
        self.tls_files().into_iter().chain(key).collect()
    }

    fn tls_files(&self) -> Vec<(&'static str, PathBuf)> {
        let files = [
            ("registry-ca", &self.registry_ca),
            ("registry-cert", &self.registry_cert),
            ("registry-key", &self.registry_key),
        ];
        files.into_iter().filter_map(|(flag, path)| Some((flag, path.clone()?))).collect()
    }

    /// The place, with what the files for TLS hold.
    pub(crate) fn keep(&self, data: PathBuf) -> anyhow::Result<Keep> {
        let place = place(self.registry.clone(), &self.tls_files())?;
        Ok(Keep { place, data, secrets_key: self.secrets_key.clone() })
    }
}

/// Reads where the registry is.
pub(crate) fn registry_address(text: &str) -> Result<EtcdSettings, String> {
    EtcdSettings::parse(text).map_err(|error| error.to_string())
}

fn place(registry: Option<EtcdSettings>, files: &[(&'static str, PathBuf)]) -> anyhow::Result<Place> {
    let read = |flag: &str| -> anyhow::Result<Option<Vec<u8>>> {
        let Some((_, path)) = files.iter().find(|(name, _)| *name == flag) else { return Ok(None) };
        let content = std::fs::read(path).with_context(|| {
            let what = format!("cannot read {}, which --{flag} names", path.display());
            Problem::usage(what, "check the path and who may read it")
        })?;
        Ok(Some(content))
    };
    let (ca, certificate, key) = (read("registry-ca")?, read("registry-cert")?, read("registry-key")?);
    let Some(settings) = registry else {
        return match files.first() {
            None => Ok(Place::OnDisk),
            Some((flag, _)) => {
                let what = format!("--{flag} belongs to --registry");
                Err(Problem::usage(what, "say as well where etcd is: --registry etcd://HOST:PORT").into())
            }
        };
    };
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(EtcdIdentity { certificate, key }),
        (None, None) => None,
        _ => {
            let what = "--registry-cert and --registry-key belong together";
            return Err(Problem::usage(what, "give both, or neither").into());
        }
    };
    let settings = if files.is_empty() { settings } else { settings.with_tls(EtcdTls { ca, identity }) };
    Ok(Place::Etcd(Box::new(settings)))
}

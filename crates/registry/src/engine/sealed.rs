//! An engine whose entries that hold secrets are encrypted, whatever engine keeps them.

mod keys;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::future::BoxFuture;

use self::keys::{Closed, Opened};
use super::{Batch, Engine, Feed, FeedError, Guard, Live, Revision, State, Write};
use crate::certificate::CertificateAuthority;
use crate::resource::{Resource as _, Tunnel, TunnelAccess};
use crate::transfer::chunks;
use crate::{AcmeAccount, AcmeCertificate, CommitError, EngineError, Item, Monitor, OpenError, ZoneKey};

pub use keys::{BadKeys, Keys};

/// Kinds whose values hold something that lets in whoever knows it: tunnels' secrets, what passwords are compared
/// with, headers by which monitors and rules may show who they are, the keys of authorities, of zones, and those of public
/// certificates and of the accounts that they are ordered by.
const SECRET_KINDS: [&str; 8] = [
    Tunnel::KIND,
    TunnelAccess::KIND,
    Monitor::KIND,
    Item::KIND,
    CertificateAuthority::KIND,
    AcmeAccount::KIND,
    AcmeCertificate::KIND,
    ZoneKey::KIND,
];
/// Holds nothing: by it a node sees at its start that it has another key than the others, be there secrets or not.
const CHECK: &str = "seal/check";
/// Other writers come first, which only means to look again; this often in a row they do not.
const ATTEMPTS: usize = 32;

/// An engine that encrypts what the kinds of entries with secrets hold (AES-256-GCM), under [`Keys`] that it does not keep.
/// Keys of entries, and all others, are as they are.
pub struct Sealed {
    inner: Arc<dyn Engine>,
    keys: Arc<Keys>,
    /// What was found at the start, for the first to ask.
    found: Mutex<Option<State>>,
    /// Whether it is a node's, which goes on without what it cannot read.
    goes_on: bool,
    /// The first that this node has no key for: others have another one by now, and could not read what it encrypts.
    closed: Arc<OnceLock<EngineError>>,
}

impl Sealed {
    /// Over this engine, as it is.
    pub fn over(inner: Arc<dyn Engine>, keys: Keys) -> Self {
        Self { inner, keys: Arc::new(keys), found: Mutex::default(), goes_on: false, closed: Arc::default() }
    }

    /// The same for a node. What is there and not encrypted, or under another key than the first, is encrypted under that.
    /// What others write later under a key that is not here is gone for this node, and nobody may visit a tunnel whose rules
    /// are so: before, somebody may have been let in who is not to be any more.
    ///
    /// # Errors
    /// The engine fails, or something is encrypted under a key that is not here.
    pub async fn open(inner: Arc<dyn Engine>, keys: Keys) -> Result<Self, OpenError> {
        let sealed = Self::over(inner, keys);
        for _ in 0..ATTEMPTS {
            let state = sealed.inner.load().await?;
            let outdated = sealed.outdated(&state)?;
            let secrets = outdated.iter().filter(|(_, write)| !is_check(&write.key)).count();
            match sealed.renew(outdated).await {
                Ok(0) => return Ok(sealed.with(state)),
                Ok(_) if secrets == 0 => (),
                Ok(_) => tracing::info!(secrets, "entries with secrets were encrypted under the first key"),
                Err(CommitError::Conflict { .. }) => (),
                Err(problem) => {
                    // What is there can be read nevertheless, so the node can work; the next one to start tries again.
                    tracing::warn!(%problem, "secrets are not encrypted under the first key yet");
                    return Ok(sealed.with(state));
                }
            }
        }
        Err(EngineError::Slow.into())
    }

    fn with(self, state: State) -> Self {
        Self { found: Mutex::new(Some(state)), goes_on: true, ..self }
    }

    /// What has to be written so that every secret is under the first key, each with the revision that it replaces.
    fn outdated(&self, state: &State) -> Result<Vec<(Revision, Write)>, EngineError> {
        let mut outdated = Vec::new();
        if !state.entries.iter().any(|entry| entry.key == CHECK) {
            outdated.push((0, Write { key: CHECK.into(), value: Some(self.keys.seal(CHECK, b"{}")) }));
        }
        for entry in state.entries.iter().filter(|entry| is_secret(&entry.key)) {
            let plain =
                match self.keys.open(&entry.key, &entry.value).map_err(|closed| closed_at(&entry.key, &closed))? {
                    Opened::Secret(_, true) => continue,
                    Opened::Secret(value, false) => value,
                    Opened::Plain => entry.value.clone(),
                };
            let value = Some(self.keys.seal(&entry.key, &plain));
            outdated.push((entry.revision, Write { key: entry.key.clone(), value }));
        }
        Ok(outdated)
    }

    async fn renew(&self, outdated: Vec<(Revision, Write)>) -> Result<usize, CommitError> {
        let count = outdated.len();
        for chunk in chunks(outdated, self.inner.most_at_once()) {
            let guard = |(revision, write): &(Revision, Write)| Guard { key: write.key.clone(), revision: *revision };
            let guards = chunk.iter().map(guard).collect();
            self.inner.commit(guards, chunk.into_iter().map(|(_, write)| write).collect()).await?;
        }
        Ok(count)
    }

    fn opened(&self, mut state: State) -> Result<State, EngineError> {
        if !self.goes_on {
            for entry in &mut state.entries {
                let value = read(&self.keys, &entry.key, std::mem::take(&mut entry.value));
                entry.value = value.map_err(|closed| closed_at(&entry.key, &closed))?;
            }
            return Ok(state);
        }
        state.entries.retain_mut(|entry| {
            let value = open(&self.keys, &self.closed, &entry.key, std::mem::take(&mut entry.value));
            let is_there = value.is_some();
            entry.value = value.unwrap_or_default();
            is_there
        });
        Ok(state)
    }
}

/// Whether an entry is no configuration, but tells which key encrypts that.
pub(crate) fn is_check(key: &str) -> bool {
    key == CHECK
}

fn is_secret(key: &str) -> bool {
    is_check(key) || key.split_once('/').is_some_and(|(kind, _)| SECRET_KINDS.contains(&kind))
}

/// What an entry holds; `None`: it cannot be read, and is to be gone.
fn open(keys: &Keys, locked: &OnceLock<EngineError>, key: &str, value: Vec<u8>) -> Option<Vec<u8>> {
    let closed = match read(keys, key, value) {
        Ok(value) => return Some(value),
        Err(closed) => closed,
    };
    tracing::error!(key, problem = %closed, "an entry cannot be read, and is taken for removed");
    if let Closed::Key(_) = closed {
        let problem = format!("{closed}, as others write by now; give this node their key file, and start it anew");
        let _ = locked.set(EngineError::Sealed { key: key.to_owned(), problem });
    }
    nobody(key)
}

fn read(keys: &Keys, key: &str, value: Vec<u8>) -> Result<Vec<u8>, Closed> {
    if !is_secret(key) {
        return Ok(value);
    }
    Ok(match keys.open(key, &value)? {
        Opened::Secret(value, _) => value,
        Opened::Plain => value,
    })
}

fn closed_at(key: &str, closed: &Closed) -> EngineError {
    EngineError::Sealed { key: key.to_owned(), problem: closed.to_string() }
}

impl Engine for Sealed {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(async {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
            let state = match found {
                Some(state) => state,
                None => self.inner.load().await?,
            };
            self.opened(state)
        })
    }

    fn commit(&self, guards: Vec<Guard>, mut writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        for write in writes.iter_mut().filter(|write| is_secret(&write.key)) {
            if let Some(closed) = self.closed.get() {
                return Box::pin(std::future::ready(Err(closed.clone().into())));
            }
            write.value = write.value.take().map(|value| self.keys.seal(&write.key, &value));
        }
        self.inner.commit(guards, writes)
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        let (inner, keys, closed) = (self.inner.follow(after), self.keys.clone(), self.closed.clone());
        Box::new(SealedFeed { inner, keys, closed })
    }

    fn most_at_once(&self) -> Option<usize> {
        self.inner.most_at_once()
    }

    fn live(&self) -> &dyn Live {
        self.inner.live()
    }

    fn locked_out(&self) -> Option<EngineError> {
        self.closed.get().cloned()
    }
}

/// Rules that let nobody visit the tunnel whose rules this entry has; `None`: it has none.
fn nobody(key: &str) -> Option<Vec<u8>> {
    let (kind, tunnel) = key.split_once('/')?;
    // The broadcast address, from which nothing comes (RFC 919 section 7).
    let allow = vec!["255.255.255.255".parse().ok()?];
    let rules = TunnelAccess { tunnel: tunnel.parse().ok()?, rules: policy::Access { allow, ..Default::default() } };
    (kind == TunnelAccess::KIND).then(|| serde_json::to_vec(&rules).ok()).flatten()
}

struct SealedFeed {
    inner: Box<dyn Feed>,
    keys: Arc<Keys>,
    closed: Arc<OnceLock<EngineError>>,
}

impl Feed for SealedFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Batch>, FeedError>> {
        Box::pin(async {
            let mut batches = self.inner.next().await?;
            for write in batches.iter_mut().flat_map(|batch| &mut batch.writes) {
                write.value = write.value.take().and_then(|value| open(&self.keys, &self.closed, &write.key, value));
            }
            Ok(batches)
        })
    }
}

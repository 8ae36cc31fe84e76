//! The engine for several nodes: etcd, version 3.4 or newer.
//!
//! A revision here is a revision of etcd's store, which others may use as well: revisions grow, but not by one each. A
//! guard is a comparison with the revision that wrote the key last. [`layout`] says which keys are used, [`transaction`]
//! what a change is to etcd, [`assembly`] what a watch's events are to us; [`members`] asks one member after the other,
//! with a deadline on everything; [`fault`] understands what they refuse.

mod assembly;
mod fault;
mod feed;
mod layout;
mod members;
mod message;
mod settings;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use prost::Message as _;

use self::assembly::Assembly;
use self::fault::Fault;
use self::feed::EtcdFeed;
use self::layout::Layout;
use self::members::{Members, Repeat};
use self::message::{
    Compare, MOD_REVISION, Operation, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use self::transaction::unsigned;
use super::{Engine, Entry, Feed, Guard, Revision, State, Write};
use crate::{CommitError, EngineError, OpenError};

pub use settings::{BadEtcdSettings, EtcdIdentity, EtcdLogin, EtcdSettings, EtcdTls};

/// Grows when the meaning of the keys or of the values in them changes.
const SCHEMA: u64 = 1;
/// Aimed at for one page of everything. etcd counts all that follows for each page, so few large pages cost it less than
/// many small ones; a page should still pass within a call on a slow line.
const PAGE_BYTES: usize = 2 << 20;
/// The first page, whose entries' sizes nobody knows yet.
const FIRST_PAGE: usize = 1000;
/// However small they are.
const LARGEST_PAGE: usize = 20_000;
/// Everything is read anew when etcd forgets the pinned revision meanwhile; that it does so every time means that it
/// compacts within seconds.
const LOADS: usize = 5;

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// The engine for several nodes: a prefix of an etcd. Cheap to follow from many nodes; each keeps a connection or two.
pub struct Etcd {
    cluster: Arc<Cluster>,
}

/// What the engine and its feeds share.
struct Cluster {
    members: Members,
    layout: Layout,
    /// The cluster's id at the latest answer. It changes when etcd is made anew from a copy, and revisions with it.
    history: AtomicU64,
}

impl Etcd {
    /// Reaches etcd, and makes sure that what is under the prefix is ours to understand.
    ///
    /// # Errors
    /// The settings are of no use, etcd cannot be reached or refuses, or a newer version of this program has been there.
    pub async fn open(settings: &EtcdSettings) -> Result<Self, OpenError> {
        let cluster = Cluster {
            members: Members::new(settings)?,
            layout: Layout::new(&settings.prefix),
            history: AtomicU64::new(0),
        };
        cluster.check_schema().await?;
        Ok(Self { cluster: Arc::new(cluster) })
    }
}

impl Engine for Etcd {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(async {
            for _ in 1..LOADS {
                match self.cluster.load().await {
                    Err(Fault::Compacted) => (),
                    settled => return settled.map_err(unavailable),
                }
            }
            self.cluster.load().await.map_err(unavailable)
        })
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async move {
            let request = transaction::request(&self.cluster.layout, &guards, &writes);
            let answer: Result<TxnResponse, _> = self.cluster.members.call(TXN, &request, Repeat::IfUntaken).await;
            match answer {
                Ok(answer) => transaction::verdict(&guards, !writes.is_empty(), &answer),
                Err(Fault::Unknown(problem)) => Err(EngineError::Uncertain(problem).into()),
                Err(Fault::TooLarge(_)) => Err(CommitError::TooLarge {
                    operations: request.success.len().max(request.failure.len()),
                    bytes: request.encoded_len(),
                }),
                Err(fault) => Err(unavailable(fault).into()),
            }
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        let assembly = Assembly::new(self.cluster.layout.clone(), after);
        Box::new(EtcdFeed::new(self.cluster.clone(), self.cluster.history.load(Ordering::Relaxed), assembly))
    }
}

impl Cluster {
    /// Reads the version under the prefix, or writes ours where there is none.
    async fn check_schema(&self) -> Result<(), OpenError> {
        let key = self.layout.schema();
        let put = PutRequest { key: key.clone(), value: SCHEMA.to_string().into_bytes() };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let compare = Compare { result: 0, target: MOD_REVISION, key, mod_revision: Some(0) };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { operation: Some(Operation::Put(put)) }],
            failure: vec![RequestOp { operation: Some(Operation::Range(get)) }],
        };
        // Written twice it is the same.
        let answer: TxnResponse = self.members.call(TXN, &request, Repeat::Always).await.map_err(unavailable)?;
        self.note_history(answer.header.as_ref());
        if answer.succeeded {
            return Ok(());
        }
        let kv = answer.responses.first().and_then(|response| response.range.as_ref()?.kvs.first());
        let text = kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).unwrap_or_default();
        match text.parse() {
            Ok(found) if found > SCHEMA => Err(OpenError::Schema { found, known: SCHEMA }),
            Ok(_) => Ok(()),
            Err(_) => {
                let key = String::from_utf8_lossy(&self.layout.schema()).into_owned();
                Err(OpenError::Entry { key, problem: format!("{text:?} is no version") })
            }
        }
    }

    /// Everything, page by page at the revision of the first.
    async fn load(&self) -> Result<State, Fault> {
        let (mut key, range_end) = self.layout.entries();
        let mut state = State::default();
        let mut limit = FIRST_PAGE;
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: i64::try_from(limit).unwrap_or(i64::MAX),
                revision: transaction::signed(state.revision),
                keys_only: false,
            };
            let answer: Result<RangeResponse, _> = self.members.call(RANGE, &request, Repeat::Always).await;
            let page = match answer {
                Err(Fault::LongAnswer) if limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                answer => answer?,
            };
            if state.revision == 0 {
                self.note_history(page.header.as_ref());
                state.revision = page.header.as_ref().map_or(0, |header| unsigned(header.revision));
            }
            limit = next_page(page.kvs.len(), page.encoded_len());
            if let Some(last) = page.kvs.last() {
                key.clone_from(&last.key);
                key.push(0);
            }
            let has_more = page.more && !page.kvs.is_empty();
            state.entries.extend(page.kvs.into_iter().filter_map(|kv| {
                let key = self.layout.key_of(&kv.key)?;
                Some(Entry { key, value: kv.value, revision: unsigned(kv.mod_revision) })
            }));
            if !has_more {
                return Ok(state);
            }
        }
    }

    /// Of the store, as a majority of the members knows it.
    async fn revision(&self) -> Result<Revision, Fault> {
        let request = RangeRequest { key: self.layout.head(), keys_only: true, ..RangeRequest::default() };
        let answer: RangeResponse = self.members.call(RANGE, &request, Repeat::Always).await?;
        Ok(answer.header.map_or(0, |header| unsigned(header.revision)))
    }

    fn note_history(&self, header: Option<&message::Header>) {
        if let Some(header) = header {
            self.history.store(header.cluster_id, Ordering::Relaxed);
        }
    }
}

/// How many entries to ask for, when the last page had so many of so many bytes.
fn next_page(entries: usize, bytes: usize) -> usize {
    (PAGE_BYTES * entries.max(1) / bytes.max(1)).clamp(1, LARGEST_PAGE)
}

/// A fault of a request that only reads, or was surely not carried out.
fn unavailable(fault: Fault) -> EngineError {
    match fault {
        Fault::Elsewhere(problem) | Fault::Unknown(problem) => EngineError::Unavailable(problem),
        Fault::Refused(why) | Fault::TooLarge(why) => EngineError::Refused(why),
        Fault::Token => EngineError::Refused("it does not take the user's token".into()),
        Fault::LongAnswer => EngineError::Refused("a single entry is larger than 32 MiB".into()),
        Fault::Compacted => {
            EngineError::Unavailable("it forgets old revisions faster than everything can be read".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_of_about_the_same_size_whatever_is_in_them() {
        assert_eq!(next_page(1000, 300_000), 6990);
        assert_eq!(next_page(1000, 40_000), LARGEST_PAGE);
        assert_eq!(next_page(3, 3 * PAGE_BYTES), 1);
        assert_eq!(next_page(0, 0), LARGEST_PAGE);
    }
}

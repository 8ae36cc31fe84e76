//! The engine for several nodes: etcd, version 3.4 or newer.
//!
//! A revision here is a revision of etcd's store, which others may use as well: revisions grow, but not by one each. A
//! guard is a comparison with the revision that wrote the key last. [`layout`] says which keys are used, [`transaction`]
//! what a change is to etcd, [`assembly`] what a watch's events are to us; [`members`] asks one member after the other,
//! with a deadline on everything; [`fault`] understands what they refuse.

mod assembly;
mod fault;
pub(super) mod feed;
mod layout;
mod live;
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
use self::live::EtcdLive;
use self::members::{Members, Repeat};
use self::message::{
    Compare, MOD_REVISION, Operation, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use self::transaction::unsigned;
use super::{Engine, Entry, Feed, Guard, Live, Revision, SCHEMA, State, Write};
use crate::{CommitError, EngineError, OpenError};

pub use settings::{BadEtcdSettings, EtcdIdentity, EtcdLogin, EtcdSettings, EtcdTls};

/// Aimed at for one page of everything. etcd counts all that follows for each page, so few large pages cost it less than
/// many small ones; a page should still pass within a call on a slow line.
const PAGE_BYTES: usize = 2 << 20;
/// The first page, whose entries' sizes nobody knows yet.
const FIRST_PAGE: usize = 1000;
/// What etcd takes in one transaction is 128 operations, unless it is told otherwise; one is the head's.
const MOST_AT_ONCE: usize = 100;
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
    live: EtcdLive,
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
        let etcd = Self::unchecked(settings)?;
        etcd.check().await?;
        Ok(etcd)
    }

    /// Reaches nobody yet. Before anything else is asked, [`Etcd::check`] has to succeed.
    pub(super) fn unchecked(settings: &EtcdSettings) -> Result<Self, OpenError> {
        let cluster = Arc::new(Cluster {
            members: Members::new(settings)?,
            layout: Layout::new(&settings.prefix),
            history: AtomicU64::new(0),
        });
        Ok(Self { live: EtcdLive::new(cluster.clone(), Layout::live(&settings.prefix)), cluster })
    }

    /// Makes sure that what is under the prefix is ours to understand.
    pub(super) async fn check(&self) -> Result<(), OpenError> {
        self.cluster.check_schema().await
    }
}

impl Engine for Etcd {
    fn load(&self) -> BoxFuture<'_, Result<State, EngineError>> {
        Box::pin(self.cluster.load(&self.cluster.layout))
    }

    fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(async move {
            let request = transaction::request(&self.cluster.layout, &guards, &writes);
            let answer: Result<TxnResponse, _> = self.cluster.members.call(TXN, &request, Repeat::IfUntaken).await;
            match answer {
                Ok(answer) => transaction::verdict(&guards, !writes.is_empty(), &answer),
                Err(fault) => Err(uncommitted(fault, &request)),
            }
        })
    }

    fn follow(&self, after: Revision) -> Box<dyn Feed> {
        self.cluster.follow(&self.cluster.layout, after)
    }

    fn most_at_once(&self) -> Option<usize> {
        Some(MOST_AT_ONCE)
    }

    fn live(&self) -> &dyn Live {
        &self.live
    }
}

impl Cluster {
    /// Reads the version under the prefix, or writes ours where there is none.
    async fn check_schema(&self) -> Result<(), OpenError> {
        let key = self.layout.schema();
        let put = PutRequest { key: key.clone(), value: SCHEMA.to_string().into_bytes(), lease: 0 };
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
            Ok(SCHEMA) => Ok(()),
            Ok(_) => self.raise_schema(kv.map_or(0, |kv| kv.mod_revision)).await,
            Err(_) => {
                let key = String::from_utf8_lossy(&self.layout.schema()).into_owned();
                Err(OpenError::Entry { key, problem: format!("{text:?} is no version") })
            }
        }
    }

    /// What is there is good as it is; from now on there may be what older programs cannot read. Whoever comes first at
    /// that does it for all.
    async fn raise_schema(&self, seen: i64) -> Result<(), OpenError> {
        let key = self.layout.schema();
        let put = PutRequest { key: key.clone(), value: SCHEMA.to_string().into_bytes(), lease: 0 };
        let request = TxnRequest {
            compare: vec![Compare { result: 0, target: MOD_REVISION, key, mod_revision: Some(seen) }],
            success: vec![RequestOp { operation: Some(Operation::Put(put)) }],
            failure: Vec::new(),
        };
        let _: TxnResponse = self.members.call(TXN, &request, Repeat::Always).await.map_err(unavailable)?;
        Ok(())
    }

    /// Everything of this layout.
    async fn load(&self, layout: &Layout) -> Result<State, EngineError> {
        for _ in 1..LOADS {
            match self.load_once(layout).await {
                Err(Fault::Compacted) => (),
                settled => return settled.map_err(unavailable),
            }
        }
        self.load_once(layout).await.map_err(unavailable)
    }

    fn follow(self: &Arc<Self>, layout: &Layout, after: Revision) -> Box<dyn Feed> {
        let assembly = Assembly::new(layout.clone(), after);
        Box::new(EtcdFeed::new(self.clone(), self.history.load(Ordering::Relaxed), assembly))
    }

    /// Page by page at the revision of the first.
    async fn load_once(&self, layout: &Layout) -> Result<State, Fault> {
        let (mut key, range_end) = layout.entries();
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
                let key = layout.key_of(&kv.key)?;
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

/// What became of a transaction that was not answered.
fn uncommitted(fault: Fault, request: &TxnRequest) -> CommitError {
    match fault {
        Fault::Unknown(problem) => EngineError::Uncertain(problem).into(),
        Fault::TooLarge(_) => CommitError::TooLarge {
            operations: request.success.len().max(request.failure.len()),
            bytes: request.encoded_len(),
        },
        fault => unavailable(fault).into(),
    }
}

/// A fault of a request that only reads, or was surely not carried out.
fn unavailable(fault: Fault) -> EngineError {
    match fault {
        Fault::Elsewhere(problem) | Fault::Unknown(problem) => EngineError::Unavailable(problem),
        Fault::Refused(why) | Fault::TooLarge(why) => EngineError::Refused(why),
        Fault::Token => EngineError::Refused("it does not take the user's token".into()),
        Fault::NoLease => EngineError::Refused("it has no such lease".into()),
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

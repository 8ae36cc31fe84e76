//! What transactions cost on the way from etcd to a node that follows them.

/// One write, in bytes. `None`: a removal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) key: usize,
    pub(crate) value: Option<usize>,
}

/// What happened in some time. Bytes are those of one node's stream of HTTP/2, without TLS and TCP.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) transactions: u64,
    pub(crate) events: u64,
    pub(crate) renewals: u64,
    /// To each node that follows.
    pub(crate) bytes: u64,
}

/// Behind `PREFIX`, for the usual one, `/snicket`.
const ENTRIES: usize = "/snicket/registry/entries/".len();
const HEAD: usize = "/snicket/registry/head".len();
const LIVE: usize = "/snicket/live/".len();

/// Bytes of a revision or the number of entries of some billions, as protobuf writes it.
const REVISION: usize = 5;
/// The same of a lease.
const LEASE: usize = 9;
/// The header of an answer: cluster, member (each 64 bits at random), revision, term; and the watch's number.
const HEADER: usize = 2 + 10 + 10 + (1 + REVISION) + 2 + 2;
/// In front of each message: gRPC's length, and the header of a DATA frame.
const FRAMES: usize = 5 + 9;

impl Traffic {
    /// A transaction of what is configured, which writes the head besides.
    pub(crate) fn transaction(&mut self, writes: impl Iterator<Item = Written>) {
        let head = Written { key: HEAD, value: Some(0) };
        let writes = writes.map(|write| Written { key: ENTRIES + write.key, ..write });
        self.message(writes.chain([head]).map(|write| event(write, false)));
    }

    /// One of live entries.
    pub(crate) fn live_transaction(&mut self, writes: impl Iterator<Item = Written>) {
        self.message(writes.map(|write| event(Written { key: LIVE + write.key, ..write }, true)));
    }

    fn message(&mut self, events: impl Iterator<Item = usize>) {
        self.transactions += 1;
        self.bytes += (FRAMES + HEADER) as u64;
        for bytes in events {
            self.events += 1;
            self.bytes += field(bytes) as u64;
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            transactions: self.transactions - before.transactions,
            events: self.events - before.events,
            renewals: self.renewals - before.renewals,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// `mvccpb.Event` with its `KeyValue`. A removal tells only key and revision.
fn event(write: Written, is_live: bool) -> usize {
    let key = field(write.key);
    match write.value {
        None => 2 + field(key + 1 + REVISION),
        Some(value) => {
            let lease = if is_live { 1 + LEASE } else { 0 };
            let value = if value == 0 { 0 } else { field(value) };
            // Created, modified, version.
            field(key + 2 * (1 + REVISION) + 2 + value + lease)
        }
    }
}

/// Tag, length and content.
fn field(length: usize) -> usize {
    let digits = (usize::BITS - length.max(1).leading_zeros()).div_ceil(7);
    1 + digits as usize + length
}

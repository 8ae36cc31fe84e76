use std::error::Error;

use tonic::{Code, ConnectError, Status};

/// Why etcd did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// This member has not taken it up, and another may: it cannot be reached, or knows no leader.
    Elsewhere(String),
    /// It broke off; nobody knows whether it was carried out.
    Unknown(String),
    /// The token of our login has run out.
    Token,
    /// More operations, or more bytes, than etcd takes in one request.
    TooLarge(String),
    /// The answer is larger than we take: ask for less.
    LongAnswer,
    /// What was asked for is from before a compaction.
    Compacted,
    /// There is no such lease, or no more.
    NoLease,
    /// Nothing was done, and nothing will be until somebody changes something.
    Refused(String),
}

/// What a saying means, given all of it.
type Meaning = fn(String) -> Fault;

/// What etcd says, and what it means for us. Nothing of it is in the status codes alone.
const SAYINGS: [(&str, Meaning); 14] = [
    ("etcdserver: no leader", Fault::Elsewhere),
    ("etcdserver: too many requests", Fault::Elsewhere),
    ("etcdserver: rpc not supported for learner", Fault::Elsewhere),
    ("invalid auth token", |_| Fault::Token),
    ("revision of auth store is old", |_| Fault::Token),
    ("user name is empty", |_| Fault::Token),
    ("etcdserver: too many operations in txn request", Fault::TooLarge),
    ("etcdserver: request is too large", Fault::TooLarge),
    ("received message larger than max", Fault::TooLarge),
    ("decoded message length too large", |_| Fault::LongAnswer),
    ("required revision has been compacted", |_| Fault::Compacted),
    ("requested lease not found", |_| Fault::NoLease),
    ("database space exceeded", |_| {
        Fault::Refused(
            "its database is full; compact and defragment it, and clear the alarm (etcdctl alarm disarm), or raise its \
             --quota-backend-bytes"
                .into(),
        )
    }),
    ("permission denied", |_| {
        Fault::Refused(
            "the user may not do that; grant its role read and write on the whole prefix (etcdctl role grant-permission \
             --prefix=true)"
                .into(),
        )
    }),
];

impl Fault {
    pub(super) fn of(status: &Status) -> Self {
        let is_unconnected = chain(status).any(|error| error.is::<ConnectError>());
        if is_unconnected {
            return Self::Elsewhere(explain(status));
        }
        let message = status.message();
        if let Some((_, fault)) = SAYINGS.iter().find(|(saying, _)| message.contains(saying)) {
            return fault(message.to_owned());
        }
        match status.code() {
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted => Self::Unknown(explain(status)),
            _ => Self::Refused(message.to_owned()),
        }
    }
}

/// An error and what is behind it, in one line; what the next one says as well is left out.
pub(super) fn explain(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<String> = chain(error)
        .map(|error| match error.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => error.to_string(),
        })
        .collect();
    let mut line = String::new();
    for (index, text) in texts.iter().enumerate() {
        if text.is_empty() || line.contains(text) || texts[index + 1..].iter().any(|later| later.contains(text)) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text);
    }
    line
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_understood() {
        let said = |code, message: &str| Fault::of(&Status::new(code, message));
        assert!(matches!(said(Code::Unavailable, "etcdserver: no leader"), Fault::Elsewhere(_)));
        assert!(matches!(said(Code::Unavailable, "etcdserver: request timed out"), Fault::Unknown(_)));
        assert!(matches!(said(Code::Unknown, "broken pipe"), Fault::Unknown(_)));
        assert_eq!(said(Code::Unauthenticated, "etcdserver: invalid auth token"), Fault::Token);
        assert!(matches!(said(Code::InvalidArgument, "etcdserver: request is too large"), Fault::TooLarge(_)));
        let too_long = "grpc: received message larger than max (3 vs. 2)";
        assert!(matches!(said(Code::ResourceExhausted, too_long), Fault::TooLarge(_)));
        assert!(matches!(
            said(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Fault::Compacted
        ));
        assert_eq!(said(Code::NotFound, "etcdserver: requested lease not found"), Fault::NoLease);
        let Fault::Refused(full) = said(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded") else {
            panic!("a full database is a refusal");
        };
        assert!(full.contains("alarm disarm"), "{full}");
        assert!(matches!(said(Code::Unimplemented, "unknown service"), Fault::Refused(_)));
    }

    #[test]
    fn a_member_that_cannot_be_reached_has_not_taken_it_up() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let Fault::Elsewhere(problem) = Fault::of(&status) else { panic!("{status:?}") };
        assert!(problem.contains("connection refused"), "{problem}");
    }
}

use http::Method;
use wire::{ExchangeError, OriginFault};

use crate::refusal::{self, Refusal};

/// What is known about a request when an attempt has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) method: &'a Method,
    /// Attempts made so far, this one included.
    pub(crate) number: u32,
    /// Attempts allowed.
    pub(crate) allowed: u32,
    /// The whole of the body that was sent is still at hand.
    pub(crate) replayable: bool,
}

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try another connection.
    Again,
    /// Ask another origin if there is one, and else tell the visitor.
    Elsewhere(&'static Refusal),
    /// Tell the visitor.
    Refuse(&'static Refusal),
}

/// Decides whether a failed request may be sent again. The origin must never do the same thing twice unless the method
/// says that this does no harm.
pub(crate) fn after(error: &ExchangeError, attempt: Attempt<'_>) -> Verdict {
    let may_repeat = attempt.number < attempt.allowed && attempt.replayable;
    match error {
        ExchangeError::NotSent(_) if may_repeat => Verdict::Again,
        ExchangeError::Lost(_) if may_repeat && is_idempotent(attempt.method) => Verdict::Again,
        ExchangeError::NotSent(_) | ExchangeError::Lost(_) => Verdict::Refuse(&refusal::CONNECTION_LOST),
        ExchangeError::Origin(error) => {
            let refusal = Refusal::of_fault(error.fault);
            let may_go = may_repeat && (is_unseen(error.fault) || is_idempotent(attempt.method));
            // What the agent cannot do with one origin it cannot do with another one of the same kind either.
            let is_of_the_rule = error.fault == OriginFault::Unsupported;
            if may_go && !is_of_the_rule { Verdict::Elsewhere(refusal) } else { Verdict::Refuse(refusal) }
        }
        ExchangeError::Protocol(_) => Verdict::Refuse(&refusal::AGENT_NONSENSE),
        ExchangeError::RequestBody(_) => Verdict::Refuse(&refusal::REQUEST_BODY),
    }
}

/// Whether a request that has no answer yet may be given up and sent elsewhere.
pub(crate) fn may_leave(attempt: Attempt<'_>) -> bool {
    attempt.number < attempt.allowed && attempt.replayable && is_idempotent(attempt.method)
}

/// Whether the origin has certainly not seen the request.
fn is_unseen(fault: OriginFault) -> bool {
    match fault {
        OriginFault::Refused
        | OriginFault::ConnectTimeout
        | OriginFault::Unreachable
        | OriginFault::TlsHandshake
        | OriginFault::TlsCertificate => true,
        OriginFault::ResponseTimeout
        | OriginFault::Closed
        | OriginFault::Nonsense
        | OriginFault::Unsupported
        | OriginFault::Unknown => false,
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests {
    use wire::OriginError;

    use super::*;

    fn verdict(error: ExchangeError, method: Method, number: u32, replayable: bool) -> Verdict {
        after(&error, Attempt { method: &method, number, allowed: 4, replayable })
    }

    fn not_sent() -> ExchangeError {
        ExchangeError::NotSent("x".into())
    }

    fn lost() -> ExchangeError {
        ExchangeError::Lost("x".into())
    }

    const LOST: Verdict = Verdict::Refuse(&refusal::CONNECTION_LOST);

    #[test]
    fn what_nobody_saw_is_sent_again_whatever_it_is() {
        assert_eq!(verdict(not_sent(), Method::POST, 1, true), Verdict::Again);
        assert_eq!(verdict(not_sent(), Method::GET, 3, true), Verdict::Again);
    }

    #[test]
    fn what_may_have_been_seen_only_if_it_does_no_harm() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(verdict(lost(), method, 1, true), Verdict::Again);
        }
        for method in [Method::POST, Method::PATCH, Method::from_bytes(b"PURGE").unwrap()] {
            assert_eq!(verdict(lost(), method, 1, true), LOST);
        }
    }

    #[test]
    fn never_without_the_body_and_never_for_ever() {
        assert_eq!(verdict(not_sent(), Method::POST, 1, false), LOST);
        assert_eq!(verdict(lost(), Method::PUT, 1, false), LOST);
        assert_eq!(verdict(not_sent(), Method::GET, 4, true), LOST);
    }

    #[test]
    fn what_an_origin_fails_is_for_another_one_if_it_does_no_harm() {
        let failed = |fault, method, number, replayable| {
            verdict(ExchangeError::Origin(OriginError::new(fault, "")), method, number, replayable)
        };
        let (told, elsewhere) = (Verdict::Refuse, Verdict::Elsewhere);
        let (refused, closed) = (&refusal::ORIGIN_REFUSED, Refusal::of_fault(OriginFault::Closed));
        assert_eq!(failed(OriginFault::Refused, Method::POST, 1, true), elsewhere(refused));
        assert_eq!(failed(OriginFault::Refused, Method::POST, 1, false), told(refused));
        assert_eq!(failed(OriginFault::Refused, Method::GET, 4, true), told(refused));
        assert_eq!(failed(OriginFault::Closed, Method::GET, 1, true), elsewhere(closed));
        assert_eq!(failed(OriginFault::Closed, Method::POST, 1, true), told(closed));
        let unsupported = Refusal::of_fault(OriginFault::Unsupported);
        assert_eq!(failed(OriginFault::Unsupported, Method::GET, 1, true), told(unsupported));
    }
}

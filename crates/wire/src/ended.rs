use quinn::{ConnectionError, TransportErrorCode};

/// Why the connection of an agent has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// In words, for people.
    pub reason: String,
    /// What the agent did that no connection goes on after, if it was that.
    pub breach: Option<Breach>,
}

/// How an agent broke the rules of its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// Those of HTTP/2.
    Http2(::http2::Breach),
    /// Those of QUIC (RFC 9000 section 20.1).
    Quic(TransportErrorCode),
}

impl Breach {
    pub(crate) fn of_http2(error: &::http2::Error) -> Option<Self> {
        let ::http2::Error::Breach(breach) = error else { return None };
        Some(Self::Http2(*breach))
    }

    pub(crate) fn of_quic(error: &ConnectionError) -> Option<Self> {
        let ConnectionError::TransportError(error) = error else { return None };
        Some(Self::Quic(error.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_agent_did_wrong_is_a_breach() {
        let code = TransportErrorCode::FLOW_CONTROL_ERROR;
        assert_eq!(Breach::of_quic(&ConnectionError::TransportError(code.into())), Some(Breach::Quic(code)));
        assert_eq!(Breach::of_quic(&ConnectionError::TimedOut), None);
        let wrong = ::http2::Breach::Idle;
        assert_eq!(Breach::of_http2(&::http2::Error::Breach(wrong)), Some(Breach::Http2(wrong)));
        assert_eq!(Breach::of_http2(&::http2::Error::Lost("gone".into())), None);
    }
}

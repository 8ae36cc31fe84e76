//! What went wrong at an origin, in the words of the protocol.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use wire::{BodyError, OriginError, OriginFault};

/// Why the origins of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A `caPool` file.
    #[error("caPool {path}: {reason}", path = .path.display())]
    CaPool {
        /// The file.
        path: PathBuf,
        /// Why it is of no use.
        reason: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS settings: {0}")]
    Tls(#[from] rustls::Error),
    /// A host that is neither a name nor an address.
    #[error("{0:?} is no name to verify a certificate by")]
    ServerName(String),
    /// `httpHostHeader` cannot stand in a header.
    #[error("httpHostHeader cannot stand in a header")]
    HostHeader,
    /// A service of another kind was taken for an HTTP origin.
    #[error("{0} does not speak HTTP")]
    NotHttp(String),
}

/// Why an origin could not be connected. Travels through the HTTP client as the source of its error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectFailure(pub(super) OriginError);

impl ConnectFailure {
    pub(super) fn new(fault: OriginFault, text: impl Into<String>) -> Self {
        Self(OriginError::new(fault, text))
    }
}

/// Tells the fault of a TCP or Unix connect.
pub(super) fn connect_fault(error: &io::Error, unix: bool) -> OriginFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => OriginFault::Refused,
        io::ErrorKind::NotFound if unix => OriginFault::Refused,
        io::ErrorKind::TimedOut => OriginFault::ConnectTimeout,
        _ => OriginFault::Unreachable,
    }
}

/// Tells the fault of a TLS handshake.
pub(super) fn tls_fault(error: &io::Error) -> OriginFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            OriginFault::TlsCertificate
        }
        _ => OriginFault::TlsHandshake,
    }
}

/// Tells what the HTTP client's error means.
pub(super) fn from_client(error: &(dyn Error + 'static)) -> OriginError {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    let mut deepest = error.to_string();
    while let Some(cause) = source {
        if let Some(ConnectFailure(failure)) = cause.downcast_ref() {
            return failure.clone();
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>()
            && let Some(fault) = hyper_fault(error)
        {
            return OriginError::new(fault, sentence(fault, error));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && is_closed(error)
        {
            return OriginError::new(OriginFault::Closed, sentence(OriginFault::Closed, error));
        }
        if let Some(error) = cause.downcast_ref::<BodyError>() {
            return of_body(error);
        }
        deepest = cause.to_string();
        source = cause.source();
    }
    failed(&deepest)
}

/// Tells what it means that a connection gives no answer.
pub(super) fn of_connection(error: &io::Error) -> OriginError {
    if is_closed(error) {
        OriginError::new(OriginFault::Closed, sentence(OriginFault::Closed, error))
    } else {
        failed(&error.to_string())
    }
}

/// The visitor gives no more of the body.
pub(super) fn of_body(error: &BodyError) -> OriginError {
    OriginError::new(OriginFault::Unknown, format!("the visitor's body failed: {error}"))
}

/// An origin that never comes to its answer.
pub(super) fn flood() -> OriginError {
    OriginError::new(OriginFault::Nonsense, "the origin sends one interim answer after the other")
}

pub(super) fn switched() -> OriginError {
    OriginError::new(OriginFault::Nonsense, "the origin switched protocols, and nobody had asked it to")
}

fn failed(reason: &str) -> OriginError {
    OriginError::new(OriginFault::Unknown, format!("the request to the origin failed: {reason}"))
}

fn hyper_fault(error: &hyper::Error) -> Option<OriginFault> {
    if error.is_parse() {
        Some(OriginFault::Nonsense)
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Some(OriginFault::Closed)
    } else {
        None
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotConnected
    )
}

fn sentence(fault: OriginFault, error: &dyn Error) -> String {
    match fault {
        OriginFault::Nonsense => format!("what the origin sent is not HTTP: {error}"),
        _ => format!("the origin closed the connection before it answered: {error}"),
    }
}

use std::io;
use std::path::PathBuf;

/// Why a certificate, a key or a root could not be had. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file could not be read or written.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `cannot read`, `cannot write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A certificate could not be made for these names.
    #[error("cannot make a certificate for {names}: {problem}")]
    Issue {
        /// The names wanted.
        names: String,
        /// What is wrong.
        problem: String,
    },
    /// An authority that somebody else keeps is of no use, or could not be made.
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    /// No root certificate to verify an edge with.
    #[error("no root certificates: {0}")]
    NoRoots(String),
    /// The cryptography library refused our settings.
    #[error("TLS settings: {0}")]
    Tls(#[from] rustls::Error),
}

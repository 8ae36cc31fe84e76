use std::fmt;
use std::path::PathBuf;

use http::StatusCode;
use http::uri::Authority;
use url::Url;

/// Where requests of a rule go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// An HTTP origin by TCP. `host:port`, the port always there.
    Http {
        /// `https` or `wss`.
        tls: bool,
        /// Host and port.
        authority: Authority,
    },
    /// An HTTP origin behind a Unix socket.
    Unix {
        /// `unix+tls`.
        tls: bool,
        /// The socket.
        path: PathBuf,
    },
    /// The built-in page.
    Hello,
    /// An empty answer with this status.
    Status(StatusCode),
    /// A service that this version knows of but does not carry: TCP kinds, bastion, SOCKS. Kept as written.
    Unsupported(String),
}

/// Why a text is no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// `http://host/path`.
    #[error("{0:?} has a path; the origin gets the visitor's path, so write it without one")]
    Path(String),
    /// No URL at all.
    #[error(
        "{0:?} is no service; write for example http://localhost:8080, unix:/run/app.sock, http_status:404 or hello_world"
    )]
    Malformed(String),
    /// `http_status:` with something else behind it.
    #[error("{0:?}: a status is a number from 100 to 999, as in http_status:404")]
    Status(String),
}

impl Service {
    /// Reads the `service` of a rule (section 14.2). With `bastion` any service is a jump host.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub fn parse(text: &str, bastion: bool) -> Result<Self, ServiceError> {
        if bastion || matches!(text, "bastion" | "socks-proxy") {
            return Ok(Self::Unsupported(text.to_owned()));
        }
        if matches!(text, "hello_world" | "hello-world") {
            return Ok(Self::Hello);
        }
        for (prefix, tls) in [("unix:", false), ("unix+tls:", true)] {
            if let Some(path) = text.strip_prefix(prefix) {
                let valid = !path.is_empty() && !path.contains('\0');
                return if valid {
                    Ok(Self::Unix { tls, path: PathBuf::from(path) })
                } else {
                    Err(ServiceError::Malformed(text.to_owned()))
                };
            }
        }
        if let Some(status) = text.strip_prefix("http_status:") {
            return status
                .parse()
                .ok()
                .and_then(|status: u16| StatusCode::from_u16(status).ok())
                .map(Self::Status)
                .ok_or_else(|| ServiceError::Status(text.to_owned()));
        }
        let malformed = || ServiceError::Malformed(text.to_owned());
        let url = Url::parse(text).map_err(|_| malformed())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || text.ends_with('/') {
            return Err(ServiceError::Path(text.to_owned()));
        }
        let (tls, port) = match url.scheme() {
            "http" | "ws" => (false, 80),
            "https" | "wss" => (true, 443),
            _ => return Ok(Self::Unsupported(text.to_owned())),
        };
        let authority = format!("{host}:{}", url.port().unwrap_or(port)).parse().map_err(|_| malformed())?;
        Ok(Self::Http { tls, authority })
    }
}

/// As it would be written in a rule.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { tls, authority } => write!(f, "{}://{authority}", if *tls { "https" } else { "http" }),
            Self::Unix { tls, path } => write!(f, "{}:{}", if *tls { "unix+tls" } else { "unix" }, path.display()),
            Self::Hello => f.write_str("hello_world"),
            Self::Status(status) => write!(f, "http_status:{}", status.as_u16()),
            Self::Unsupported(text) => f.write_str(text),
        }
    }
}

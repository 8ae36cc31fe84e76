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
    /// A byte stream by TCP; a visitor speaks it inside a WebSocket.
    Tcp {
        /// `tcp`, `ssh`, `rdp`, `smb`, or any other that is no name of an HTTP origin.
        scheme: String,
        /// Host and port, the port always there.
        authority: Authority,
    },
    /// Datagrams by UDP.
    Udp {
        /// Host and port.
        authority: Authority,
    },
    /// A jump host: the visitor names the destination in a header.
    Bastion,
    /// SOCKS5 inside a WebSocket, to what `ipRules` allow.
    Socks,
}

/// Why a text is no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// `http://host/path`.
    #[error("{0:?} has a path; the origin gets the visitor's path, so write it without one")]
    Path(String),
    /// No URL at all.
    #[error(
        "{0:?} is no service; write for example http://localhost:8080, tcp://localhost:5432, unix:/run/app.sock or \
         http_status:404"
    )]
    Malformed(String),
    /// `git://host`: nothing is known of the scheme, so a port has to be given.
    #[error("{0:?} has no port, and {1} has no usual one; write {1}://HOST:PORT")]
    Port(String, String),
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
        if bastion || text == "bastion" {
            return Ok(Self::Bastion);
        }
        if text == "socks-proxy" {
            return Ok(Self::Socks);
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
        let scheme = url.scheme();
        let (tls, usual_port) = match scheme {
            "http" | "ws" => (Some(false), Some(80)),
            "https" | "wss" => (Some(true), Some(443)),
            scheme => (None, usual_tcp_port(scheme)),
        };
        let port = url.port().or(usual_port).ok_or_else(|| ServiceError::Port(text.to_owned(), scheme.to_owned()))?;
        let authority = format!("{host}:{port}").parse().map_err(|_| malformed())?;
        Ok(match tls {
            Some(tls) => Self::Http { tls, authority },
            None if scheme == "udp" => Self::Udp { authority },
            None => Self::Tcp { scheme: scheme.to_owned(), authority },
        })
    }
}

/// The port of a TCP service that names none (section 14.2).
fn usual_tcp_port(scheme: &str) -> Option<u16> {
    match scheme {
        "tcp" => Some(7864),
        "ssh" => Some(22),
        "rdp" => Some(3389),
        "smb" => Some(445),
        _ => None,
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
            Self::Udp { authority } => write!(f, "udp://{authority}"),
            Self::Tcp { scheme, authority } => write!(f, "{scheme}://{authority}"),
            Self::Bastion => f.write_str("bastion"),
            Self::Socks => f.write_str("socks-proxy"),
        }
    }
}

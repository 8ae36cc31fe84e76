//! Origins that take byte streams (sections 5.4 and 13): what a visitor says inside a WebSocket goes to a TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_KEY};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;
use wire::{Body, ByteStream, OriginError, OriginFault};

use super::connect::Dial;
use super::connected::Connected;
use super::error::ConnectFailure;
use super::socket::{self, Socket, accepted};
use super::socks::{self, Reply, Wanted};
use super::unsupported;
use crate::eyeballs;
use crate::ingress::{IpRule, OriginOptions};

/// Where a visitor of a jump host wants to go.
const JUMP_DESTINATION: &str = "cf-access-jump-destination";

/// How long a visitor may take to say over SOCKS where it wants to go.
const SOCKS_HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the other way may go on when one has ended: a WebSocket cannot end by halves, so only what is under way is
/// still of use.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// An origin of byte streams.
pub(crate) struct StreamOrigin(Arc<Settings>);

struct Settings {
    goal: Goal,
    dial: Dial,
}

enum Goal {
    /// One place, whatever the visitor says. `socks`: it says so in SOCKS5 first.
    Fixed { host: String, port: u16, socks: bool },
    /// What the visitor's request names.
    Jump,
    /// What the visitor names in SOCKS5, as far as the rules allow.
    Socks(Vec<IpRule>),
}

impl StreamOrigin {
    /// Leads to this place (its port is there).
    pub(super) fn fixed(authority: &Authority, options: &OriginOptions) -> Self {
        let host = authority.host().to_owned();
        let port = authority.port_u16().unwrap_or_default();
        Self::new(Goal::Fixed { host, port, socks: options.proxy_type == "socks" }, options)
    }

    /// Leads to where a header says.
    pub(super) fn jump(options: &OriginOptions) -> Self {
        Self::new(Goal::Jump, options)
    }

    /// Leads to where the visitor says in SOCKS5, as far as `ipRules` allow.
    pub(super) fn socks(options: &OriginOptions) -> Self {
        Self::new(Goal::Socks(options.ip_rules.clone()), options)
    }

    fn new(goal: Goal, options: &OriginOptions) -> Self {
        Self(Arc::new(Settings { goal, dial: Dial::new(options) }))
    }

    /// Connects without a word of the visitor's.
    pub(super) async fn connect(&self) -> Result<Connected, OriginError> {
        match &self.0.goal {
            Goal::Fixed { host, port, .. } => self.0.fixed(host, *port).await,
            Goal::Jump | Goal::Socks(_) => Err(unsupported(
                "the rule's service wants to be told the destination inside a WebSocket; for a port, write tcp://HOST:PORT"
                    .to_owned(),
            )),
        }
    }

    /// Accepts a WebSocket and carries its bytes. Dropping the answer's body ends the connection to the origin.
    pub(super) async fn websocket(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let connected = match &self.0.goal {
            Goal::Fixed { host, port, .. } => Some(self.0.fixed(host, *port).await?),
            Goal::Jump => {
                let (host, port) = jump_destination(request.headers())?;
                Some(self.0.fixed(&host, port).await?)
            }
            Goal::Socks(_) => None,
        };
        let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
        let (socket, signals, answer) = Socket::new(request.into_body());
        let settings = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                carried = settings.carry(socket, connected) => {
                    if let Err(error) = carried {
                        tracing::debug!(%error, "a byte stream in a WebSocket ended");
                    }
                }
                () = socket::finished(signals, LAST_WORDS) => {}
            }
        });
        Ok(accepted(key.as_ref(), answer))
    }
}

impl Settings {
    async fn fixed(&self, host: &str, port: u16) -> Result<Connected, OriginError> {
        self.dial.host(host, port, None).await.map(Connected::new).map_err(|ConnectFailure(error)| error)
    }

    async fn carry(&self, mut socket: Socket, connected: Option<Connected>) -> io::Result<()> {
        let (speaks_socks, rules) = match &self.goal {
            Goal::Fixed { socks, .. } => (*socks, None),
            Goal::Jump => (false, None),
            Goal::Socks(rules) => (true, Some(rules)),
        };
        let wanted = if speaks_socks {
            let wanted = tokio::time::timeout(SOCKS_HANDSHAKE, socks::wanted(&mut socket)).await;
            Some(wanted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
        } else {
            None
        };
        let origin = match (connected, &wanted, rules) {
            (Some(origin), ..) => origin,
            (None, Some(wanted), Some(rules)) => match self.allowed(wanted, rules).await {
                Ok(origin) => origin,
                Err(reply) => {
                    socks::reply(&mut socket, reply).await?;
                    return socket.shutdown().await;
                }
            },
            (None, ..) => return Err(io::ErrorKind::NotConnected.into()),
        };
        if wanted.is_some() {
            socks::reply(&mut socket, Reply::Connected).await?;
        }
        ByteStream::wrap(socket).relay(ByteStream::wrap(origin)).await.map(drop)
    }

    /// Connects to what the visitor wants, over those of its addresses that the rules allow.
    async fn allowed(&self, wanted: &Wanted, rules: &[IpRule]) -> Result<Connected, Reply> {
        let found = tokio::time::timeout(SOCKS_HANDSHAKE, eyeballs::resolve(&wanted.host, wanted.port)).await;
        let found = found.map_err(|_| Reply::TooLate)?.map_err(|_| Reply::Unreachable)?;
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| is_allowed(rules, address.ip().to_canonical(), address.port()))
            .collect();
        if allowed.is_empty() {
            tracing::debug!(%wanted, "ipRules do not allow this");
            return Err(Reply::Forbidden);
        }
        let connected = self.dial.addresses(&allowed, &wanted.to_string()).await;
        connected.map(Connected::new).map_err(|ConnectFailure(error)| error.fault.into())
    }
}

/// The first rule that knows the address and the port decides; without one nothing is allowed (section 14.3).
fn is_allowed(rules: &[IpRule], address: IpAddr, port: u16) -> bool {
    rules.iter().find(|rule| rule.covers(address, port)).is_some_and(|rule| rule.allow)
}

/// `host:port`, as it stands or within a URL.
fn jump_destination(headers: &HeaderMap) -> Result<(String, u16), OriginError> {
    let told = headers.get(JUMP_DESTINATION).filter(|value| !value.is_empty()).ok_or_else(|| {
        unsupported(
            "the visitor does not say where to; with `cloudflared access tcp` it has to give --destination".to_owned(),
        )
    })?;
    let text = told.to_str().unwrap_or_default();
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    let authority = place.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
    let (host, port) = authority
        .as_ref()
        .and_then(|authority| Some((authority.host(), authority.port_u16()?)))
        .filter(|(host, port)| !host.is_empty() && *port != 0)
        .ok_or_else(|| {
            let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
            OriginError::new(OriginFault::Unsupported, format!("the visitor's destination {text:?} is no HOST:PORT"))
        })?;
    Ok((host.to_owned(), port))
}

/// A request of HTTP that came to a rule for byte streams.
pub(super) fn no_websocket() -> Response<Body> {
    const TEXT: &str = "This address carries byte streams inside a WebSocket, and no pages. Reach it with a program \
                        that speaks so, for example: cloudflared access tcp --hostname HOST --url localhost:PORT\n";
    let mut response = Response::new(Body::full(TEXT));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_knows_an_address_decides() {
        let rule = |prefix: &str, ports: &[u16], allow| IpRule {
            prefix: Some(prefix.to_owned()),
            ports: ports.to_vec(),
            allow,
        };
        let rules = [
            rule("10.1.0.0/16", &[80, 443], true),
            rule("10.0.0.0/8", &[], false),
            rule("2001:db8::/32", &[], true),
            rule("0.0.0.0/0", &[22], true),
        ];
        for (address, port, allowed) in [
            ("10.1.2.3", 80, true),
            ("10.1.2.3", 22, false),
            ("10.2.0.0", 80, false),
            ("2001:db8::1", 1, true),
            ("2001:db9::1", 22, false),
            ("192.0.2.1", 22, true),
            ("::ffff:192.0.2.1", 22, true),
            ("::ffff:10.9.9.9", 22, false),
            ("192.0.2.1", 23, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(is_allowed(&rules, address.to_canonical(), port), allowed, "{address} {port}");
        }
        assert!(!is_allowed(&[], "127.0.0.1".parse().unwrap(), 80));
    }

    #[test]
    fn jump_destinations_are_read_as_the_reference_reads_them() {
        let read = |text: &str| {
            let headers = [(JUMP_DESTINATION, text)]
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            jump_destination(&HeaderMap::from_iter(headers))
        };
        for text in ["db.test:5432", "ssh://db.test:5432", "db.test:5432/x/y", "tcp://db.test:5432/x"] {
            assert_eq!(read(text), Ok(("db.test".to_owned(), 5432)), "{text}");
        }
        assert_eq!(read("[::1]:22"), Ok(("[::1]".to_owned(), 22)));
        for text in ["", "db.test", "db.test:0", "db.test:70000", ":22", "me@db.test:22", "a b:1"] {
            assert_eq!(read(text).unwrap_err().fault, OriginFault::Unsupported, "{text}");
        }
        assert!(jump_destination(&HeaderMap::new()).unwrap_err().text.contains("--destination"));
    }
}

//! Proxies on the way to the edge and to origins: HTTP CONNECT and SOCKS5, chosen by the variables that other programs
//! obey.

mod handshake;

use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::net::TcpStream;
use url::Url;

use crate::eyeballs;

/// Why the settings of a proxy are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not a URL.
    #[error("{variable} is no URL of a proxy; write for example http://proxy.example:3128 or socks5://127.0.0.1:1080")]
    Malformed {
        /// Which variable; its value may hold a password and is not repeated.
        variable: String,
    },
    /// A kind of proxy that is not spoken.
    #[error("{variable}: proxies of kind {scheme:?} are not supported; use http, socks5 or socks5h")]
    Scheme {
        /// Which variable.
        variable: String,
        /// The URL's scheme.
        scheme: String,
    },
}

/// Which proxy leads to which host.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    edge: Option<Proxy>,
    plain_origins: Option<Proxy>,
    tls_origins: Option<Proxy>,
    except: Vec<Exception>,
}

#[derive(Debug, Clone, PartialEq)]
enum Exception {
    All,
    /// The name itself and all below it; only those below when written with a leading dot.
    Name {
        name: String,
        below_only: bool,
    },
    Range {
        address: IpAddr,
        length: u8,
    },
}

/// One proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    kind: ProxyKind,
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProxyKind {
    Connect,
    Socks5,
}

impl Proxies {
    /// No proxy for anything.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads `HTTPS_PROXY`, `ALL_PROXY` (for the edge), `HTTP_PROXY` (for origins without TLS) and `NO_PROXY`, in lower
    /// case first.
    ///
    /// # Errors
    /// A variable is set to what is no proxy.
    pub fn from_environment() -> Result<Self, ProxyError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Proxies::from_environment`], with another source of variables.
    ///
    /// # Errors
    /// A variable is set to what is no proxy.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, get(name).filter(|value| !value.trim().is_empty())?)))
        };
        let proxy = |names: &[&'static str]| {
            first(names).map(|(variable, value)| Proxy::parse(variable, value.trim())).transpose()
        };
        Ok(Self {
            edge: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
            plain_origins: proxy(&["http_proxy", "HTTP_PROXY"])?,
            tls_origins: proxy(&["https_proxy", "HTTPS_PROXY"])?,
            except: first(&["no_proxy", "NO_PROXY"]).map_or_else(Vec::new, |(_, list)| exceptions(&list)),
        })
    }

    /// Whether the edge at this host (without port) is reached through a proxy.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.for_edge(host).is_some()
    }

    pub(crate) fn for_edge(&self, host: &str) -> Option<&Proxy> {
        self.unless_excepted(self.edge.as_ref()?, host)
    }

    /// As the reference, origins obey `HTTP_PROXY` and `HTTPS_PROXY` alone. Unlike there, the proxy is asked for a
    /// tunnel whether or not the origin speaks TLS: a proxy that passes requests on would replace the visitor's `Host`.
    pub(crate) fn for_origin(&self, tls: bool, host: &str) -> Option<&Proxy> {
        let proxy = if tls { &self.tls_origins } else { &self.plain_origins };
        self.unless_excepted(proxy.as_ref()?, host)
    }

    fn unless_excepted<'a>(&self, proxy: &'a Proxy, host: &str) -> Option<&'a Proxy> {
        // A proxy elsewhere would not find what runs on this machine.
        let out_of_reach = is_loopback(host) && !is_loopback(&proxy.host);
        (!out_of_reach && !self.except.iter().any(|exception| exception.covers(host))).then_some(proxy)
    }
}

fn is_loopback(host: &str) -> bool {
    let host = bare(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn exceptions(list: &str) -> Vec<Exception> {
    list.split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            if entry == "*" {
                return Exception::All;
            }
            let (address, length) = entry.split_once('/').map_or((entry, None), |(a, l)| (a, l.parse().ok()));
            match bare(address).parse::<IpAddr>() {
                Ok(address) => {
                    let longest = if address.is_ipv4() { 32 } else { 128 };
                    Exception::Range { address, length: length.unwrap_or(longest).min(longest) }
                }
                Err(_) => {
                    let entry = entry.strip_prefix('*').unwrap_or(entry);
                    let name = entry.rsplit_once(':').map_or(entry, |(name, _)| name).to_ascii_lowercase();
                    match name.strip_prefix('.') {
                        Some(rest) => Exception::Name { name: rest.to_owned(), below_only: true },
                        None => Exception::Name { name, below_only: false },
                    }
                }
            }
        })
        .collect()
}

impl Exception {
    fn covers(&self, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name { name, below_only } => {
                let host = host.to_ascii_lowercase();
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                below || (!below_only && host == *name)
            }
            Self::Range { address, length } => {
                bare(host).parse::<IpAddr>().is_ok_and(|host| same_prefix(host, *address, *length))
            }
        }
    }
}

/// Whether the first `length` bits are the same; never for different families.
pub(crate) fn same_prefix(a: IpAddr, b: IpAddr, length: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(length)).is_none_or(|differs| differs == 0)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(length)).is_none_or(|differs| differs == 0)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

impl Proxy {
    fn parse(variable: &str, text: &str) -> Result<Self, ProxyError> {
        let malformed = || ProxyError::Malformed { variable: variable.to_owned() };
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|_| malformed())?;
        let (kind, usual_port) = match url.scheme() {
            "http" => (ProxyKind::Connect, 80),
            "socks" | "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            scheme => {
                return Err(ProxyError::Scheme { variable: variable.to_owned(), scheme: scheme.to_owned() });
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(malformed)?.to_owned();
        let port = url.port().unwrap_or(usual_port);
        let credentials = (!url.username().is_empty())
            .then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
        Ok(Self { kind, host, port, credentials })
    }

    /// A stream to `destination` (`host:port`) through the proxy. The caller limits the time.
    pub(crate) async fn connect(&self, destination: &str, bind: Option<IpAddr>) -> io::Result<TcpStream> {
        let addresses = eyeballs::resolve(&self.host, self.port)
            .await
            .map_err(|error| io::Error::other(format!("the proxy {self} does not resolve: {error}")))?;
        let mut stream =
            eyeballs::connect(&addresses, Some(eyeballs::STAGGER), |address| eyeballs::connect_from(bind, address))
                .await
                .map_err(|error| io::Error::other(format!("the proxy {self} cannot be reached: {error}")))?;
        let credentials = self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        match self.kind {
            ProxyKind::Connect => handshake::connect(&mut stream, destination, credentials).await,
            ProxyKind::Socks5 => handshake::socks5(&mut stream, destination, credentials).await,
        }
        .map_err(|error| io::Error::other(format!("the proxy {self}: {error}")))?;
        Ok(stream)
    }
}

/// Without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

fn decoded(text: &str) -> String {
    crate::ingress::percent_decoded(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_variables(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_are_read_as_other_programs_read_them() {
        let both = proxies(&[("ALL_PROXY", "socks5h://u:p%40ss@s.test"), ("HTTPS_PROXY", "h.test:3128")]).unwrap();
        let proxy = both.for_edge("edge.test").unwrap();
        assert_eq!((proxy.kind, proxy.to_string()), (ProxyKind::Connect, "h.test:3128".to_owned()));
        let all = proxies(&[("HTTPS_PROXY", " "), ("ALL_PROXY", "socks5h://u:p%40ss@s.test")]).unwrap();
        let proxy = all.for_edge("edge.test").unwrap();
        assert_eq!((proxy.kind, proxy.to_string()), (ProxyKind::Socks5, "s.test:1080".to_owned()));
        assert_eq!(proxy.credentials, Some(("u".to_owned(), "p@ss".to_owned())));
        assert!(!format!("{all:?}").contains("ss@"), "passwords are not printed");
        assert!(!proxies(&[]).unwrap().covers("edge.test"));
    }

    #[test]
    fn origins_have_a_proxy_by_their_scheme() {
        let variables = [("HTTP_PROXY", "plain.test"), ("HTTPS_PROXY", "tls.test"), ("no_proxy", "inner.test")];
        let shown = |proxies: &Proxies, tls, host| proxies.for_origin(tls, host).map(ToString::to_string);
        let both = proxies(&variables).unwrap();
        assert_eq!(shown(&both, false, "app.test").as_deref(), Some("plain.test:80"));
        assert_eq!(shown(&both, true, "app.test").as_deref(), Some("tls.test:80"));
        assert_eq!(shown(&both, false, "inner.test"), None);
        assert_eq!(shown(&both, false, "localhost"), None);
        let all = proxies(&[("ALL_PROXY", "all.test")]).unwrap();
        assert_eq!((shown(&all, false, "app.test"), shown(&all, true, "app.test")), (None, None));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        let error = proxies(&[("https_proxy", "https://u:secret@p.test")]).unwrap_err();
        assert!(matches!(&error, ProxyError::Scheme { scheme, .. } if scheme == "https"));
        let error = proxies(&[("https_proxy", "http://u:secret@")]).unwrap_err();
        assert!(!error.to_string().contains("secret") && error.to_string().contains("https_proxy"));
    }

    #[test]
    fn exceptions_hold() {
        let list = "plain.test, .below.test,*.star.test,10.0.0.0/8,192.0.2.7,[2001:db8::]/32,port.test:80";
        let proxies = proxies(&[("https_proxy", "p.test"), ("no_proxy", list)]).unwrap();
        for host in [
            "plain.test",
            "a.plain.test",
            "A.BELOW.test",
            "x.star.test",
            "10.255.0.1",
            "192.0.2.7",
            "[2001:db8::9]",
            "port.test",
        ] {
            assert!(!proxies.covers(host), "{host}");
        }
        for host in ["below.test", "notplain.test", "11.0.0.1", "192.0.2.8", "2001:db9::", "edge.test"] {
            assert!(proxies.covers(host), "{host}");
        }
        assert!(!self::proxies(&[("https_proxy", "p.test"), ("NO_PROXY", "*")]).unwrap().covers("edge.test"));
        let zero = self::proxies(&[("https_proxy", "p.test"), ("NO_PROXY", "0.0.0.0/0")]).unwrap();
        assert!(!zero.covers("1.2.3.4") && zero.covers("::2"));
    }

    #[test]
    fn this_machine_is_reached_only_through_its_own_proxy() {
        assert!(!proxies(&[("https_proxy", "p.test")]).unwrap().covers("127.0.0.1"));
        assert!(!proxies(&[("https_proxy", "p.test")]).unwrap().covers("localhost"));
        assert!(proxies(&[("https_proxy", "localhost:3128")]).unwrap().covers("127.0.0.1"));
    }
}

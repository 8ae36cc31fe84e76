//! Origins at addresses, asked without a tunnel: what an edge does with the members of pools that have one.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use lru::LruCache;
use tokio::net::TcpStream;
use wire::{Body, Interim, Kind, OriginError, OriginFault};

use super::connect::Dial;
use super::error::ConnectFailure;
use super::tls::{EdgeAuthority, Trust};
use super::web::HttpOrigin;
use crate::ingress::{OriginOptions, Service};
use crate::proxy::Proxies;

/// Says which addresses may be asked: who may name an origin is not to reach what only the edge can.
pub type Permits = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Origins that are remembered, with the connections that wait at each. One that is forgotten is made anew when it is asked.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Of a connection, and of a TLS handshake: another member is soon asked in place of one that does not answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Of the connections that wait at one origin.
const WAITING: usize = 100;

/// All origins that are asked without a tunnel.
pub struct Directs {
    permits: Permits,
    authority: EdgeAuthority,
    known: Mutex<Known>,
}

struct Known {
    trust: Trust,
    origins: LruCache<Place, Arc<HttpOrigin>>,
}

/// Where an origin is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whether over TLS.
    pub security: Security,
    /// An address or a name; without a port that of the protocol.
    pub authority: Authority,
}

/// How an origin is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Without TLS.
    Plain,
    /// Over TLS, whatever certificate it has.
    Unverified,
    /// Over TLS, with a certificate for the host that it is asked for.
    Verified,
}

impl Directs {
    /// None is connected yet.
    pub fn new(permits: Permits) -> Self {
        let authority = EdgeAuthority::default();
        let known = Known { trust: Trust::new(authority.clone()), origins: LruCache::new(REMEMBERED) };
        Self { permits, authority, known: Mutex::new(known) }
    }

    /// Trusts the edge's own authority for origins, this PEM text, beside the system's. What it knows already costs next to nothing.
    ///
    /// # Errors
    /// The text holds no certificate that can be used.
    pub fn trust(&self, authority: &str) -> Result<(), String> {
        self.authority.learn(authority).map(|_| ())
    }

    /// Gets the answer to one request. The origin sees the host in the request's URI. Dropping the future, or the answer's body,
    /// cancels the request.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn exchange(
        &self,
        place: &Place,
        kind: Kind,
        mut request: Request<Body>,
        interim: Interim,
    ) -> Result<Response<Body>, OriginError> {
        let origin = self.origin(place)?;
        let answer = match kind {
            Kind::Http => origin.exchange(&mut request, interim).await,
            Kind::WebSocket => Box::pin(origin.websocket(&mut request, interim)).await,
        };
        answer.map(|answer| answer.map(Body::wrap))
    }

    /// Connects to an origin without a word.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, OriginError> {
        let dial = Dial::new(&options(Security::Plain)).only(Some(Arc::clone(&self.permits)));
        dial.host(host, port, None).await.map_err(|ConnectFailure(error)| error)
    }

    /// The addresses of an origin, as far as they may be asked.
    ///
    /// # Errors
    /// There are none.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, OriginError> {
        let dial = Dial::new(&options(Security::Plain)).only(Some(Arc::clone(&self.permits)));
        dial.resolve(host).await.map_err(|ConnectFailure(error)| error)
    }

    fn origin(&self, place: &Place) -> Result<Arc<HttpOrigin>, OriginError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { trust, origins } = &mut *known;
        if let Some(origin) = origins.get(place) {
            return Ok(Arc::clone(origin));
        }
        let service = Service::Http { tls: place.security != Security::Plain, authority: place.authority.clone() };
        let options = options(place.security);
        let origin = HttpOrigin::prepare(&service, &options, trust, &Proxies::default(), Some(&self.permits))
            .map_err(|error| OriginError::new(OriginFault::Unsupported, error.to_string()))?;
        let origin = Arc::new(origin);
        origins.put(place.clone(), Arc::clone(&origin));
        Ok(origin)
    }
}

fn options(security: Security) -> OriginOptions {
    OriginOptions {
        connect_timeout: CONNECT,
        tls_timeout: CONNECT,
        keep_alive_connections: WAITING,
        // One address may serve many names, each with a certificate of its own.
        match_sni_to_host: true,
        no_tls_verify: security != Security::Verified,
        ..OriginOptions::default()
    }
}

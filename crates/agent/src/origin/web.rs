//! Origins that speak HTTP: what they see of a request, over which kind of connection it goes, and when it goes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;
use tokio::task::coop;
use wire::{Body, Interim, OriginError, OriginFault};

use super::connect::{Connector, Reused};
use super::direct::Permits;
use super::http1::{MAX_FIELDS, MAX_HEAD};
use super::pool::{Failure, Pool, Upgraded};
use super::tls::Trust;
use super::{AnswerBody, PrepareError, error, host_of, websocket};
use crate::ingress::{OriginOptions, Service};
use crate::proxy::Proxies;

/// Interim answers to one request; no origin has a use for so many, and they could go on for ever.
const MAX_INTERIM: usize = 100;
/// The largest body that is collected to learn its length, for origins that take no chunked bodies.
const MAX_COLLECTED: usize = 1 << 20;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

type Http2 = Client<Connector, Body>;

/// An origin that speaks HTTP.
pub(crate) struct HttpOrigin {
    /// WebSockets begin here too, since HTTP/2 knows no upgrade.
    http1: Arc<Pool>,
    /// gRPC exists over HTTP/2 only: offered to a TLS origin, with prior knowledge to any other.
    http2: Http2,
    /// `http2Origin`: offered for whatever is no WebSocket.
    prefers_http2: bool,
    /// `matchSNItoHost`: the visitor's host is the name in the TLS handshake, and so chooses the connection.
    by_sni: bool,
    scheme: Scheme,
    authority: Authority,
    host_header: Option<HeaderValue>,
    collect_bodies: bool,
}

impl HttpOrigin {
    pub(super) fn prepare(
        service: &Service,
        options: &OriginOptions,
        trust: &mut Trust,
        proxies: &Proxies,
        permits: Option<&Permits>,
    ) -> Result<Self, PrepareError> {
        let (tls, authority) = match service {
            Service::Http { tls, authority } => (*tls, authority.clone()),
            // What a request to a Unix socket names as its authority is never looked up.
            Service::Unix { tls, .. } => (*tls, Authority::from_static("localhost")),
            other => return Err(PrepareError::NotHttp(other.to_string())),
        };
        let mut connector = |http2| Connector::prepare(service, options, http2, trust, proxies, permits);
        let http1 = connector(false)?;
        let http2 = if tls { connector(true)? } else { http1.clone() };
        let host_header = options.http_host_header.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Self {
            http1: Pool::new(http1, options.keep_alive_connections, options.keep_alive_timeout),
            http2: client(options, permits.is_none()).http2_only(!tls).build(http2),
            prefers_http2: tls && options.http2_origin,
            by_sni: tls && options.match_sni_to_host,
            scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            host_header: host_header.map_err(|_| PrepareError::HostHeader)?,
            collect_bodies: options.disable_chunked_encoding,
        })
    }

    pub(super) async fn exchange(
        &self,
        request: &mut Request<Body>,
        interim: Interim,
    ) -> Result<Response<AnswerBody>, OriginError> {
        if request.method() == Method::CONNECT {
            return Err(OriginError::new(OriginFault::Unsupported, "an origin is no proxy: CONNECT is not passed on"));
        }
        let http2 = self.prefers_http2 || is_grpc(request.headers());
        let authority = self.prepare_head(request, http2 || self.by_sni)?;
        if self.collect_bodies && request.body().size_hint().exact().is_none() && !has_length(request.headers()) {
            *request.body_mut() = Box::pin(collected(std::mem::take(request.body_mut()))).await?;
        }
        // A connection may end just as a request goes out on it. Like the reference, a request that may be repeated and
        // has no body is then sent once more.
        let repeatable = repeatable(request);
        // What is rare in here is boxed, because each request would have to hold the room for it.
        let outcome = if http2 {
            Box::pin(self.over_http2(authority, std::mem::take(request), interim, repeatable)).await
        } else {
            match self.http1.exchange(&authority, request, &interim).await {
                Err(Failure { stale: true, .. }) if repeatable => {
                    Box::pin(self.http1.exchange(&authority, request, &interim)).await
                }
                outcome => outcome,
            }
        };
        outcome.map_err(|failure| failure.error)
    }

    async fn over_http2(
        &self,
        authority: Authority,
        mut request: Request<Body>,
        interim: Interim,
        repeatable: bool,
    ) -> Result<Response<AnswerBody>, Failure> {
        *request.uri_mut() = self.absolute(authority, request.uri())?;
        let again = repeatable.then(|| copy_of_head(&request));
        let flood = Flood::watch(&mut request, interim.clone());
        let response = match (flood.unless(send(&self.http2, request)).await, again) {
            (Err(Failure { stale: true, .. }), Some(mut again)) => {
                let flood = Flood::watch(&mut again, interim);
                flood.unless(send(&self.http2, again)).await?
            }
            (outcome, _) => outcome?,
        };
        // A TLS origin may have chosen HTTP/1.1.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(error::switched().into());
        }
        Ok(response.map(AnswerBody::Http2))
    }

    pub(super) async fn websocket(
        &self,
        request: &mut Request<Body>,
        interim: Interim,
    ) -> Result<Response<AnswerBody>, OriginError> {
        let authority = self.prepare_head(request, self.by_sni)?;
        let from_visitor = std::mem::take(request.body_mut());
        websocket::complete_request(request);
        let upgraded = self.http1.upgrade(authority.host(), request, &interim).await;
        Ok(match upgraded.map_err(|failure| failure.error)? {
            Upgraded::Accepted(response, io, said) => {
                response.map(|()| AnswerBody::Own(websocket::join(io, said, from_visitor)))
            }
            Upgraded::Refused(response) => response,
        })
    }

    /// Makes of the head what the origin is to see but for what depends on the request's kind; answers the host whose
    /// connection it takes: the visitor's (`by_host`), or always the same.
    fn prepare_head(&self, request: &mut Request<Body>, by_host: bool) -> Result<Authority, OriginError> {
        let host = host_of(request.uri(), request.headers()).map(str::as_bytes);
        let mut hosts = request.headers().get_all(HOST).iter();
        let other = hosts.next().map(HeaderValue::as_bytes) != host || hosts.next().is_some();
        let host = host.filter(|_| other).and_then(|host| HeaderValue::from_bytes(host).ok());
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        if other {
            headers.remove(HOST);
            headers.extend(host.map(|host| (HOST, host)));
        }
        if let Some(header) = &self.host_header
            && let Some(host) = headers.insert(HOST, header.clone())
        {
            headers.insert(FORWARDED_HOST, host);
        }
        let authority = headers
            .get(HOST)
            .filter(|_| by_host)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok())
            .unwrap_or_else(|| self.authority.clone());
        if !headers.contains_key(HOST) {
            headers.extend(HeaderValue::from_str(authority.as_str()).ok().map(|host| (HOST, host)));
        }
        strip(headers);
        one_length(headers)?;
        Ok(authority)
    }

    fn absolute(&self, authority: Authority, path: &Uri) -> Result<Uri, OriginError> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(authority);
        uri.path_and_query = path.path_and_query().cloned();
        Uri::from_parts(uri).map_err(|error| {
            OriginError::new(OriginFault::Unknown, format!("the request's URL cannot be used: {error}"))
        })
    }
}

/// An origin that never comes to its answer, over HTTP/2.
struct Flood(Arc<Notify>);

impl Flood {
    /// Passes on what the origin says before its answer to this request.
    fn watch(request: &mut Request<Body>, interim: Interim) -> Self {
        let stop = Arc::new(Notify::new());
        let (stopped, count) = (Arc::clone(&stop), AtomicUsize::new(0));
        hyper::ext::on_informational(request, move |answer| {
            if interim.is_wanted() {
                interim.send(answer.status(), answer.headers().clone());
            }
            if count.fetch_add(1, Ordering::Relaxed) >= MAX_INTERIM {
                stopped.notify_one();
                give_way();
            }
        });
        Self(stop)
    }

    async fn unless<T>(self, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.0.notified() => Err(error::flood().into()),
        }
    }
}

async fn send(client: &Http2, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
    match client.request(request).await {
        Ok(response) => {
            if let Some(reused) = response.extensions().get::<Reused>() {
                reused.0.store(true, Ordering::Relaxed);
            }
            Ok(response)
        }
        Err(error) => {
            let reused = error.connect_info().is_some_and(|info| {
                let mut extensions = http::Extensions::new();
                info.get_extras(&mut extensions);
                extensions.get::<Reused>().is_some_and(|reused| reused.0.load(Ordering::Relaxed))
            });
            let error = error::from_client(&error);
            Err(Failure { stale: reused && error.fault == OriginFault::Closed, error })
        }
    }
}

/// The library parses interim answers for as long as the origin's bytes keep coming. Without budget its next read ends
/// its turn, and it sees that nobody waits for the answer any more.
fn give_way() {
    // More than the budget of any turn; who has no budget at all is never to wait.
    const TURN: usize = 256;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..TURN {
        match coop::poll_proceed(&mut context) {
            Poll::Ready(turn) => turn.made_progress(),
            Poll::Pending => return,
        }
    }
}

/// For HTTP/2, which multiplexes; a TLS origin may choose HTTP/1.1 nevertheless.
/// Where visitors choose the hosts, and every host has connections of its own, none of these waits for the next request
/// (`keeps_idle`): there would be no end of them.
fn client(options: &OriginOptions, keeps_idle: bool) -> Builder {
    let most_idle = if keeps_idle { options.keep_alive_connections } else { 0 };
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(most_idle)
        // Zero is no limit, as in the reference.
        .pool_idle_timeout(Some(options.keep_alive_timeout).filter(|age| !age.is_zero()))
        .http1_title_case_headers(true)
        .http1_max_headers(MAX_FIELDS)
        .http1_max_buf_size(MAX_HEAD)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http2_max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    builder
}

/// gRPC proper; gRPC-Web is made for HTTP/1.1 and goes as any other request.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Takes out hop-by-hop headers, which an edge has removed: what a broken one left must not reach the origin's parser. And
/// `expect`, which is the agent's: the body is asked for when the origin's connection takes it (section 5.1).
fn strip(headers: &mut HeaderMap) {
    let unwanted = |name: &HeaderName| match *name {
        CONNECTION | EXPECT | TRANSFER_ENCODING | UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    };
    // The common case has none and allocates nothing.
    while let Some(name) = headers.keys().find(|name| unwanted(name)).cloned() {
        headers.remove(name);
    }
}

/// Leaves one `content-length` at most. Different ones, and what is no number, are how requests are smuggled.
fn one_length(headers: &mut HeaderMap) -> Result<(), OriginError> {
    let Some(length) = headers.get(CONTENT_LENGTH).cloned() else { return Ok(()) };
    let digits = length.as_bytes().iter().all(u8::is_ascii_digit) && !length.is_empty();
    if !digits || headers.get_all(CONTENT_LENGTH).iter().any(|other| other != length) {
        return Err(OriginError::new(OriginFault::Unknown, "the request's content-length is no single number"));
    }
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        headers.insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

fn has_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH)
}

/// Reads a whole body to learn its length.
async fn collected(body: Body) -> Result<Body, OriginError> {
    let collected = Limited::new(body, MAX_COLLECTED).collect().await.map_err(|error| {
        let text = format!(
            "disableChunkedEncoding needs the body's length, and the visitor sent a body of unknown length that is \
             above {MAX_COLLECTED} bytes or ended early: {error}"
        );
        OriginError::new(OriginFault::Unsupported, text)
    })?;
    Ok(Body::full(collected.to_bytes()))
}

/// Sending it twice does what sending it once does (RFC 9110 section 9.2.2), and there is no body to send again.
fn repeatable(request: &Request<Body>) -> bool {
    let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        || request.headers().contains_key("idempotency-key");
    idempotent && request.body().is_end_stream()
}

fn copy_of_head(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_could_smuggle_are_refused() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(value));
            }
            one_length(&mut headers).map(|()| headers.get_all(CONTENT_LENGTH).iter().count()).ok()
        };
        assert_eq!(with(&[]), Some(0));
        assert_eq!(with(&["5"]), Some(1));
        assert_eq!(with(&["5", "5"]), Some(1));
        for refused in [&["5", "6"][..], &["+5"], &["5, 5"], &[""], &["0x5"], &["-1"]] {
            assert_eq!(with(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn grpc_is_told_from_what_resembles_it() {
        let is = |kind: &'static str| is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc; x=y"));
        assert!(!is("application/grpc-web") && !is("application/grpc-web+proto") && !is("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}

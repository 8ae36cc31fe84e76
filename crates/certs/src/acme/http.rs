//! HTTP to an authority: a connection for each request, since an order has a dozen of them and takes seconds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// From the look-up of the name to the last byte.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// A chain of certificates is the largest answer, and 5 kB.
const LARGEST_ANSWER: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct Http {
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = Arc::clone(&self.tls);
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let answer = tokio::time::timeout(TIME_LIMIT, send(tls, request)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", TIME_LIMIT.as_secs()).into()));
            let (parts, body) = answer.map_err(|error| Error::Other(format!("{host}: {error}").into()))?.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

async fn send(tls: Arc<ClientConfig>, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, Problem> {
    let uri = request.uri();
    if uri.scheme_str() != Some("https") {
        return Err(format!("{uri} is no https URL").into());
    }
    let authority = uri.authority().ok_or("a URL without a host")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let tcp = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from(host)?, tcp).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(in_origin_form(request, authority.as_str())?).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // What came before the connection's end may be the whole answer.
        _ = connection => exchange.await,
    }
}

/// A request as a server, and not a proxy, wants it.
fn in_origin_form(
    mut request: Request<BodyWrapper<Bytes>>,
    authority: &str,
) -> Result<Request<BodyWrapper<Bytes>>, Problem> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    request.headers_mut().insert(header::HOST, HeaderValue::try_from(authority)?);
    *request.uri_mut() = Uri::from(path);
    Ok(request)
}

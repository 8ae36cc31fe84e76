//! What an authority asks by HTTP before it signs a certificate (RFC 8555 section 8.3). Any node answers, whichever ordered it.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use registry::Snapshot;
use wire::Body;

use crate::host::Host;

const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The answer, if the edge has asked for it. Everything else below the path is the origin's, which may order certificates of
/// its own.
pub(super) fn answer(snapshot: &Snapshot, host: &Host, request: &Request<Body>) -> Option<Response<Body>> {
    let token = request.uri().path().strip_prefix(WELL_KNOWN)?;
    let order = snapshot.acme_order(host.name())?;
    let answer = order.answer.as_ref().filter(|answer| *answer.token == *token)?;
    let text = Bytes::from(answer.key_authorization.to_string());
    let length = text.len().into();
    let body = if request.method() == Method::HEAD { Body::empty() } else { Body::full(text) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

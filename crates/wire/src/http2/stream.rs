//! The agent's end of a byte stream over HTTP/2 (section 5.5).

use ::http2::Accepted;
use http::{HeaderValue, Response};

use super::agent::{fail, marked};
use super::duplex::Duplex;
use crate::byte_stream::{marks_service, stream_flow};
use crate::connect::HeadError;
use crate::header::{self, ResponseMeta};
use crate::service;
use crate::{ByteStream, Destination, Handler, OriginError, OriginFault, StreamRefusal, StreamRequest};

/// Serves a byte stream to its end.
pub(super) async fn serve<H: Handler>(handler: &H, Accepted { head, send: mut respond, recv }: Accepted) {
    let (head, ()) = head.into_parts();
    let extensions = marked(&head.headers);
    let service = head.headers.get(header::EXTENSIONS).is_some_and(|mark| marks_service(mark.as_bytes()));
    let flow = head.headers.get(header::RAY).map(|ray| stream_flow(ray.as_bytes())).unwrap_or_default();
    let destination = head.uri.authority().and_then(|authority| Destination::parse(authority.as_str(), service));
    let Some(destination) = destination else {
        let fault = OriginError::new(OriginFault::Unsupported, HeadError::Destination.to_string());
        return fail(respond, &ResponseMeta::Fault(fault), extensions);
    };
    let origin = match service::connect(handler, StreamRequest { destination, flow }, &mut respond).await {
        None => return,
        Some(Ok(origin)) => origin,
        Some(Err(StreamRefusal::Origin(fault))) => return fail(respond, &ResponseMeta::Fault(fault), extensions),
        Some(Err(StreamRefusal::TooMany(_))) => return fail(respond, &ResponseMeta::FlowLimited, extensions),
    };
    let mut head = Response::new(());
    head.headers_mut().insert(header::RESPONSE_HEADERS, HeaderValue::from_static(""));
    head.headers_mut().insert(header::RESPONSE_META, ResponseMeta::Origin.to_value(extensions));
    // An error means that the edge has cancelled the stream.
    if respond.answer(&head, false).is_ok() {
        service::relay(ByteStream::http2(Duplex::new(respond, recv), None), origin).await;
    }
}

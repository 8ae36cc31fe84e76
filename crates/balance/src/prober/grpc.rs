//! Questions by gRPC's own protocol for health (grpc.health.v1).

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::BodyExt as _;
use prost::Message;
use registry::{MonitorTerms, MonitorType};

use super::Asker;
use super::question::{Answer, Problem, Subject};
use super::web::{Door, exchange, url_of};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// A flag and a length go before each message.
const FRAME: usize = 5;

#[derive(Clone, PartialEq, Eq, Message)]
struct Check {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Checked {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

pub(super) async fn ask(asker: &Asker, subject: &Subject, monitor: &MonitorTerms) -> Answer {
    let scheme = if monitor.kind == MonitorType::Grpcs { "https" } else { "http" };
    let url = url_of(scheme, subject, monitor, METHOD)?;
    let mut request = Request::new(framed(&Check { service: monitor.path.to_string() }));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.as_str().parse().map_err(|problem| format!("{url} is no URI: {problem}"))?;
    let headers = [(header::CONTENT_TYPE, "application/grpc"), (header::TE, "trailers")];
    request.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    let door = Door { target: &subject.target, url: &url, is_http2: true, is_insecure: monitor.allow_insecure };
    let exchange = exchange(asker, &door, request).await?;
    let (head, body) = exchange.response.into_parts();
    let status = head.status.as_u16();
    let fault = |reason: String| Problem { code: Some(status), ..reason.into() };
    if status != 200 {
        return Err(fault(format!("HTTP {status} instead of gRPC")));
    }
    let body = body.collect().await.map_err(|problem| fault(format!("the answer broke off: {problem}")))?;
    // Without a message the status is in the header.
    let code = grpc_status(&head.headers).or_else(|| grpc_status(body.trailers()?));
    if code != Some(0) {
        let code = code.map_or_else(|| "no".to_owned(), |code| code.to_string());
        return Err(fault(format!("gRPC status {code} instead of 0")));
    }
    let body = body.to_bytes();
    let message = body.get(FRAME..).filter(|_| body[0] == 0);
    let checked = message.and_then(|message| Checked::decode(message).ok());
    match checked {
        Some(Checked { status: SERVING }) => Ok(Some(status)),
        Some(Checked { status: other }) => Err(fault(format!("it says that it is not serving ({other})"))),
        None => Err(fault("its answer is no message of grpc.health.v1".to_owned())),
    }
}

fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME + message.encoded_len());
    frame.put_u8(0);
    // A service's name is far from 4 GiB.
    frame.put_u32(message.encoded_len() as u32);
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

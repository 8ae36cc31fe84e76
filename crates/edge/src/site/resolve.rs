//! Questions of DNS over HTTPS (RFC 8484), at the edge's own domain. They are read here; who answers them is handed in.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use registry::Hostname;
use tokio::time::timeout;
use wire::Body;

/// Where they are asked.
pub(super) const PATH: &str = "/dns-query";
/// What they are, and answers.
const MESSAGE: &str = "application/dns-message";
/// No message is longer.
const LARGEST: usize = u16::MAX as usize;
/// From the head to the last byte, as over TCP.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers questions of DNS, and at which name.
pub(crate) struct Questions {
    pub(crate) domain: Hostname,
    pub(crate) answer: AnswerDns,
}

/// Answers a question of DNS from this address; `None`: it is none. Never waits.
pub type AnswerDns = Box<dyn Fn(&[u8], IpAddr) -> Option<DnsAnswer> + Send + Sync>;

/// An answer of DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsAnswer {
    /// As DNS has it.
    pub message: Vec<u8>,
    /// For so many seconds it may be kept.
    pub seconds: u32,
}

impl Questions {
    /// Answers a request at [`PATH`].
    pub(super) async fn answer(&self, request: Request<Body>, from: IpAddr) -> Response<Body> {
        let is_head = *request.method() == Method::HEAD;
        let question = match read(request).await {
            Ok(question) => question,
            Err((status, why)) => return told(status, why),
        };
        let Some(DnsAnswer { message, seconds }) = (self.answer)(&question, from.to_canonical()) else {
            return told(StatusCode::BAD_REQUEST, "This is no question of DNS.\n");
        };
        let length = message.len().into();
        let mut answer = Response::new(if is_head { Body::empty() } else { Body::full(Bytes::from(message)) });
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
        fields.insert(header::CONTENT_LENGTH, length);
        let age = HeaderValue::try_from(format!("max-age={seconds}")).expect("letters and digits");
        fields.insert(header::CACHE_CONTROL, age);
        answer
    }
}

async fn read(request: Request<Body>) -> Result<Bytes, (StatusCode, &'static str)> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let query = request.uri().query().unwrap_or_default().as_bytes();
            let mut members = url::form_urlencoded::parse(query);
            let given = members.find_map(|(name, value)| (name == "dns").then_some(value));
            let given = given.ok_or((StatusCode::BAD_REQUEST, "The parameter dns is missing.\n"))?;
            let bytes = URL_SAFE_NO_PAD.decode(given.as_bytes());
            let bytes = bytes.map_err(|_| (StatusCode::BAD_REQUEST, "dns is no base64url without padding.\n"))?;
            Ok(bytes.into())
        }
        Method::POST => {
            let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            if !kind.eq_ignore_ascii_case(MESSAGE.as_bytes()) {
                return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/dns-message is wanted.\n"));
            }
            match timeout(PATIENCE, Limited::new(request.into_body(), LARGEST).collect()).await {
                Ok(Ok(body)) => Ok(body.to_bytes()),
                Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                    Err((StatusCode::PAYLOAD_TOO_LARGE, "No question of DNS has more than 65,535 bytes.\n"))
                }
                Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "The body has broken off.\n")),
                Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "The body took longer than 5 s.\n")),
            }
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "GET and POST are answered.\n")),
    }
}

fn told(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::full(Bytes::from_static(why.as_bytes())));
    *answer.status_mut() = status;
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    fields.insert(header::CONTENT_LENGTH, why.len().into());
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    answer
}

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use wire::{Body, OriginError, OriginFault};

use super::observed::Record;
use crate::access::Refusal;
use crate::origin::AnswerBody;

/// The answer to who may not pass. That keys cannot be had is not the visitor's fault, and no answer of the rule.
pub(super) fn refused(method: &Method, refusal: Refusal, mut record: Record) -> Result<Response<Body>, OriginError> {
    match refusal {
        Refusal::Denied(denial) => {
            tracing::debug!(%denial, "a request was refused");
            let body = if method == Method::HEAD { Body::empty() } else { Body::full(format!("403: {denial}\n")) };
            let mut response = Response::new(AnswerBody::Own(body));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            Ok(record.observe(response))
        }
        Refusal::NoKeys(issuer) => {
            let text = format!("the keys of {issuer}, which vouches for visitors, cannot be had");
            let error = OriginError::new(OriginFault::Unknown, text);
            record.failed(&error);
            Err(error)
        }
    }
}

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use wire::Body;

use super::Refusal;

/// The statuses of gRPC that refusals have.
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// A call of gRPC, whose caller reads no page but `grpc-status`.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"application/grpc"))
}

/// The refusal as an answer that consists of its end only ("Trailers-Only").
pub(super) fn answer(refusal: &Refusal, ray: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(status(refusal))));
    if let Ok(ray) = HeaderValue::from_str(ray) {
        headers.insert(HeaderName::from_static("cf-ray"), ray);
    }
    let message = format!("{} (status {}, code {}, ray {ray})", refusal.title, refusal.status, refusal.code);
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    answer
}

fn status(refusal: &Refusal) -> u8 {
    match refusal.status {
        403 => PERMISSION_DENIED,
        408 | 524 => DEADLINE_EXCEEDED,
        500.. => UNAVAILABLE,
        _ => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ALL, NO_CONNECTION, ORIGIN_TIMEOUT};
    use super::*;

    #[test]
    fn a_caller_learns_what_happened() {
        let answer = answer(&NO_CONNECTION, "00ff-LAB01");
        assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &HeaderValue::from(14)));
        let message = "Tunnel is not connected (status 530, code 1033, ray 00ff-LAB01)";
        assert_eq!(answer.headers()["grpc-message"], message);
        assert_eq!(answer.headers()["cf-ray"], "00ff-LAB01");
        assert_eq!(status(&ORIGIN_TIMEOUT), DEADLINE_EXCEEDED);
    }

    #[test]
    fn every_title_can_be_a_message() {
        // What is not printable ASCII, and the percent sign, would have to be coded.
        assert!(
            ALL.iter().all(|refusal| refusal.title.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%'))
        );
    }

    #[test]
    fn calls_are_told_by_their_type() {
        let with = |value| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
        assert!(is_call(&with("application/grpc+proto")));
        assert!(!is_call(&with("application/json")));
        assert!(!is_call(&HeaderMap::new()));
    }
}

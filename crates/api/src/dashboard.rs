//! The page that people see who open the API's address in a browser: nodes, tunnels, pools, certificates, zones and the audit log; the
//! records of a zone can be changed there. It is one file without any other, and knows and does no more than the API lets whoever shows
//! a token.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};

use crate::error::ApiError;

const PAGE: &str = include_str!("dashboard/page.html");
/// What its script has of pools and of records, and where.
const PARTS: &str = "{{parts}}";
const POOLS: &str = include_str!("dashboard/pools.js");
const RECORDS: &str = include_str!("dashboard/records.js");
/// Where the page has the nonce of its script and its style.
const NONCE: &str = "{{nonce}}";

/// What every answer with the page says beside its policy: no other page frames it, opens it or learns of it.
const HEADERS: [(&str, &str); 4] = [
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The page for those who ask for one. To programs there is nothing at this path, as with the original API.
pub(crate) async fn show(headers: HeaderMap) -> Response {
    if !wants_page(&headers) {
        return ApiError::no_path().into_response();
    }
    let nonce = format!("{:032x}", rand::random::<u128>());
    let mut response = Html(page().replace(NONCE, &nonce)).into_response();
    let policy = HeaderValue::try_from(policy(&nonce)).expect("the policy is plain ASCII");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
        .headers_mut()
        .extend(HEADERS.map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))));
    response
}

fn page() -> String {
    PAGE.replace(PARTS, &format!("{POOLS}\n{RECORDS}"))
}

/// Whether `Accept` names pages. `*/*` does not: programs send it.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// The page runs its own script, asks the address that it comes from, and does nothing else; no text becomes markup.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_from_programs() {
        let wanted = |accept: &str| wants_page(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        assert!(wanted("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(wanted("application/json, Text/HTML;q=0.1"));
        for accept in ["*/*", "application/json;version=1", "text/htmlx", "", "text/plain"] {
            assert!(!wanted(accept), "{accept}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn the_page_is_whole_and_alone() {
        let page = page();
        assert_eq!(page.matches(NONCE).count(), 2, "one style and one script");
        assert_eq!((page.matches("<style").count(), page.matches("<script").count()), (1, 1));
        for outside in
            ["http://", "https://", "src=", "@import", "url(", "innerHTML", "style=", " onclick", "localStorage"]
        {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

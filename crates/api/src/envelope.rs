use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::error::ApiError;
use crate::query::Page;

pub(crate) type Answer = Result<Response, ApiError>;

/// Success, as section 2 of the API page has it: always 200.
pub(crate) fn success(result: impl Serialize) -> Response {
    Json(json!({ "success": true, "errors": [], "messages": [], "result": result })).into_response()
}

/// One page of a list. A page past the end is empty.
pub(crate) fn page<T, R: Serialize>(items: &[T], page: Page, show: impl Fn(&T) -> R) -> Response {
    let total = items.len();
    let start = page.number.saturating_sub(1).saturating_mul(page.size).min(total);
    let result: Vec<R> = items[start..total.min(start.saturating_add(page.size))].iter().map(show).collect();
    let info = json!({
        "page": page.number,
        "per_page": page.size,
        "count": result.len(),
        "total_count": total,
        "total_pages": total.div_ceil(page.size).max(1),
    });
    let body = json!({ "success": true, "errors": [], "messages": [], "result": result, "result_info": info });
    Json(body).into_response()
}

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::ApiError;
use crate::query::Page;

pub(crate) type Answer = Result<Response, ApiError>;

/// Success, as section 2 of the API page has it.
#[derive(Serialize)]
struct Success<R> {
    success: bool,
    errors: [(); 0],
    messages: [(); 0],
    result: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<ListInfo>,
}

/// Which part of a list the result is.
#[derive(Serialize)]
#[serde(untagged)]
enum ListInfo {
    Page(PageInfo),
    Stretch(StretchInfo),
}

/// Which part of a list that is read on from where the last part ended.
#[derive(Serialize)]
struct StretchInfo {
    count: usize,
    per_page: usize,
    /// Where to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Which page of a list the result is.
#[derive(Serialize)]
struct PageInfo {
    page: usize,
    per_page: usize,
    count: usize,
    total_count: usize,
    total_pages: usize,
}

/// Success: always 200.
pub(crate) fn success(result: impl Serialize) -> Response {
    answer(result, None)
}

/// One page of a list. A page past the end is empty.
pub(crate) fn page<T, R: Serialize>(items: &[T], page: Page, show: impl Fn(&T) -> R) -> Response {
    let result = items.iter().skip(page.start()).take(page.size).map(show).collect();
    part(result, page, items.len())
}

/// What one page of a list of so many items has on it.
pub(crate) fn part<R: Serialize>(result: Vec<R>, page: Page, total: usize) -> Response {
    let count = result.len();
    success_of_part(result, page, count, total)
}

/// The same for so many things that are wrapped in something.
pub(crate) fn success_of_part(result: impl Serialize, page: Page, count: usize, total: usize) -> Response {
    let info = PageInfo {
        page: page.number,
        per_page: page.size,
        count,
        total_count: total,
        total_pages: total.div_ceil(page.size).max(1),
    };
    answer(result, Some(ListInfo::Page(info)))
}

/// A part of a list with so many items at most, and where to go on after it.
pub(crate) fn stretch(result: Vec<serde_json::Value>, per_page: usize, cursor: Option<String>) -> Response {
    let info = StretchInfo { count: result.len(), per_page, cursor };
    answer(result, Some(ListInfo::Stretch(info)))
}

fn answer(result: impl Serialize, result_info: Option<ListInfo>) -> Response {
    Json(Success { success: true, errors: [], messages: [], result, result_info }).into_response()
}

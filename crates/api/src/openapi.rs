//! The description of the API (OpenAPI 3.1), made of what makes the router: a route comes into being as an
//! [`Operation`], which holds its handler and says what it takes and answers, so that there is no route without a
//! description, and no description without a route.

mod document;
mod operation;
pub(crate) mod schema;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;

pub(crate) use document::{Guard, Part};
pub(crate) use operation::{About, Operation, Routes, delete, elsewhere, get, patch, post, put};

/// The document, once somebody has asked for it.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document::write(crate::router::parts()).to_string().into());

/// It is another one only with another version of the program.
const KEPT: &str = "public, max-age=300";

/// Answers the document. Needs no credentials: it says nothing about this edge.
pub(crate) async fn show() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, KEPT)];
    (headers, DOCUMENT.clone()).into_response()
}

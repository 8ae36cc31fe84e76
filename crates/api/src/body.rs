mod objects;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

pub(crate) use objects::Objects;

/// Most bodies are a few hundred bytes.
pub(crate) const SMALL: usize = 1 << 20;
/// A configuration may have thousands of rules.
pub(crate) const LARGE: usize = 10 << 20;
/// A body that takes longer than this is not going to come.
const TIME: Duration = Duration::from_secs(30);

/// Reads a JSON body of at most this many bytes. Its content type does not matter, and an empty one is `{}`.
pub(crate) async fn json<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, ApiError> {
    let bytes = bytes(body, limit).await?;
    let text = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes[..] };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(Objects(&mut deserializer)).map_err(ApiError::malformed_body)?;
    deserializer.end().map_err(ApiError::malformed_body)?;
    Ok(value)
}

/// Reads a body of at most this many bytes.
pub(crate) async fn bytes(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(TIME, Limited::new(body, limit).collect()).await;
    match collected.map_err(|_| ApiError::too_slow())? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Err(_) => Err(ApiError::malformed_body("it ended early")),
    }
}

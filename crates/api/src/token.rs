use axum::Extension;
use jiff::Timestamp;
use registry::TokenStatus;
use serde_json::json;

use crate::credential::Credential;
use crate::envelope::{Answer, success};

pub(crate) async fn verify(Extension(Credential(token)): Extension<Credential>) -> Answer {
    let status = match token.status(Timestamp::now()) {
        TokenStatus::Active => "active",
        TokenStatus::Disabled => "disabled",
        TokenStatus::Expired => "expired",
    };
    let mut result = json!({ "id": token.id, "status": status });
    if let Some(end) = token.expires_at {
        result["expires_on"] = json!(end);
    }
    Ok(success(result))
}

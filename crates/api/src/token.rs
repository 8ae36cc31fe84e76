use axum::Extension;
use serde_json::json;

use crate::credential::Credential;
use crate::envelope::{Answer, success};

/// Only a token that may be used comes as far as this.
pub(crate) async fn verify(Extension(Credential(token)): Extension<Credential>) -> Answer {
    let mut result = json!({ "id": token.id, "status": "active" });
    if let Some(end) = token.expires_at {
        result["expires_on"] = json!(end);
    }
    Ok(success(result))
}

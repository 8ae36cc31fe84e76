use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use registry::{
    AccessError, CommitError, ConfigurationError, DeleteTunnelError, EngineError, PassthroughError, PortError,
    QuickTunnelError, RouteError, TunnelError,
};
use serde_json::json;

/// A failure in the words of section 3 of the API page.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: u32,
    message: String,
    /// The first cause, as code and text.
    cause: Option<(u32, &'static str)>,
    retry_after: Option<Duration>,
}

// Codes that clients look at or that people know from the original; the rest are ours.
const MALFORMED_AUTHORIZATION: u32 = 6003;
const AUTHORIZATION_FORMAT: u32 = 6111;
const MALFORMED_BODY: u32 = 6007;
const NO_CREDENTIALS: u32 = 9106;
const UNKNOWN_KEY: u32 = 9103;
const INVALID_TOKEN: u32 = 9109;
const VERIFY_INVALID_TOKEN: u32 = 1000;
const NOT_ALLOWED: u32 = 10000;
const NO_PATH: u32 = 7000;
const NO_METHOD: u32 = 7001;
const NO_OBJECT: u32 = 7003;
const NAME_TAKEN: u32 = 1013;
const CONNECTED: u32 = 1022;
const NOT_VALID: u32 = 1004;
const RECORD_IN_THE_WAY: u32 = 81053;
const TOO_MANY: u32 = 971;
const MOVED_ON: u32 = 1412;
const TOO_LARGE: u32 = 1413;
const TOO_SLOW: u32 = 1408;
const ENGINE: u32 = 1503;

/// When to try again what met another change.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
/// When to try again what no etcd took: an election takes a few seconds.
const AFTER_OUTAGE: Duration = Duration::from_secs(5);
/// When to ask again whether there is room: soon for whoever waits, and seldom for an edge that is full.
const AFTER_FULL: Duration = Duration::from_secs(60);

impl ApiError {
    fn new(status: StatusCode, code: u32, message: impl Display) -> Self {
        Self { status, code, message: message.to_string(), cause: None, retry_after: None }
    }

    pub(crate) fn no_credentials() -> Self {
        let message = "No credentials: send the header Authorization: Bearer <API token>.";
        Self::new(StatusCode::BAD_REQUEST, NO_CREDENTIALS, message)
    }

    pub(crate) fn malformed_authorization() -> Self {
        let cause = (AUTHORIZATION_FORMAT, "Invalid format for Authorization header");
        Self {
            cause: Some(cause),
            ..Self::new(StatusCode::BAD_REQUEST, MALFORMED_AUTHORIZATION, "Invalid request headers")
        }
    }

    pub(crate) fn unknown_key() -> Self {
        let message = "Unknown X-Auth-Key or X-Auth-Email; the key is an API token of this edge.";
        Self::new(StatusCode::FORBIDDEN, UNKNOWN_KEY, message)
    }

    pub(crate) fn invalid_token(problem: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, INVALID_TOKEN, format!("Invalid access token: {problem}."))
    }

    pub(crate) fn verify_invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, VERIFY_INVALID_TOKEN, "Invalid API Token")
    }

    pub(crate) fn not_allowed(message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, NOT_ALLOWED, message)
    }

    pub(crate) fn no_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, NO_PATH, "No route for that URI")
    }

    pub(crate) fn no_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, NO_METHOD, "Method not allowed for that URI")
    }

    pub(crate) fn no_object(path: &str) -> Self {
        let message = format!("Could not route to {path}, perhaps your object identifier is invalid?");
        Self::new(StatusCode::NOT_FOUND, NO_OBJECT, message)
    }

    /// A value in the body or the query that will not do; the message names it and says what would be right.
    pub(crate) fn not_valid(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, NOT_VALID, message)
    }

    pub(crate) fn malformed_body(problem: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, MALFORMED_BODY, format!("The body is not as expected: {problem}"))
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {} KiB", limit / 1024);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, message)
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, TOO_SLOW, "The body did not come in time")
    }

    pub(crate) fn too_many(retry_after: Duration) -> Self {
        let message = "Too many requests; wait and try again";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    pub(crate) fn taken(message: impl Display) -> Self {
        Self::new(StatusCode::CONFLICT, NAME_TAKEN, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some((code, message)) = self.cause {
            error["error_chain"] = json!([{ "code": code, "message": message }]);
        }
        let body = json!({ "success": false, "errors": [error], "messages": [], "result": null });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        // Clients repeat on 408, 429 and every 5xx by themselves. A write that the engine did not confirm may have
        // happened, so its repetition is theirs to decide.
        let unknown_outcome = self.status.is_server_error() && self.retry_after.is_none();
        let transient = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if unknown_outcome || (self.status.is_client_error() && !transient) {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        // Where nothing was written it may be tried again.
        let retry_after = match error {
            CommitError::TooLarge { .. } => return Self::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, error),
            CommitError::Conflict { .. } => Some(AFTER_CONFLICT),
            CommitError::Engine(EngineError::Unavailable(_)) => Some(AFTER_OUTAGE),
            CommitError::Engine(_) => None,
        };
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ENGINE, error) }
    }
}

impl From<TunnelError> for ApiError {
    fn from(error: TunnelError) -> Self {
        match error {
            TunnelError::NameTaken(_) => Self::taken(error),
            TunnelError::NotFound(id) => Self::no_object(&id.to_string()),
            TunnelError::Commit(error) => error.into(),
        }
    }
}

impl From<DeleteTunnelError> for ApiError {
    fn from(error: DeleteTunnelError) -> Self {
        match error {
            DeleteTunnelError::NotFound(id) => Self::no_object(&id.to_string()),
            DeleteTunnelError::Connected(_) => Self::new(StatusCode::BAD_REQUEST, CONNECTED, error),
            DeleteTunnelError::Commit(error) => error.into(),
        }
    }
}

impl From<QuickTunnelError> for ApiError {
    fn from(error: QuickTunnelError) -> Self {
        match error {
            QuickTunnelError::Taken(_) => Self::taken(error),
            QuickTunnelError::BadName(problem) => Self::not_valid(format!("name: {problem}")),
            QuickTunnelError::NoZone(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, ENGINE, error),
            QuickTunnelError::TooMany(_) => {
                let full = Self::new(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY, error);
                Self { retry_after: Some(AFTER_FULL), ..full }
            }
            QuickTunnelError::Commit(error) => error.into(),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::OutsideZone { .. } => Self::not_valid(format!("user_hostname: {error}")),
            RouteError::NoZone(id) => Self::no_object(&id.to_string()),
            RouteError::NoTunnel(id) => Self::no_object(&id.to_string()),
            RouteError::NotFound(_) => Self::no_object(&error.to_string()),
            RouteError::Taken { .. } => Self::new(StatusCode::BAD_REQUEST, RECORD_IN_THE_WAY, error),
            RouteError::Commit(error) => error.into(),
        }
    }
}

impl From<ConfigurationError> for ApiError {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::NotFound(id) => Self::no_object(&id.to_string()),
            ConfigurationError::Moved(_) => Self::new(StatusCode::PRECONDITION_FAILED, MOVED_ON, error),
            ConfigurationError::ManagedAtEdge => Self::not_valid(error),
            ConfigurationError::Commit(error) => error.into(),
        }
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Taken(_) | PortError::ItsOwn(_) => Self::taken(error),
            PortError::NotItsPort(id) => Self::no_object(&id.to_string()),
            PortError::NoTunnel(id) => Self::no_object(&id.to_string()),
            PortError::Commit(error) => error.into(),
        }
    }
}

impl From<PassthroughError> for ApiError {
    fn from(error: PassthroughError) -> Self {
        match error {
            PassthroughError::NotItsName { .. } => Self::taken(error),
            PassthroughError::Commit(error) => error.into(),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NotFound(id) => Self::no_object(&id.to_string()),
            AccessError::Commit(error) => error.into(),
        }
    }
}

mod code;

use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use certs::CertsError;
use http::{HeaderValue, StatusCode, header};
use registry::{
    AccessError, BadTerms, BalanceError, CertificateError, CommitError, ConfigurationError, DeleteTunnelError,
    EngineError, InvitationError, ItemError, PassthroughError, PortError, QuickTunnelError, RecordError, RecordFlaw,
    RecordType, RotationError, RouteError, TokenError, TunnelError, ZoneError,
};
use serde_json::json;

use crate::authority::AuthorityError;

pub(crate) use code::CODES;

/// A failure in the words of section 3 of the API page.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: u32,
    message: String,
    /// The first cause, as code and text.
    cause: Option<(u32, String)>,
    retry_after: Option<Duration>,
}

// Codes that clients look at or that people know from the original; the rest are ours. What each means is in `code`.
const MALFORMED_AUTHORIZATION: u32 = 6003;
const AUTHORIZATION_FORMAT: u32 = 6111;
const MALFORMED_BODY: u32 = 6007;
const NO_CREDENTIALS: u32 = 9106;
const UNKNOWN_KEY: u32 = 9103;
const INVALID_TOKEN: u32 = 9109;
const VERIFY_INVALID_TOKEN: u32 = 1000;
const NOT_ALLOWED: u32 = 10000;
const ZONE_NOT_ALLOWED: u32 = 1009;
const NO_PATH: u32 = 7000;
const NO_METHOD: u32 = 7001;
const NO_OBJECT: u32 = 7003;
const NO_ZONE_OF_NAME: u32 = 1010;
const NAME_TAKEN: u32 = 1013;
const CONNECTED: u32 = 1022;
const NOT_VALID: u32 = 1004;
const ZONE_EXISTS: u32 = 1061;
const NO_ENTRY_POINT: u32 = 10003;
const TOO_MANY_ITEMS: u32 = 1045;
const NO_RECORD: u32 = 81044;
const TOO_MANY_RECORDS: u32 = 81045;
const RECORD_IN_THE_WAY: u32 = 81053;
const CNAME_IN_THE_WAY: u32 = 81054;
const RECORD_EXISTS: u32 = 81057;
const IDENTICAL_RECORD_EXISTS: u32 = 81058;
const TOO_MANY: u32 = 971;
const MOVED_ON: u32 = 1412;
const REFERENCED: u32 = 2412;
const STANDS_ALONE: u32 = 1409;
const STILL_TRUSTED: u32 = 1410;
const NOT_OFFERED: u32 = 1422;
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
        let cause = (AUTHORIZATION_FORMAT, "Invalid format for Authorization header".to_owned());
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

    /// The token is valid, but not from there.
    pub(crate) fn wrong_place() -> Self {
        let message = "Cannot use the access token from this location.";
        Self::new(StatusCode::FORBIDDEN, INVALID_TOKEN, message)
    }

    /// The token may not do that.
    pub(crate) fn not_permitted() -> Self {
        Self::not_allowed("The token lacks the permission for this.")
    }

    /// The token may not change that in the zone.
    pub(crate) fn not_permitted_in_zone() -> Self {
        let message = "The token lacks the permission to change this in the zone.";
        Self::new(StatusCode::FORBIDDEN, ZONE_NOT_ALLOWED, message)
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

    /// A certificate is asked for a name that lies in no zone that the token may give certificates for.
    pub(crate) fn no_zone_of(name: impl Display) -> Self {
        let message = format!(
            "Failed to validate requested hostname {name}: This zone is either not part of your account, or you do not \
             have access to it."
        );
        Self::new(StatusCode::BAD_REQUEST, NO_ZONE_OF_NAME, message)
    }

    /// The key that only certificates take is none of this edge's tokens.
    pub(crate) fn unknown_service_key() -> Self {
        let message = "Unknown X-Auth-User-Service-Key; it is v1.0- and an API token of this edge.";
        Self::new(StatusCode::FORBIDDEN, UNKNOWN_KEY, message)
    }

    /// The registry is this node's alone, and no other machine can share it.
    pub(crate) fn stands_alone() -> Self {
        let message = "This edge keeps its registry in a file of its own, which other nodes cannot share. Move it to etcd \
                       first: stop the edge, `snicket registry export`, `snicket registry import --registry etcd://…`, \
                       and start it with that --registry.";
        Self::new(StatusCode::CONFLICT, STANDS_ALONE, message)
    }

    /// What the original has and this edge has not.
    pub(crate) fn not_offered(message: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, NOT_OFFERED, message)
    }

    /// Something of this node's own is not as it should be.
    pub(crate) fn broken(message: impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ENGINE, message)
    }

    /// No such DNS record.
    pub(crate) fn no_record() -> Self {
        Self::new(StatusCode::NOT_FOUND, NO_RECORD, "Record does not exist.")
    }

    /// Nobody has written rules for this phase.
    pub(crate) fn no_entry_point(phase: &str) -> Self {
        let message = format!("could not find entrypoint ruleset in the \"{phase}\" phase");
        Self::new(StatusCode::NOT_FOUND, NO_ENTRY_POINT, message)
    }

    /// The same, with a place in front of the message.
    pub(crate) fn within(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
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
            QuickTunnelError::Record(error) => Self::not_valid(format!("name: {error}")),
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
            RouteError::Taken { .. } | RouteError::InTheWay { .. } => {
                Self::new(StatusCode::BAD_REQUEST, RECORD_IN_THE_WAY, error)
            }
            RouteError::Record(error) => Self::not_valid(format!("user_hostname: {error}")),
            RouteError::Commit(error) => error.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NotFound(id) => Self::no_object(&format!("/user/tokens/{id}")),
            TokenError::Beyond => Self::not_allowed(error),
            TokenError::Commit(error) => error.into(),
        }
    }
}

impl From<ZoneError> for ApiError {
    fn from(error: ZoneError) -> Self {
        match error {
            ZoneError::NotFound(id) => Self::no_object(&format!("/zones/{id}")),
            ZoneError::Transferred(_) | ZoneError::Unsigned(_) | ZoneError::TooEarly(_) | ZoneError::NothingToKeep => {
                Self::not_valid(error)
            }
            ZoneError::Exists(_) => Self::new(StatusCode::BAD_REQUEST, ZONE_EXISTS, error),
            ZoneError::Commit(error) => error.into(),
        }
    }
}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        let bad = |code: u32, error: RecordError| Self::new(StatusCode::BAD_REQUEST, code, error);
        match error {
            RecordError::NoZone(id) => Self::no_object(&format!("/zones/{id}")),
            RecordError::NotFound(_) => Self::no_record(),
            RecordError::Bad(problem) => {
                let cause = Some((flaw_code(problem.flaw), problem.to_string()));
                Self { cause, ..Self::not_valid(format!("DNS validation error: {problem}")) }
            }
            RecordError::Exists { identical: true, .. } => bad(IDENTICAL_RECORD_EXISTS, error),
            RecordError::Exists { identical: false, .. } => bad(RECORD_EXISTS, error),
            RecordError::InTheWay { other: RecordType::Cname, wanted, .. } if wanted != RecordType::Cname => {
                bad(CNAME_IN_THE_WAY, error)
            }
            RecordError::InTheWay { .. } => bad(RECORD_IN_THE_WAY, error),
            RecordError::TooMany(_) => bad(TOO_MANY_RECORDS, error),
            RecordError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, error),
            RecordError::Commit(error) => error.into(),
        }
    }
}

/// The code of section 3 of the API page that stands behind 1004.
fn flaw_code(flaw: RecordFlaw) -> u32 {
    match flaw {
        RecordFlaw::Name => 9000,
        RecordFlaw::Content(RecordType::A) => 9005,
        RecordFlaw::Content(RecordType::Aaaa) => 9006,
        RecordFlaw::Content(RecordType::Cname) => 9007,
        RecordFlaw::Content(_) | RecordFlaw::Data => 9101,
        RecordFlaw::Ttl => 9021,
        RecordFlaw::Proxied => 9041,
        RecordFlaw::Notes => 9300,
    }
}

impl From<BadTerms> for ApiError {
    fn from(error: BadTerms) -> Self {
        Self::not_valid(error)
    }
}

impl From<BalanceError> for ApiError {
    fn from(error: BalanceError) -> Self {
        match error {
            BalanceError::NotFound(what) => Self::no_object(&what),
            BalanceError::Bad(error) => error.into(),
            BalanceError::NameTaken(_) => Self::taken(error),
            BalanceError::Referenced(_) => Self::new(StatusCode::PRECONDITION_FAILED, REFERENCED, error),
            BalanceError::Commit(error) => error.into(),
        }
    }
}

impl From<ItemError> for ApiError {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::NotFound(what) => Self::no_object(&format!("the {what}")),
            ItemError::Bad(error) => error.into(),
            ItemError::Taken(_) => Self::taken(error),
            ItemError::InUse(_) => Self::new(StatusCode::PRECONDITION_FAILED, REFERENCED, error),
            ItemError::TooMany(_) => Self::new(StatusCode::BAD_REQUEST, TOO_MANY_ITEMS, error),
            ItemError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, error),
            ItemError::Commit(error) => error.into(),
        }
    }
}

impl From<RotationError> for ApiError {
    fn from(error: RotationError) -> Self {
        match error {
            RotationError::StillTrusted(_) => Self::new(StatusCode::CONFLICT, STILL_TRUSTED, error),
            RotationError::NoFormer => Self::new(StatusCode::NOT_FOUND, NO_OBJECT, error),
            RotationError::Commit(error) => error.into(),
        }
    }
}

impl From<CertificateError> for ApiError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::NotFound(id) => Self::no_object(&format!("/certificates/{id}")),
            CertificateError::TooMany => Self::new(StatusCode::BAD_REQUEST, TOO_MANY_ITEMS, error),
            CertificateError::Commit(error) => error.into(),
        }
    }
}

/// An authority that cannot sign: nothing that a caller could do better.
impl From<CertsError> for ApiError {
    fn from(error: CertsError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ENGINE, error)
    }
}

impl From<InvitationError> for ApiError {
    fn from(error: InvitationError) -> Self {
        match error {
            InvitationError::Unknown | InvitationError::Expired(_) | InvitationError::Spent(_) => {
                Self::not_allowed(error)
            }
            InvitationError::Commit(error) => error.into(),
        }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Certs(error) => error.into(),
            AuthorityError::Commit(error) => error.into(),
        }
    }
}

impl From<ConfigurationError> for ApiError {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::NotFound(id) => Self::no_object(&id.to_string()),
            ConfigurationError::Moved(_) => Self::new(StatusCode::PRECONDITION_FAILED, MOVED_ON, error),
            ConfigurationError::Bad(error) => error.into(),
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

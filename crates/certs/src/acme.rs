//! Certificates of a public authority by ACME (RFC 8555): the client that orders one, and the answer to its question by TLS.
//!
//! [`AcmeClient`] makes one attempt at a time and remembers nothing. Whose turn it is, where answers are shown and where
//! certificates are kept is the caller's; [`Certificates`](crate::Certificates) shows what it finds there through
//! [`PublicCertificates`].

mod chain;
mod challenge;
mod http;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use crate::CertsError;
use crate::tls::{self, Roots};
use http::Http;

pub(crate) use chain::{Leaf, certified};
pub(crate) use challenge::{ACME_ALPN, answering};

/// How long an authority may take to look, and again to sign. Most take seconds.
const LOOKING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(45));

/// An account at an authority.
#[derive(Debug, Clone)]
pub struct AcmeClient {
    http: Http,
    directory: String,
    email: String,
}

/// By what an authority may see that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A file that it asks for by HTTP at port 80 (RFC 8555 section 8.3).
    Http,
    /// A certificate that it is shown by TLS at port 443 (RFC 8737).
    Tls,
    /// A record of DNS (RFC 8555 section 8.4): the only way to names with a wildcard.
    Dns,
}

impl Way {
    /// What is tried next where this one does not do.
    pub fn other(self) -> Self {
        match self {
            Self::Http => Self::Tls,
            Self::Tls => Self::Http,
            Self::Dns => Self::Dns,
        }
    }
}

/// What has to be answered before the authority looks. All ways are answered from the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it asks for.
    pub token: String,
    /// What it wants to hear.
    pub key_authorization: String,
}

/// A certificate that was ordered.
pub struct Ordered {
    /// The chain as PEM, leaf first.
    pub chain: String,
    /// The leaf's key as PEM.
    pub key: String,
    /// Who signed it, for people.
    pub issuer: String,
    /// It is valid from then on.
    pub not_before: SystemTime,
    /// And until then.
    pub not_after: SystemTime,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The authority does not answer, or something else answers in its place.
    #[error("the authority cannot be reached: {0}")]
    Unreached(String),
    /// It has no such account (any more).
    #[error("the authority does not know the account: {0}")]
    NoAccount(String),
    /// It was asked too often.
    #[error("the authority was asked too often: {0}")]
    RateLimited(String),
    /// It looked, and did not find the answer.
    #[error("the authority could not verify the name {way}: {problem}", way = way_said(*.way))]
    Unverified {
        /// How it looked.
        way: Way,
        /// What it says.
        problem: String,
    },
    /// It does not look in this way.
    #[error("the authority does not verify names {}", way_said(*.0))]
    NoSuchWay(Way),
    /// It refuses.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// It took too long.
    #[error("the authority took too long")]
    Slow,
    /// What it gave is of no use.
    #[error("the authority's certificate is of no use: {0}")]
    Useless(String),
    /// The caller could not show the answer.
    #[error("the answer to the authority cannot be shown: {0}")]
    Unanswered(String),
}

fn way_said(way: Way) -> &'static str {
    match way {
        Way::Http => "by HTTP at port 80",
        Way::Tls => "by TLS at port 443",
        Way::Dns => "by DNS",
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::from(problem),
            Error::Timeout(_) => Self::Slow,
            Error::Json(error) => Self::Unreached(format!("what answers there is no ACME server ({error})")),
            other => Self::Unreached(chain_of(&other)),
        }
    }
}

impl From<Problem> for OrderError {
    fn from(problem: Problem) -> Self {
        let said = problem.to_string();
        match problem.r#type.as_deref().and_then(|kind| kind.strip_prefix("urn:ietf:params:acme:error:")) {
            Some("accountDoesNotExist") => Self::NoAccount(said),
            Some("rateLimited") => Self::RateLimited(said),
            _ => Self::Refused(said),
        }
    }
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

impl AcmeClient {
    /// For accounts of this address at the authority with this directory, an `https` URL. To make one is to agree to the
    /// authority's terms. Roots are for the connection to it.
    ///
    /// # Errors
    /// The roots cannot be read, or there is none.
    pub fn new(directory: String, email: String, roots: &Roots) -> Result<Self, CertsError> {
        Ok(Self { http: Http::new(tls::caller(roots)?), directory, email })
    }

    /// The authority's directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// Whose accounts they are.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// Makes an account, and answers what lets in to it: a secret.
    ///
    /// # Errors
    /// The authority cannot be reached or refuses.
    pub async fn register(&self) -> Result<String, OrderError> {
        let contact = format!("mailto:{}", self.email);
        let new = NewAccount { contact: &[&contact], terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let (_, credentials) = builder.create(&new, self.directory.clone(), None).await?;
        Ok(serde_json::to_string(&credentials).expect("credentials are plain JSON"))
    }

    /// Orders a certificate for one name: makes a key, shows the answer by `show` when the authority is about to look, and
    /// answers the certificate once it is signed. Takes some minutes at most.
    ///
    /// # Errors
    /// There is no certificate; what the authority says may be shown to people.
    pub async fn order<S>(
        &self,
        credentials: &str,
        name: &str,
        way: Way,
        mut show: impl FnMut(Answer) -> S,
    ) -> Result<Ordered, OrderError>
    where
        S: Future<Output = Result<(), String>>,
    {
        let credentials: AccountCredentials =
            serde_json::from_str(credentials).map_err(|error| OrderError::NoAccount(error.to_string()))?;
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let account = builder.from_credentials(credentials).await?;
        let identifiers = [Identifier::Dns(name.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;

        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                // It has looked before, and still believes it.
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => (),
                other => return Err(OrderError::Refused(format!("the authorization is {other:?}"))),
            }
            let kind = match way {
                Way::Http => ChallengeType::Http01,
                Way::Tls => ChallengeType::TlsAlpn01,
                Way::Dns => ChallengeType::Dns01,
            };
            let mut challenge = authorization.challenge(kind).ok_or(OrderError::NoSuchWay(way))?;
            let key_authorization = challenge.key_authorization().as_str().to_owned();
            show(Answer { token: challenge.token.clone(), key_authorization }).await.map_err(OrderError::Unanswered)?;
            challenge.set_ready().await?;
        }
        match order.poll_ready(&LOOKING).await {
            Ok(OrderStatus::Ready) => (),
            Ok(_) => return Err(unverified(&mut order, way).await),
            // Some say with the order why they did not believe it.
            Err(error) => {
                return Err(match OrderError::from(error) {
                    OrderError::Refused(problem) => OrderError::Unverified { way, problem },
                    other => other,
                });
            }
        }
        let key = KeyPair::generate().map_err(|error| OrderError::Useless(error.to_string()))?;
        order.finalize_csr(&request(name, &key)?).await?;
        let chain = order.poll_certificate(&LOOKING).await?;
        let key = key.serialize_pem();
        let (_, leaf) = certified(&chain, &key, Some(&name.replacen('*', "a", 1))).map_err(OrderError::Useless)?;
        let Leaf { issuer, not_before, not_after } = leaf;
        Ok(Ordered { chain, key, issuer, not_before, not_after })
    }
}

/// Why the authority did not believe that the name is ours.
async fn unverified(order: &mut Order, way: Way) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref())
        {
            return OrderError::Unverified { way, problem: problem.to_string() };
        }
    }
    OrderError::Unverified { way, problem: "it does not say why".into() }
}

/// The request for a certificate. It has no common name, which is limited to 64 characters.
fn request(name: &str, key: &KeyPair) -> Result<Vec<u8>, OrderError> {
    let useless = |error: rcgen::Error| OrderError::Useless(error.to_string());
    let mut params = CertificateParams::new([name.to_owned()]).map_err(useless)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key).map_err(useless)?.der().to_vec())
}

/// Where the certificates of public authorities are.
pub trait PublicCertificates: Send + Sync + 'static {
    /// The name with a wildcard whose certificate is shown to visitors of this one (lower case); `None`: its own is.
    fn wildcard(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// What there is for this name (lower case); `have` is the version that the caller has.
    fn find(&self, name: &str, have: Option<u64>) -> Found;

    /// What an authority that asks for this name (lower case) wants to hear, if one is about to.
    fn key_authorization(&self, name: &str) -> Option<String>;

    /// Whether it is worth waiting for a certificate of this name (lower case), which is then asked for: ends when it is
    /// there, or will not come soon.
    fn awaited(&self, name: &str) -> Option<Waiting>;

    /// How orders of this node have ended so far.
    fn tally(&self) -> Tally;
}

/// Numbers of orders, which only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// With a certificate.
    pub issued: u64,
    /// Without one.
    pub failed: u64,
}

/// A wait that has an end.
pub type Waiting = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// What there is for a name.
pub enum Found {
    /// No certificate.
    Nothing,
    /// The one that the caller has.
    Same,
    /// Another one.
    New {
        /// Which one.
        version: u64,
        /// The chain as PEM, leaf first.
        chain: Arc<str>,
        /// The leaf's key as PEM.
        key: Arc<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: &str) -> OrderError {
        let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"no","status":400}}"#);
        Error::Api(serde_json::from_str(&text).unwrap()).into()
    }

    #[test]
    fn what_an_authority_says_decides_what_is_done() {
        assert!(matches!(said("rateLimited"), OrderError::RateLimited(_)));
        assert!(matches!(said("accountDoesNotExist"), OrderError::NoAccount(_)));
        assert!(matches!(said("rejectedIdentifier"), OrderError::Refused(why) if why.contains("no")));
        assert!(matches!(Error::Timeout(None).into(), OrderError::Slow));
        let html = serde_json::from_str::<u8>("<html>").unwrap_err();
        assert!(matches!(Error::Json(html).into(), OrderError::Unreached(_)));
    }

    #[test]
    fn a_request_is_for_the_name_alone_however_long() {
        let name = format!("{}.example.test", ["a".repeat(60).as_str(); 3].join("."));
        let request = request(&name, &KeyPair::generate().unwrap()).unwrap();
        assert_eq!(request.windows(name.len()).filter(|bytes| *bytes == name.as_bytes()).count(), 1);
    }
}

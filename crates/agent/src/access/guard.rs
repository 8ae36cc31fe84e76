use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};

use super::issuer::{Issuer, Issuers};
use super::{Assertion, Demands, Denial, HEADER};
use crate::ingress::{Access, Rules};

/// Issuers that are asked for their keys before anybody comes; more are asked when somebody does.
const ASKED_AT_ONCE: usize = 16;

/// The guards of all rules, in their order.
pub(crate) struct Guards(Vec<Option<Guard>>);

/// Lets pass who can prove an identity.
pub(crate) struct Guard {
    /// `None`: nobody passes.
    issuer: Option<Arc<Issuer>>,
    audiences: Vec<String>,
}

/// Why a request does not pass.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is the visitor's fault.
    Denied(Denial),
    /// The keys of the issuer with this URL cannot be had.
    NoKeys(String),
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Guards {
    /// Prepares guards and begins to fetch the keys that they need. Needs a runtime.
    pub(crate) fn prepare(rules: &Rules, issuers: &Issuers) -> Self {
        let guards = Self(rules.iter().map(|rule| Guard::prepare(&rule.options.access, issuers)).collect());
        for issuer in issuers.all().take(ASKED_AT_ONCE) {
            issuer.prepare();
        }
        guards
    }

    /// The guard of a rule; `None`: everybody may pass.
    pub(crate) fn get(&self, rule: usize) -> Option<&Guard> {
        self.0[rule].as_ref()
    }
}

impl Guard {
    fn prepare(access: &Access, issuers: &Issuers) -> Option<Self> {
        if !access.required {
            return None;
        }
        let name = access.issuer().ok().flatten().filter(|_| !access.aud_tag.is_empty());
        let issuer = name.and_then(|name| issuers.get(&name));
        if issuer.is_none() {
            tracing::warn!(
                "a rule with access.required names no teamName or no audTag, so that it refuses everybody; name both"
            );
        }
        Some(Self { issuer, audiences: access.aud_tag.clone() })
    }

    /// Whether a request with these headers may pass.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut carried = headers.get_all(HEADER).iter();
        let text = match (carried.next(), carried.next()) {
            (None, _) => return Err(Denial::Missing.into()),
            (Some(_), Some(_)) => return Err(Denial::Several.into()),
            (Some(value), None) => HeaderValue::to_str(value).map_err(|_| Denial::Malformed)?,
        };
        let Some(issuer) = &self.issuer else {
            return Err(Denial::Nobody.into());
        };
        let assertion = Assertion::decode(text)?;
        let Some(keys) = issuer.keys(assertion.key_id()).await else {
            return Err(Refusal::NoKeys(issuer.name.clone()));
        };
        let demands = Demands { issuer: &issuer.name, audiences: &self.audiences };
        Ok(assertion.verify(&keys, &demands, SystemTime::now())?)
    }
}

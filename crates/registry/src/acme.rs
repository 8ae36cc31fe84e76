//! Certificates of a public authority by ACME (RFC 8555): what nodes share so that one of them orders a name's certificate
//! and all show it.
//!
//! A certificate, with its key, is an entry of its name ([`AcmeCertificate`]). While a node orders one, and after that has
//! failed, the name has an [`AcmeOrder`] as well: it says who is at it until when, what any node answers the authority, and
//! when to try again. What follows from the two at a time is [`AcmeStage`], and how many orders there may be is [`course`]'s,
//! which has no clock and writes nothing. A name goes this way:
//!
//! ```text
//!  absent ──begin──▶ ordering ──finish──▶ held ──2/3 of its life──▶ due
//!    ▲                │   ▲                 ▲                        │
//!    │              fail  └───────begin─────┼────────────────────────┘
//!    │                ▼                     │
//!    └──retry_at── failed ──retry_at (with a certificate: due again; shown meanwhile)
//! ```

mod change;
mod course;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::resource::{Key, Resource};
use crate::{Hostname, NodeId, PrivateText};

pub use change::{AcmeError, AcmeHold};
pub use course::{AcmeFailure, AcmeNotNow, AcmeStage, AcmeUrgency};

/// The account of all nodes with the same address at one authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeAccount {
    /// The authority: the URL of its directory.
    pub directory: Box<str>,
    /// Whose it is, for the authority's messages.
    pub email: Box<str>,
    /// The account's URL and key, as the client writes them.
    pub credentials: PrivateText,
    /// When.
    pub created_at: Timestamp,
}

impl AcmeAccount {
    /// Where the account is kept. A URL has letters that a key should not have, and may be long.
    pub(crate) fn key_of(directory: &str, email: &str) -> Key {
        let hash = Sha256::digest(format!("{directory} {email}"));
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Key::new(Self::KIND, &hash)
    }
}

impl AcmeAnswer {
    /// What an authority that looks by DNS wants to find (RFC 8555 section 8.4).
    pub fn dns_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.key_authorization.as_bytes()))
    }
}

impl Resource for AcmeAccount {
    const KIND: &'static str = "acme-accounts";

    fn key(&self) -> Key {
        Self::key_of(&self.directory, &self.email)
    }
}

/// A name's certificate from a public authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeCertificate {
    /// The name.
    pub name: Hostname,
    /// The chain as PEM, leaf first.
    pub chain: Box<str>,
    /// The leaf's key as PEM.
    pub key: PrivateText,
    /// Who signed the leaf, for people.
    pub issuer: Box<str>,
    /// The leaf is valid from then on.
    pub not_before: Timestamp,
    /// And until then.
    pub not_after: Timestamp,
}

impl Resource for AcmeCertificate {
    const KIND: &'static str = "acme-certificates";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.name)
    }
}

/// That a node is ordering a name's certificate, or that this has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeOrder {
    /// The name.
    pub name: Hostname,
    /// Who is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<AcmeHeld>,
    /// What every node answers when the authority asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AcmeAnswer>,
    /// Attempts that have failed since the last that succeeded.
    #[serde(default)]
    pub failures: u32,
    /// Those of them in which the authority looked, and did not find the answer.
    #[serde(default)]
    pub unseen: u32,
    /// How the last of them ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<AcmeFailed>,
}

/// A node's promise to be through with an order by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeHeld {
    /// Which node.
    pub node: NodeId,
    /// From then on another one may.
    pub until: Timestamp,
}

/// What shows an authority that a name is ours (RFC 8555 section 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeAnswer {
    /// What the authority chose.
    pub token: Box<str>,
    /// The same with the account's fingerprint: the answer by HTTP, and what the one by TLS is made from. No secret, as
    /// whoever asks is given it.
    pub key_authorization: Box<str>,
}

/// How an order failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeFailed {
    /// Why, for people.
    pub why: Box<str>,
    /// When.
    pub at: Timestamp,
    /// Not tried again before.
    pub retry_at: Timestamp,
}

impl Resource for AcmeOrder {
    const KIND: &'static str = "acme-orders";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &self.name)
    }
}

/// How much has been ordered of late. Written with every order that begins, so that these happen one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AcmeBudget {
    /// When all of it would be paid for at the lasting rate.
    pub(crate) paid_at: Timestamp,
}

impl Resource for AcmeBudget {
    const KIND: &'static str = "acme-budget";

    fn key(&self) -> Key {
        Key::new(Self::KIND, &"orders")
    }
}

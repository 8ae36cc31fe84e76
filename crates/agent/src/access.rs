//! The `access` check of a rule (section 14.4): requests need an identity assertion, a token that an issuer has signed.
//!
//! [`Assertion`] and [`Keys`] are pure and decide; the keys of an issuer are fetched and kept by a shell around them.
//! Whatever cannot be checked is refused.

mod assertion;
mod fetch;
mod guard;
mod issuer;
mod keys;
mod refresh;

pub use assertion::{Assertion, Demands, Denial, HEADER, MAX_ASSERTION};
pub(crate) use guard::{Guards, Refusal};
pub(crate) use issuer::Issuers;
pub use keys::{Keys, KeysError};

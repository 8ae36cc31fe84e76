//! Limits of requests in the form before rulesets (section 12 of the API page): kept, checked and shown. Nobody is
//! limited by them yet.

use registry::ItemKind;

use super::Collection;

pub(crate) static RATE_LIMITS: Collection = Collection { is_changed: false, ..Collection::new(ItemKind::RateLimit) };

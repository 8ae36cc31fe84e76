//! Whether a member is well. Pure: the time is passed in.

mod judge;
mod passive;
mod standing;

pub use judge::{Judge, Next, Outcome};
pub(crate) use passive::Verdict;
pub use passive::{Failure, Passive};
pub use standing::Standing;
pub(crate) use standing::share;

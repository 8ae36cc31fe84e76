//! Who serves a visitor: pools, their members, and which of these are well.
//!
//! [`Board`] is the entry, one for each node: it has a [`Plan`] for each load balancer, made once for each change of what is
//! configured, and what is known of each [`Member`]. [`Plan::walk`] then answers the members for one [`Visitor`], the first one and
//! those for when that one fails; it is pure: the time, the chance and the visitor are passed in, and the rest is numbers in memory.
//!
//! [`prober::Prober`] is the other half: it asks members for their health, as one of the few nodes that [`watchers`] names for a pool,
//! and tells the registry what it finds out, from where [`prober::keep_fresh`] brings it to the boards of all nodes.
//!
//! Deliberately absent: how a member is reached (the edge's, for visitors and for questions about health), and what a rule of a
//! load balancer says of a request: rules need a language of expressions, and are passed over.

mod affinity;
mod board;
mod budget;
mod choice;
mod chronicle;
mod health;
mod news;
mod plan;
pub mod prober;
mod tally;
mod visitor;
mod vitals;
mod watchers;

pub use affinity::COOKIE;
pub use board::{Answered, Board};
pub use budget::Budget;
pub use choice::Walk;
pub use chronicle::keep_history;
pub use health::{Failure, Judge, Next, Outcome, Passive, Standing};
pub use news::News;
pub use plan::{Member, Plan, Target, Whose};
pub use visitor::Visitor;
pub use vitals::{UnderWay, Vitals};
pub use watchers::{WATCHERS, watchers};

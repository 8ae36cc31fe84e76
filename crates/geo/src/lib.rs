//! Where in the world a node and its visitors are.
//!
//! [`Geography`] is the entry: it knows where its node is, as whoever runs it says, and looks visitors up by their addresses in a database
//! of the MaxMind form that they name ([`Database`]). Nothing of the world is in here but which countries lie in which region.
//!
//! Deliberately absent: what follows from a place (`balance` has that), and databases: each has its terms of use.

#![forbid(unsafe_code)]

mod country;
mod database;
mod geography;
mod place;

pub use country::{Country, countries};
pub use database::{Database, DatabaseError};
pub use geography::{Geography, Whereabouts};
pub use place::{BadPlace, Place};

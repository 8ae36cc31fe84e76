//! Header compression (RFC 7541). What both ends keep is small and bounded; an encoder enters into the table only what it
//! sees a second time, so that values which never come again drive nothing out.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub(crate) use decoder::{Decoder, Fields};
pub(crate) use encoder::Encoder;

/// Bytes of the dynamic table that either end keeps, as section 4.1 counts: the names and values of a few sites.
pub(crate) const TABLE: usize = 8 << 10;

/// Bytes of the table while nothing else is said (RFC 9113 section 6.5.2).
const DEFAULT_TABLE: usize = 4096;

/// What an entry counts beyond its name and value (section 4.1).
const OVERHEAD: usize = 32;

/// Entries of the static table (appendix A).
const STATIC: usize = 61;

/// The other end's table cannot be told from what it sent; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecodable(pub(crate) &'static str);

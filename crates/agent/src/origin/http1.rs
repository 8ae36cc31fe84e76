//! HTTP/1.1 towards an origin: a [`Line`] is one connection, read and written by whoever has it, and by no task of its own.
//! What is said on it is made and taken apart without a socket, in `head` and `coding`.

mod coding;
mod head;
mod line;
mod sending;
#[cfg(test)]
mod tests;

pub(super) use coding::{Part, Rest};
pub(super) use head::{Head, MAX_FIELDS, MAX_HEAD, Then};
#[cfg(any(test, feature = "fuzz"))]
pub(super) use head::{decode, end};
pub(super) use line::{Line, NoAnswer, Reader, Writer};
pub(super) use sending::{Sending, Unsent};

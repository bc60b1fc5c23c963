//! What records mean that are more than a value: values that expire, and operands of merges.
//!
//! A plain put or delete says everything by itself. A record of another kind needs something from outside to be understood, and
//! [`Rules`] is where it is found: the clock, what the options of its keyspace say, and the code that they name.
//!
//! * [`expiry`]: the bytes of a value that expires, and when it has.
//! * [`operator`]: what a merge operator is, and operands on their way to what they apply to; [`ready_made`]: operators to use.
//! * [`filter`]: code that decides what of a keyspace is still wanted.
//! * [`rules`]: the rules of all keyspaces, and how a batch is completed by them on its way into the log.
//!
//! Readers (`read/get.rs`, `read/visible.rs`) and compactions (`compaction/retention.rs`) come here only when they meet such a
//! record: plain values pay for none of it.

pub(crate) mod expiry;
pub(crate) mod filter;
pub(crate) mod operator;
pub(crate) mod ready_made;
pub(crate) mod rules;

#[cfg(test)]
mod tests;

pub(crate) use rules::Rules;

use crate::error::{Error, ErrorKind};
use crate::key::Trailer;

/// The error for kinds that format 1 reserves and this version cannot interpret.
#[cold]
pub(crate) fn unknown_kind(trailer: Trailer) -> Error {
    Error::new(
        ErrorKind::UnsupportedFormat,
        format!("a record of kind {:?} needs a newer RustLite", trailer.kind()),
    )
}

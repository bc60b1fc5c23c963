//! What records mean that are more than a value: values that expire.
//!
//! A plain put or delete says everything by itself. A record of another kind needs something from outside to be understood, and
//! [`Rules`] is where it is found: the clock, and what the options of its keyspace say.
//!
//! * [`expiry`]: the bytes of a value that expires, and when it has.
//! * [`rules`]: the rules of all keyspaces, and how a batch is completed by them on its way into the log.
//!
//! Readers (`read/get.rs`, `read/visible.rs`) and compactions (`compaction/retention.rs`) come here only when they meet such a
//! record: plain values pay for none of it.

pub(crate) mod expiry;
pub(crate) mod rules;

#[cfg(test)]
mod tests;

pub(crate) use rules::Rules;

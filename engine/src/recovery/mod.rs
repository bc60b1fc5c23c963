//! Opening a database.
//!
//! 1. Look at the directory: a database, a place where one may be created, or something else that must not be touched.
//! 2. Take the lock, and look again. (Read-only: no lock, nothing is written.)
//! 3. Read the manifest; open every table that it names; put a new manifest in force, and remove what unfinished work left.
//! 4. Sync the log's files, so that nothing is decided on bytes that are not durable; then replay the log ([`replay`]) into
//!    memtables, flushing them as they fill up.
//! 5. Remove log segments behind the accepted end.
//! 6. Start the commit pipeline at the end of the log, and the background threads.
//!
//! Each step leaves a directory that the next attempt can open: a crash during recovery is like no attempt at all.

pub(crate) mod open;
pub(crate) mod replay;

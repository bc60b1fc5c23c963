//! Integration tests of the public API, on the real file system and in memory: what it promises, how it fails, and what a killed
//! process leaves behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests look at the database's files from outside")]

mod backup;
mod bank;
mod child;
mod closed;
mod damage;
mod errors;
mod examples;
mod in_flight;
mod index_build;
mod keyspaces;
mod kill;
mod kill_model;
mod limits;
mod medium;
mod random;
mod reads;
mod snapshots;
mod support;
mod system_calls;
mod writes;

//! The one trait through which the driver sees an engine.
//!
//! The rules are the same for every adapter, so that engines are charged for the same work:
//! - reads and scans copy what they find out of the engine (the driver's buffers take it), because
//!   the application that YCSB models does something with a record, and because a pointer into a
//!   cold page is no read yet;
//! - `update` and `insert` return when the record has the durability that the store was opened
//!   with;
//! - `settle` leaves no debt behind: memtables flushed, compactions done, logs checkpointed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::error::Failure;

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// On stable storage before the call returns: survives a power loss.
    Sync,
    /// Handed to the kernel before the call returns: survives `kill -9` of the process, not a power
    /// loss.
    Buffered,
}

impl Durability {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Buffered => "buffered",
        }
    }
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenSpec {
    /// The engine's own directory; exists, and is empty before a load.
    pub directory: PathBuf,
    /// The durability of every write.
    pub durability: Durability,
    /// Memory for the engine's cache of its own data, the same for every engine.
    pub cache_bytes: u64,
    /// Threads that are going to use the store.
    pub threads: usize,
    /// Records loaded or to be loaded.
    pub records: u64,
    /// Size of a record, in bytes.
    pub value_size: usize,
}

/// An open engine, or one thread's handle of it.
pub trait Store: Send {
    /// The configuration in use, for people who judge whether it is a fair one.
    fn configuration(&self) -> String;

    /// Another handle of the same open store, for another thread.
    ///
    /// # Errors
    /// The engine's error.
    fn handle(&self) -> Result<Box<dyn Store>, Failure>;

    /// Copies the record into `value`, replacing its content; false if there is none.
    ///
    /// # Errors
    /// The engine's error.
    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure>;

    /// Replaces an existing record.
    ///
    /// # Errors
    /// The engine's error.
    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Adds a record.
    ///
    /// # Errors
    /// The engine's error.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Shows up to `count` records in key order, from the first at or after `start`.
    ///
    /// # Errors
    /// The engine's error.
    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure>;

    /// Brings the store to rest: nothing left to flush, compact or checkpoint.
    ///
    /// # Errors
    /// The engine's error.
    fn settle(&mut self) -> Result<(), Failure>;

    /// Closes the store. All other handles are gone by then.
    ///
    /// # Errors
    /// The engine's error.
    fn close(self: Box<Self>) -> Result<(), Failure>;
}

//! The one trait through which the driver sees an engine.
//!
//! The rules are the same for every adapter, so that engines are charged for the same work:
//! - reads and scans copy what they find out of the engine (the driver's buffers take it), because
//!   the application that YCSB models does something with a record, and because a pointer into a
//!   cold page is no read yet; scans of everything only look at each key and record;
//! - `update`, `insert` and `transact` return when what they wrote has the durability that the store
//!   was opened with;
//! - `settle` leaves no debt behind: memtables flushed, compactions done, logs checkpointed.

use std::path::PathBuf;
use std::time::Duration;

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

/// Writes that one thread keeps in flight at most.
pub const IN_FLIGHT: usize = 256;

/// Transactions that one thread keeps in flight at most.
pub const TRANSACTIONS_IN_FLIGHT: usize = 64;

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
    /// Writes that an LSM engine collects in memory before it makes a table of them, the same for
    /// every engine; also the log at which SQLite copies pages back.
    pub memtable_bytes: u64,
    /// Whether the store is going to be asked for transactions, for engines that must know.
    pub transactions: bool,
}

/// A record that a transaction reads and replaces.
#[derive(Debug, Default)]
pub struct Rewrite {
    /// Its key.
    pub key: Vec<u8>,
    /// What it becomes.
    pub value: Vec<u8>,
    /// What it was: set by the store.
    pub found: Vec<u8>,
    /// Whether it was there: set by the store.
    pub was_there: bool,
}

impl Rewrite {
    /// Notes what the record was.
    pub fn set_found(&mut self, found: Option<&[u8]>) {
        self.was_there = found.is_some();
        self.found.clear();
        self.found.extend_from_slice(found.unwrap_or_default());
    }
}

/// Which way a scan of everything goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
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

    /// Adds a record. For most engines that is no different from an update.
    ///
    /// # Errors
    /// The engine's error.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.update(key, value)
    }

    /// Removes a record.
    ///
    /// # Errors
    /// The engine's error; or that the harness doesn't know how to.
    fn delete(&mut self, _key: &[u8]) -> Result<(), Failure> {
        Err("this harness doesn't know of deletes of this engine".into())
    }

    /// Adds a record that is gone after a while, without anybody deleting it.
    ///
    /// # Errors
    /// The engine's error; or that it has no such records.
    fn insert_expiring(
        &mut self,
        _key: &[u8],
        _value: &[u8],
        _lifetime: Duration,
    ) -> Result<(), Failure> {
        Err("this harness doesn't know of records of this engine that expire".into())
    }

    /// Adds a record as [`insert`](Self::insert) does, but need not wait for it: a store that can
    /// have several writes in flight keeps up to [`IN_FLIGHT`]. [`finish`](Self::finish) waits for
    /// all.
    ///
    /// # Errors
    /// The engine's error, perhaps that of an earlier record.
    fn insert_in_flight(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.insert(key, value)
    }

    /// Reads each record, then replaces each, in one transaction, of which no update gets lost and
    /// which is tried again until it commits. Gives the number of attempts that failed because of
    /// other transactions.
    ///
    /// # Errors
    /// The engine's error; or that it has no transactions.
    fn transact(&mut self, _records: &mut [Rewrite]) -> Result<u64, Failure> {
        Err("this harness doesn't know of transactions of this engine".into())
    }

    /// As [`transact`](Self::transact), but need not wait for the commit to be durable: a store that
    /// can have several commits in flight keeps up to [`TRANSACTIONS_IN_FLIGHT`].
    /// [`finish`](Self::finish) waits for all.
    ///
    /// # Errors
    /// As `transact`, perhaps of an earlier one.
    fn transact_in_flight(&mut self, records: &mut [Rewrite]) -> Result<u64, Failure> {
        self.transact(records)
    }

    /// Waits until everything that is in flight has the durability that the store was opened with.
    ///
    /// # Errors
    /// The engine's error.
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

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

    /// Shows each of `keys`' records, or that there is none, with the key's index; in any order, by
    /// the engine's call for several keys if it has one.
    ///
    /// # Errors
    /// The engine's error.
    fn read_many(
        &mut self,
        keys: &[Vec<u8>],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Failure> {
        let mut value = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let found = self.read(key, &mut value)?;
            visit(index, found.then_some(&value));
        }
        Ok(())
    }

    /// Shows every record in key order, or in the opposite one.
    ///
    /// # Errors
    /// The engine's error.
    fn scan_all(
        &mut self,
        direction: Direction,
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

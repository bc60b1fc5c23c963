//! RustLite: a Linux-first embedded database for Rust servers.
//!
//! A durable LSM key-value store: io_uring for the log and for table I/O, memory-mapped tables that are read without copying, lock-free
//! memtables, atomic batches across keyspaces, consistent snapshots. One crate to add, no C++ toolchain, no server to run.
//!
//! ```
//! # fn main() -> Result<(), rustlite::Error> {
//! # let directory = std::env::temp_dir().join(format!("rustlite-crate-doc-{}", std::process::id()));
//! use rustlite::{Database, WriteBatch};
//!
//! let db = Database::open(&directory)?;
//! db.put("user:1", "Ada")?; // durable when it returns
//!
//! let mut batch = WriteBatch::new();
//! batch.put("user:2", "Grace").delete("user:1");
//! db.write(batch)?; // all of it or nothing
//!
//! for item in db.prefix("user:")? {
//!     let (key, value) = item?;
//!     assert_eq!((key.as_slice(), value.as_slice()), (&b"user:2"[..], &b"Grace"[..]));
//! }
//! db.close()?;
//! # std::fs::remove_dir_all(&directory).ok();
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! * A write with [`Durability::Sync`], the default, is on stable storage when it returns. [`Durability`] has the table of what each level
//!   survives.
//! * A batch is atomic, across keyspaces too. Readers see commits in one order, without holes, and each only once it is as durable as
//!   it asked to be.
//! * Readers don't block writers, writers don't block readers. A forgotten iterator or snapshot costs space, not progress.
//! * Private memory stays below [`Options::memory_bound_bytes`]; [`Stats`] shows it.
//! * Every failure has its own [`ErrorKind`], and none harms what is on disk.

#![forbid(unsafe_code)]

pub use rustlite_engine::{
    Append, BATCH_BYTES_MAX, BATCH_RECORDS_MAX, ByteRange, CommitFuture, CompactionFilter,
    Compression, Corruption, Cursor, Database, Durability, Error, ErrorKind, FilterDecision, Index,
    IndexEntry, IndexInfo, IndexIter, IndexKeys, IndexReader, IndexSource, IndexType, IoBackend,
    IsolationLevel, Iter, KEY_BYTES_MAX, KEYSPACE_NAME_BYTES_MAX, KEYSPACES_MAX, KeyValue,
    Keyspace, KeyspaceOptions, KeyspaceSnapshot, LevelStats, LogSync, Max, MergeOperator,
    OperatorError, Options, PinnedValue, Result, Savepoint, Snapshot, Stats, Transaction,
    TransactionCommit, TransactionOptions, TransactionStats, U64Add, VALUE_BYTES_MAX, WriteBatch,
    WriteOptions,
};
pub use rustlite_engine::{
    Backup, BackupInfo, BackupProgress, CheckpointInfo, GcInfo, Ingest, IngestInfo,
    NAMED_SNAPSHOTS_MAX, NamedSnapshot, SnapshotHolder, Verification,
};

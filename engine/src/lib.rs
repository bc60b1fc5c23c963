//! The RustLite storage engine: a durable, concurrent, recoverable LSM tree.
//!
//! Applications use it through the crate `rustlite`, which re-exports this public API. The modules, in the order in which data flows:
//!
//! * `database`, `keyspace`, `snapshot`: the handles that users hold.
//! * `kinds`: what records mean that are more than a value.
//! * `batch`: what a write is made of. `commit`: the one write path. `wal`: the bytes of the log.
//! * `memtable`: what was written lately, in memory. `sstable`: tables on disk.
//! * `values`: files for large values.
//! * `manifest`: which tables are the database. `compaction`: the background work that keeps them few and sorted.
//! * `txn`: transactions, on top of batches and snapshots. `index`: secondary indexes, on top of transactions.
//! * `read`: the one read path. `recovery`: opening. `backup`: checkpoints and backups.
//!
//! `docs/ARCHITECTURE.md` walks through a write and a read, step by step.

#![deny(unsafe_code)]

mod backup;
mod batch;
mod coding;
mod commit;
mod compaction;
mod core;
mod cursor;
mod database;
mod error;
mod file_name;
mod history;
mod index;
mod ingest;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod key;
mod keyspace;
mod kinds;
mod limits;
mod manifest;
mod memtable;
mod options;
mod range_tombstones;
mod read;
mod recovery;
#[allow(unsafe_code, reason = "calls vector and prefetch instructions")]
mod simd;
mod snapshot;
mod sstable;
mod stats;
mod stripes;
mod sync;
mod txn;
mod values;
mod wal;

pub use backup::{Backup, BackupInfo, BackupProgress, CheckpointInfo};
pub use batch::WriteBatch;
pub use commit::future::CommitFuture;
pub use database::Database;
pub use error::{Corruption, Error, ErrorKind, Result};
pub use history::GcInfo;
pub use index::{
    ByteRange, Index, IndexEntry, IndexInfo, IndexIter, IndexKeys, IndexReader, IndexSource,
    IndexType, Verification,
};
pub use ingest::{Ingest, IngestInfo};
pub use keyspace::Keyspace;
pub use kinds::filter::{CompactionFilter, FilterDecision};
pub use kinds::operator::{MergeOperator, OperatorError};
pub use kinds::ready_made::{Append, Max, U64Add};
pub use limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, KEY_BYTES_MAX, KEYSPACE_NAME_BYTES_MAX, KEYSPACES_MAX,
    NAMED_SNAPSHOTS_MAX, VALUE_BYTES_MAX,
};
pub use options::{Compression, Durability, IoBackend, KeyspaceOptions, Options, WriteOptions};
pub use read::iter::{Cursor, Iter, KeyValue};
pub use read::pinned::PinnedValue;
pub use read::snapshot::{NamedSnapshot, SnapshotHolder};
pub use rustlite_io::LogSync;
pub use snapshot::{KeyspaceSnapshot, Snapshot};
pub use stats::{LevelStats, Stats, TransactionStats};
pub use txn::{IsolationLevel, Savepoint, Transaction, TransactionCommit, TransactionOptions};

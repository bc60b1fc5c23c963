//! Earlier states of the database: named snapshots, snapshots of a sequence number, and removing what nobody needs.
//!
//! A named snapshot is a sequence number in the manifest. Everything up to it is made durable before it is recorded: otherwise a crash
//! could take commits away that it sees, and give their numbers to others. Flushes and compactions keep what it sees, as for any
//! snapshot, also those during recovery.

use std::time::Duration;

use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Sequence;
use crate::manifest::named::no_snapshot;
use crate::read::iter::keyspace_range;
use crate::read::snapshot::NamedSnapshot;
use crate::snapshot::Snapshot;

/// What [`Database::gc`] has achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcInfo {
    /// Bytes of all tables before; what was only in memory is flushed first.
    pub table_bytes_before: u64,
    /// Bytes of all tables afterwards.
    pub table_bytes_after: u64,
}

/// The error for a sequence number whose state is not one of those that are kept, which ascend.
fn not_kept(sequence: Sequence, kept: &[Sequence]) -> Error {
    let (before, after) = kept.split_at(kept.partition_point(|&other| other < sequence));
    let around: Vec<_> = before.last().into_iter().chain(after.first()).collect();
    let around = match around.as_slice() {
        [before, after] => format!("around it {before} and {after}"),
        _ => "none before it".to_owned(),
    };
    let oldest = kept.first().copied().unwrap_or_default();
    Error::new(
        ErrorKind::NotFound,
        format!(
            "the state at sequence number {sequence} is not kept: the oldest that is kept is {oldest}, \
             {around}; name a snapshot, or hold one, to keep its state"
        ),
    )
}

impl Database {
    /// Gives the state of this moment a name, under which it is kept until
    /// [`drop_named_snapshot`](Self::drop_named_snapshot), also while the database is closed, in checkpoints and in backups.
    ///
    /// Everything that it sees is made durable first, and so is its name. It costs the space of what is overwritten and deleted later. A
    /// keyspace that is dropped is gone from it too.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// db.put("k", "old")?;
    /// db.create_named_snapshot("before the migration")?;
    /// db.put("k", "new")?;
    /// let before = db.named_snapshot("before the migration")?;
    /// assert_eq!(before.get("k")?.as_deref(), Some(&b"old"[..]));
    /// db.drop_named_snapshot("before the migration")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists` if there is one of that name; `InvalidArgument` if the name is not 1 to 256 bytes without NUL, or there are 1024
    /// already; `ReadOnly`, `Closed`; errors of syncing the log or of recording the change.
    pub fn create_named_snapshot(&self, name: &str) -> Result<Snapshot> {
        let handle = self.handle();
        handle.check_writable()?;
        let core = &handle.core;
        core.versions.check_snapshot_name(name)?;
        let snapshot = self.snapshot()?;
        core.pipeline.sync()?;
        // In milliseconds, as the manifest has it.
        let created = core.file_system.clock().wall().as_millis() as u64;
        let named = NamedSnapshot {
            name: name.to_owned(),
            sequence: snapshot.sequence(),
            created: Duration::from_millis(created),
        };
        let publish = || core.snapshots.add_named(named.clone());
        core.recorded(core.versions.name_snapshot(&named, publish))?;
        Ok(snapshot)
    }

    /// The state that has this name.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; `Closed`.
    pub fn named_snapshot(&self, name: &str) -> Result<Snapshot> {
        let handle = self.handle();
        handle.check_open()?;
        let guard = handle.core.snapshots.register_named(name).ok_or_else(|| no_snapshot(name))?;
        Ok(Snapshot::of(&handle.core, guard))
    }

    /// Forgets a named snapshot. Snapshots that were taken of it stay readable; what nobody needs any more is removed by compactions, or
    /// at once by [`gc`](Self::gc).
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; `ReadOnly`, `Closed`; errors of recording the change.
    pub fn drop_named_snapshot(&self, name: &str) -> Result<()> {
        let handle = self.handle();
        handle.check_writable()?;
        let core = &handle.core;
        core.recorded(core.versions.drop_snapshot(name, || core.snapshots.remove_named(name)))
    }

    /// All named snapshots, by name.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn list_named_snapshots(&self) -> Result<Vec<NamedSnapshot>> {
        self.handle().check_open()?;
        Ok(self.handle().core.versions.named_snapshots())
    }

    /// The state after the commit that ends with this sequence number, if it is kept: for a named snapshot, for a snapshot that lives
    /// somewhere in this process, or because nothing was written since. [`Stats::snapshot_holders`](crate::Stats::snapshot_holders)
    /// lists what is kept.
    ///
    /// # Errors
    /// `NotFound` if nobody has kept it, with the oldest sequence number that is kept and those around this one; `InvalidArgument` if it
    /// is in the future; `Closed`.
    pub fn snapshot_at(&self, sequence: u64) -> Result<Snapshot> {
        let handle = self.handle();
        handle.check_open()?;
        let core = &handle.core;
        if let Some(guard) = core.snapshots.register_at(sequence, || core.pipeline.visible()) {
            return Ok(Snapshot::of(core, guard));
        }
        let visible = core.pipeline.visible();
        if sequence > visible {
            return Err(Error::invalid(format!(
                "sequence number {sequence} is in the future: the last commit has {visible}"
            )));
        }
        Err(not_kept(sequence, &core.snapshots.boundaries(|| visible)))
    }

    /// Removes from the tables what no snapshot and no later reader can see: overwritten and deleted records of every keyspace. Returns
    /// when that is done. It reads and writes every table that may hold such records; reads and writes go on meanwhile.
    ///
    /// # Errors
    /// As [`Keyspace::compact`](crate::Keyspace::compact).
    pub fn gc(&self) -> Result<GcInfo> {
        let handle = self.handle();
        handle.check_writable()?;
        handle.flush()?;
        let table_bytes = || self.stats().map(|stats| stats.table_bytes());
        let table_bytes_before = table_bytes()?;
        for keyspace in handle.core.versions.keyspaces() {
            handle.compact(&keyspace_range(keyspace.id))?;
        }
        Ok(GcInfo { table_bytes_before, table_bytes_after: table_bytes()? })
    }
}

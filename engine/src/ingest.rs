//! Bulk ingest: sorted records written as finished tables, past the log and the memtables.
//!
//! 1. [`Ingest::put`] appends to tables that no version has, and large values to value files. Their records have the sequence number 0;
//!    their files are protected from the scan for unneeded files.
//! 2. [`Ingest::finish`] makes them durable and opens them. Then `CommitPipeline::commit_tables` holds writers back, has the memtables
//!    flushed (all but what was written in the last moment is flushed before), and gives the ingest one sequence number.
//! 3. One manifest edit adds all tables, each in the lowest level that fits, with that sequence number, which readers take for that of
//!    every record (see `sstable/table.rs`). Then the number becomes visible, and writers go on.
//!
//! So an ingest is one commit: readers see all of it or nothing, snapshots from before it do not, writes after it win over it, and
//! transactions that overlap it conflict with it. While writers are held, nothing is in memory, so that no memtable can hold older versions above the new tables.

use crate::batch::{check_key, check_value};
use crate::commit::recent::Footprint;
use crate::compaction::open_table::OpenTable;
use crate::compaction::output::NewTable;
use crate::compaction::separate::Separator;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyspaceId, Trailer, ValueKind};
use crate::keyspace::{FullKey, Keyspace};
use crate::kinds::expiry::Millis;

/// What an ingest has added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngestInfo {
    /// Keys and values.
    pub records: u64,
    /// Table files.
    pub tables: u64,
    /// Bytes of the table files, and of value files.
    pub bytes: u64,
    /// The sequence number of the ingest: snapshots of this or later see it. 0 if there were no records.
    pub sequence: u64,
}

/// Sorted records on their way into a keyspace. Made by [`Keyspace::start_ingest`].
///
/// Nothing of it is visible before [`finish`](Self::finish). Dropped before, or after an error, it leaves nothing.
pub struct Ingest {
    keyspace: Keyspace,
    open: Option<OpenTable>,
    separator: Separator,
    finished: Vec<NewTable>,
    /// The last full key; empty before the first.
    last: Vec<u8>,
    records: u64,
    /// How long values of the keyspace live; 0 for ever.
    lifetime_ms: Millis,
    /// Scratch: a value behind its time of expiry.
    expiring: Vec<u8>,
    failure: Option<Error>,
}

impl Keyspace {
    /// Adds sorted keys and values as finished tables: each byte is written once, past the log and the memtables. Returns when all of it
    /// is durable and visible, as one commit. Much faster than writing where there is much to write.
    ///
    /// Existing values of the same keys are replaced, and a default lifetime of the keyspace counts from the moment a record is
    /// given. Keys must ascend strictly, by their bytes. Other writes go on while tables are
    /// written; they wait for a moment at the end, while the memtables are flushed and the tables are added.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// let info = db.ingest((0..1000_u32).map(|n| (n.to_be_bytes(), n.to_string())))?;
    /// assert_eq!(info.records, 1000);
    /// assert_eq!(db.get(7_u32.to_be_bytes())?.as_deref(), Some(&b"7"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Ingest::put`] and [`Ingest::finish`]; then nothing was added.
    pub fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<IngestInfo> {
        let mut ingest = self.start_ingest()?;
        for (key, value) in items {
            ingest.put(key, value)?;
        }
        ingest.finish()
    }

    /// Starts an [`ingest`](Self::ingest) whose records come one by one.
    ///
    /// # Errors
    /// If the database is closed or read-only, the keyspace was dropped, or it has indexes: finished tables bring no entries.
    pub fn start_ingest(&self) -> Result<Ingest> {
        self.check_exists()?;
        self.handle.check_writable()?;
        check_no_index(&self.handle.core, self.id())?;
        Ok(Ingest {
            keyspace: self.clone(),
            open: None,
            separator: Separator::new(&self.handle.core.env),
            finished: Vec::new(),
            last: Vec::new(),
            records: 0,
            lifetime_ms: self.handle.core.rules.lifetime(self.id()),
            expiring: Vec::new(),
            failure: None,
        })
    }
}

impl Ingest {
    /// Adds a key, which must be greater than the one before, and its value. After an error the ingest is over.
    ///
    /// # Errors
    /// `InvalidArgument` if the key is not greater, or key or value are outside their limits; `DiskFull`; I/O errors.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.add(key.as_ref(), value.as_ref()).inspect_err(|error| {
            self.failure = Some(error.clone().context("the ingest has failed"));
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        let full = FullKey::new(self.keyspace.id(), key)?;
        let full = full.as_slice();
        if full <= self.last.as_slice() {
            let number = self.records + 1;
            let how = if full == self.last { "the same key as" } else { "a smaller key than" };
            return Err(Error::invalid(format!(
                "record {number} of the ingest has {how} the one before; keys must ascend strictly"
            )));
        }
        let core = &self.keyspace.handle.core;
        let context = core.output_context();
        if let Some(table) = self.open.take_if(|table| table.is_full(&context)) {
            self.finished.push(table.finish()?);
        }
        let (kind, stored) = if self.lifetime_ms == 0 {
            (ValueKind::Put, value)
        } else {
            let when = core.rules.now().saturating_add(self.lifetime_ms);
            self.expiring.clear();
            self.expiring.extend_from_slice(&when.to_le_bytes());
            self.expiring.extend_from_slice(value);
            (ValueKind::PutExpiring, self.expiring.as_slice())
        };
        let table = match &mut self.open {
            Some(table) => table,
            none => none.insert(begin_table(&self.keyspace)?),
        };
        // The sequence number is given to the whole table when it is added.
        table.add(&context, &mut self.separator, (full, Trailer::new(0, kind), stored))?;
        self.last.clear();
        self.last.extend_from_slice(full);
        self.records += 1;
        Ok(())
    }

    /// Makes everything durable and visible, as one commit.
    ///
    /// # Errors
    /// The first error of [`put`](Self::put); `KeyspaceNotFound` if the keyspace was dropped meanwhile; `Closed`; `DiskFull`, after which
    /// the same ingest may be tried again; errors of flushing; I/O errors of recording the change of tables, which also refuse later writes.
    pub fn finish(mut self) -> Result<IngestInfo> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if let Some(table) = self.open.take() {
            self.finished.push(table.finish()?);
        }
        self.separator.finish(&mut self.finished)?;
        let mut info = IngestInfo {
            records: self.records,
            tables: self.finished.len() as u64,
            bytes: self.finished.iter().map(NewTable::bytes_written).sum(),
            sequence: 0,
        };
        if self.finished.is_empty() {
            return Ok(info);
        }
        let core = std::sync::Arc::clone(&self.keyspace.handle.core);
        let opened = core.open_new(&self.finished)?;
        // Most of what is in memory, while writers go on.
        self.keyspace.handle.flush()?;
        let ranges = self.finished.iter().map(|table| {
            let behind_largest = [table.meta.largest.as_slice(), &[0]].concat();
            (table.meta.smallest.clone(), behind_largest)
        });
        let footprint = Footprint::of_ranges(ranges.collect());
        info.sequence = core.pipeline.commit_tables(footprint, |sequence, log_end| {
            if core.versions.keyspace(self.keyspace.id()).is_none() {
                return Err(dropped());
            }
            // Indexes are created under the same lock.
            check_no_index(&core, self.keyspace.id())?;
            core.install_ingested(&self.finished, opened, sequence, log_end)?;
            // They are part of the database now.
            self.finished.clear();
            Ok(())
        })?;
        Ok(info)
    }
}

fn begin_table(keyspace: &Keyspace) -> Result<OpenTable> {
    keyspace.handle.check_open()?;
    let context = keyspace.handle.core.output_context();
    OpenTable::begin(&context, keyspace.id())?.ok_or_else(dropped)
}

/// An ingest adds rows without their index entries.
fn check_no_index(core: &Core, keyspace: KeyspaceId) -> Result<()> {
    if core.indexes.registry().of(keyspace).is_some() {
        return Err(Error::invalid(
            "rows cannot be ingested into a keyspace with indexes; drop the indexes, ingest, and create them again",
        ));
    }
    Ok(())
}

fn dropped() -> Error {
    Error::new(ErrorKind::KeyspaceNotFound, "the keyspace was dropped during the ingest")
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(table) = self.open.take() {
            table.abandon();
        }
        self.keyspace.handle.core.discard(&self.finished);
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("records", &self.records).finish_non_exhaustive()
    }
}

//! Cuts a stream of merged records into tables.
//!
//! A table ends when it has reached its size, when the keyspace changes, or when it would overlap too much of the level below its own;
//! never between two versions of a key. Range tombstones are cut at the same places, so that the tables of one output are disjoint.

use std::collections::HashSet;
use std::sync::Arc;

use crate::compaction::open_table::OpenTable;
use crate::compaction::rate_limiter::RateLimiter;
use crate::compaction::separate::Separator;
use crate::error::Result;
use crate::file_name::{FileName, FileNumber};
use crate::key::{KeyspaceId, Trailer, ValueKind};
use crate::manifest::{PendingFile, TableHandle, VersionSet};
use crate::range_tombstones::RangeTombstones;
use crate::sstable::{TableEnv, TableMeta};

/// An output table may overlap this many times its own size one level further down: later compactions of it stay small.
const GRANDPARENT_OVERLAP_FACTOR: u64 = 10;

/// A table that is written and not yet part of a version. Its file is protected from the scan for unneeded files until dropped.
#[derive(Debug)]
pub(crate) struct NewTable {
    pub(crate) meta: TableMeta,
    pub(crate) _pending: PendingFile,
    /// The value files of its output; with the first table only.
    values: Vec<NewValues>,
}

impl NewTable {
    /// A table without value files.
    pub(crate) fn new(meta: TableMeta, pending: PendingFile) -> Self {
        Self { meta, _pending: pending, values: Vec::new() }
    }

    /// Makes the value files of its output its own, until a version has the table.
    pub(super) fn keep(&mut self, values: Vec<NewValues>) {
        self.values = values;
    }

    /// Bytes of value files that were written.
    pub(crate) fn value_bytes_written(&self) -> u64 {
        self.values.iter().map(|values| values.file_bytes).sum()
    }

    /// Bytes that were written, value files included.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.meta.file_bytes + self.value_bytes_written()
    }
}

/// A value file that is written and that no version points to yet.
#[derive(Debug)]
pub(super) struct NewValues {
    pub(super) file_bytes: u64,
    pub(super) pending: PendingFile,
}

/// What writing tables needs.
pub(crate) struct OutputContext<'a> {
    pub(crate) env: &'a TableEnv,
    pub(crate) versions: &'a VersionSet,
    pub(crate) limiter: Option<&'a RateLimiter>,
    pub(crate) table_bytes: u64,
    /// Value files whose values move to new files.
    pub(crate) moving: HashSet<FileNumber>,
}

impl OutputContext<'_> {
    /// True if a record of this kind may have to move, whatever its length.
    #[inline]
    pub(super) fn may_move(&self, trailer: Trailer) -> bool {
        trailer.kind() == Some(ValueKind::ValuePointer) && !self.moving.is_empty()
    }
}

/// Writes the records of one key range as tables.
pub(crate) struct Output<'a> {
    context: &'a OutputContext<'a>,
    /// The tombstones of the whole range.
    tombstones: &'a RangeTombstones,
    grandparents: &'a [Arc<TableHandle>],
    /// Index of the first grandparent that does not end before the current record.
    grandparent: usize,
    overlapped: u64,
    /// Where the next table's part of the range begins; `None` is the range's own beginning.
    from: Option<Vec<u8>>,
    open: Option<OpenTable>,
    finished: Vec<NewTable>,
    accounted: u64,
    separator: Separator,
    /// A keyspace that was dropped: its records go nowhere.
    dropped: Option<KeyspaceId>,
}

impl<'a> Output<'a> {
    /// `from` is where the range begins, if that is not the beginning of all keys.
    pub(crate) fn new(
        context: &'a OutputContext<'a>,
        tombstones: &'a RangeTombstones,
        grandparents: &'a [Arc<TableHandle>],
        from: Option<Vec<u8>>,
    ) -> Self {
        Self {
            context,
            tombstones,
            grandparents,
            grandparent: 0,
            overlapped: 0,
            from,
            open: None,
            finished: Vec::new(),
            accounted: 0,
            separator: Separator::new(context.env),
            dropped: None,
        }
    }

    /// Adds the next record.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        if self.must_cut(key) {
            self.cut(Some(key))?;
        }
        if self.open.is_none() {
            let keyspace = KeyspaceId::of(key).unwrap_or(KeyspaceId::DEFAULT);
            // Keyspaces in front of this one that have nothing but tombstones.
            self.tombstones_only(Some(&keyspace.prefix()))?;
            if self.dropped != Some(keyspace) {
                self.open = self.start(keyspace)?;
            }
        }
        let Some(table) = self.open.as_mut() else { return Ok(()) };
        table.add(self.context, &mut self.separator, (key, trailer, value))?;
        let written = table.written;
        if written >= self.accounted + (256 << 10) {
            self.spend(written);
        }
        Ok(())
    }

    fn spend(&mut self, written: u64) {
        if let Some(limiter) = self.context.limiter {
            limiter.spend(written.saturating_sub(self.accounted));
        }
        self.accounted = written;
    }

    /// Whether the open table must end before `key`.
    #[inline]
    fn must_cut(&mut self, key: &[u8]) -> bool {
        let Some(table) = &self.open else { return false };
        let full = table.is_full(self.context);
        let passed_grandparent = self
            .grandparents
            .get(self.grandparent)
            .is_some_and(|grandparent| grandparent.meta.ends_before(key));
        if !full && !passed_grandparent {
            return KeyspaceId::of(key) != Some(table.keyspace);
        }
        while let Some(grandparent) = self.grandparents.get(self.grandparent)
            && grandparent.meta.ends_before(key)
        {
            self.overlapped += grandparent.meta.file_bytes;
            self.grandparent += 1;
        }
        let wide = self.overlapped > GRANDPARENT_OVERLAP_FACTOR * self.context.table_bytes;
        (full || wide || KeyspaceId::of(key) != Some(table.keyspace))
            && table.writer.last_key() != key
    }

    /// Begins a table; `None` if the keyspace was dropped.
    fn start(&mut self, keyspace: KeyspaceId) -> Result<Option<OpenTable>> {
        let table = OpenTable::begin(self.context, keyspace)?;
        if table.is_none() {
            self.dropped = Some(keyspace);
        }
        Ok(table)
    }

    /// Ends the open table in front of `next`, or at the end of the range.
    fn cut(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some(table) = self.open.take() else { return Ok(()) };
        let keyspace_end = KeyspaceId(table.keyspace.0.saturating_add(1)).prefix().to_vec();
        let to = match next {
            Some(next) if next < keyspace_end.as_slice() => next.to_vec(),
            _ => keyspace_end,
        };
        self.finish(table, to)
    }

    fn finish(&mut self, mut table: OpenTable, to: Vec<u8>) -> Result<()> {
        let part = self.tombstones.clipped(self.from.as_deref(), Some(&to));
        table.writer.add_range_tombstones(&part);
        let table = table.finish()?;
        self.spend(table.meta.file_bytes);
        self.accounted = 0;
        self.overlapped = 0;
        self.from = Some(to);
        self.finished.push(table);
        Ok(())
    }

    /// Writes a table for each keyspace in front of `to` that has only tombstones left to write.
    fn tombstones_only(&mut self, to: Option<&[u8]>) -> Result<()> {
        loop {
            let rest = self.tombstones.clipped(self.from.as_deref(), to);
            let Some(keyspace) =
                rest.fragments().next().and_then(|(start, _, _)| KeyspaceId::of(start))
            else {
                return Ok(());
            };
            let end = KeyspaceId(keyspace.0.saturating_add(1)).prefix().to_vec();
            match self.start(keyspace)? {
                Some(table) => self.finish(table, end)?,
                None => self.from = Some(end),
            }
        }
    }

    /// Ends the last table. `to` is where the range ends, if that is not the end of all keys.
    pub(crate) fn complete(mut self, to: Option<&[u8]>) -> Result<Vec<NewTable>> {
        // The tombstones were clipped to the range already, so its end need not be repeated here.
        self.cut(None)?;
        self.tombstones_only(to)?;
        self.separator.finish(&mut self.finished)?;
        Ok(std::mem::take(&mut self.finished))
    }
}

impl Drop for Output<'_> {
    /// After an error: removes what was written.
    fn drop(&mut self) {
        if let Some(table) = self.open.take() {
            table.abandon();
        }
        for table in &self.finished {
            remove(self.context.env, table);
        }
    }
}

/// Removes the files of a table that will not become part of a version. What stays is removed at the next open.
pub(crate) fn remove(env: &TableEnv, table: &NewTable) {
    remove_file(env, FileName::Table(table.meta.number));
    let values = table.values.iter().map(|values| FileName::Values(values.pending.number()));
    values.for_each(|name| remove_file(env, name));
}

pub(super) fn remove_file(env: &TableEnv, name: FileName) {
    match env.fs.remove(&name.path(&env.directory)) {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(%error, "an unneeded file stays until the next open");
        }
        _ => {}
    }
}

//! A sorted run: open tables whose key ranges are disjoint, in key order, with an index for point lookups.
//!
//! A run is immutable, and its order is checked when it is built: no two of its tables overlap. So at most one table of a run can say
//! something about a key, and [`Run::find`] gives it without allocating, mostly without touching more than two flat arrays.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::file_name::FileNumber;
use crate::key::{common_prefix_len, head_of};
use crate::manifest::obsolete::LiveFiles;
use crate::sstable::Table;
use crate::sstable::meta::TableMeta;

/// A table of a version: its facts and its open reader.
///
/// Shared by all versions that have the table. When the last of them goes, and an edit has removed the table, its file number is
/// queued for removal with [`LiveFiles`]; dropping does no I/O.
pub(crate) struct TableHandle<T = Table> {
    pub(crate) meta: TableMeta,
    pub(crate) table: Arc<T>,
    /// Set once, with `Release`, by the thread that made the removal durable; read with `Acquire` by the thread that drops the
    /// last reference (the reference count orders the two anyway).
    obsolete: AtomicBool,
    files: Arc<LiveFiles>,
}

impl<T> TableHandle<T> {
    pub(crate) fn new(meta: TableMeta, table: Arc<T>, files: &Arc<LiveFiles>) -> Arc<Self> {
        files.add_live(meta.number);
        Arc::new(Self { meta, table, obsolete: AtomicBool::new(false), files: Arc::clone(files) })
    }

    pub(crate) fn number(&self) -> FileNumber {
        self.meta.number
    }

    /// Says that the manifest no longer names the table.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl<T> Drop for TableHandle<T> {
    fn drop(&mut self) {
        self.files.remove_live(self.meta.number, self.obsolete.load(Ordering::Acquire));
    }
}

impl<T> std::fmt::Debug for TableHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {:06}", self.meta.number)
    }
}

/// Disjoint tables in key order.
pub(crate) struct Run<T = Table> {
    tables: Vec<Arc<TableHandle<T>>>,
    /// What all bounds of all tables start with, and therefore every key that any table covers.
    prefix: Vec<u8>,
    /// Per table, the first 8 bytes of the bound after the prefix, as numbers.
    largest_heads: Vec<u64>,
    smallest_heads: Vec<u64>,
    bytes: u64,
}

impl<T> Run<T> {
    /// Sorts the tables; says which two overlap, if any do.
    pub(crate) fn new(mut tables: Vec<Arc<TableHandle<T>>>) -> Result<Self, String> {
        tables.sort_by(|a, b| a.meta.smallest.cmp(&b.meta.smallest));
        for pair in tables.windows(2) {
            if let [left, right] = pair
                && !left.meta.ends_before(&right.meta.smallest)
            {
                return Err(format!(
                    "tables {:06} and {:06} of one sorted run overlap",
                    left.meta.number, right.meta.number
                ));
            }
        }
        let prefix = common_prefix(&tables);
        let head = |key: &[u8]| head_of(key.get(prefix.len()..).unwrap_or_default());
        Ok(Self {
            largest_heads: tables.iter().map(|table| head(&table.meta.largest)).collect(),
            smallest_heads: tables.iter().map(|table| head(&table.meta.smallest)).collect(),
            bytes: tables.iter().map(|table| table.meta.file_bytes).sum(),
            prefix,
            tables,
        })
    }

    pub(crate) fn empty() -> Self {
        Self {
            tables: Vec::new(),
            prefix: Vec::new(),
            largest_heads: Vec::new(),
            smallest_heads: Vec::new(),
            bytes: 0,
        }
    }

    /// The run without some tables and with others.
    pub(super) fn with_changes(
        &self,
        removed: &HashSet<FileNumber>,
        added: Vec<Arc<TableHandle<T>>>,
    ) -> Result<Self, String> {
        let kept = self.tables.iter().filter(|table| !removed.contains(&table.number()));
        Self::new(kept.cloned().chain(added).collect())
    }

    /// The tables in key order.
    pub(crate) fn tables(&self) -> &[Arc<TableHandle<T>>] {
        &self.tables
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Sum of the file sizes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The one table that may say something about `key`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<TableHandle<T>>> {
        // Keys between two bounds share what all bounds share, so a key without the prefix lies outside.
        let head = head_of(key.strip_prefix(self.prefix.as_slice())?);
        let index = self.lower_bound_by_head(key, head);
        let table = self.tables.get(index)?;
        let smallest = *self.smallest_heads.get(index)?;
        let starts = smallest < head || (smallest == head && table.meta.smallest.as_slice() <= key);
        starts.then_some(table)
    }

    /// Index of the first table that does not end before `key`: where a seek begins. May be `len()`.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> usize {
        match key.strip_prefix(self.prefix.as_slice()) {
            Some(rest) => self.lower_bound_by_head(key, head_of(rest)),
            None => self.tables.partition_point(|table| table.meta.ends_before(key)),
        }
    }

    /// The same, for a key with the common prefix and its head.
    #[inline]
    fn lower_bound_by_head(&self, key: &[u8], head: u64) -> usize {
        let mut index = self.largest_heads.partition_point(|&largest| largest < head);
        // Equal heads say nothing about the order of the keys behind them: let the bounds themselves decide.
        while self.largest_heads.get(index) == Some(&head)
            && self.tables.get(index).is_some_and(|table| table.meta.ends_before(key))
        {
            index += 1;
        }
        index
    }

    /// The tables that may say something about a key from `lo` to `hi`, both inclusive; `None` is no bound.
    pub(crate) fn overlapping(
        &self,
        lo: Option<&[u8]>,
        hi: Option<&[u8]>,
    ) -> &[Arc<TableHandle<T>>] {
        let start = lo.map_or(0, |lo| self.lower_bound(lo));
        let end = hi.map_or(self.len(), |hi| {
            self.tables.partition_point(|table| table.meta.smallest.as_slice() <= hi)
        });
        self.tables.get(start..end).unwrap_or_default()
    }
}

impl<T> std::fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tables.iter().map(|table| table.number())).finish()
    }
}

fn common_prefix<T>(tables: &[Arc<TableHandle<T>>]) -> Vec<u8> {
    // The bounds ascend, so what the first and the last share, all share.
    let (Some(first), Some(last)) = (tables.first(), tables.last()) else {
        return Vec::new();
    };
    let (smallest, largest) = (&first.meta.smallest, &last.meta.largest);
    let shared = common_prefix_len(smallest, largest);
    smallest.get(..shared).unwrap_or_default().to_vec()
}

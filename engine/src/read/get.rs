//! Point lookup in a view, newest source first.
//!
//! For any key, every source holds only older versions than the sources before it. So the first source that knows the key decides,
//! and a range tombstone that covers the key ends the search: everything behind it is older. The key is hashed once, when the first
//! table is reached, and the hash serves all filters.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::{Sequence, Trailer, ValueKind, hash_key};
use crate::manifest::TableHandle;
use crate::memtable::{Memtable, ValueSpan};
use crate::read::pinned::PinnedValue;
use crate::read::view::View;
use crate::sstable::TableValue;

/// Where a value was found.
pub(crate) enum Found<'v> {
    Memtable(&'v Arc<Memtable>, ValueSpan),
    Table(&'v Arc<TableHandle>, TableValue),
}

impl Found<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Memtable(memtable, span) => memtable.value(*span),
            Self::Table(handle, value) => handle.table.value(value),
        }
    }

    pub(crate) fn into_pinned(self) -> PinnedValue {
        match self {
            Self::Memtable(memtable, span) => PinnedValue::in_memtable(Arc::clone(memtable), span),
            Self::Table(handle, value) => PinnedValue::in_table(Arc::clone(handle), value),
        }
    }
}

/// The value of a full key as a reader at `snapshot` sees it.
pub(crate) fn lookup<'v>(
    view: &'v View,
    key: &[u8],
    snapshot: Sequence,
) -> Result<Option<Found<'v>>> {
    for memtable in view.memtables() {
        let tombstone = memtable.newest_covering(key, snapshot);
        match memtable.get(key, snapshot) {
            Some((trailer, span)) => {
                let live = is_live(trailer, tombstone)?;
                return Ok(live.then_some(Found::Memtable(memtable, span)));
            }
            None if tombstone.is_some() => return Ok(None),
            None => {}
        }
    }
    lookup_in_tables(view, key, snapshot)
}

/// Candidate tables whose filters are brought in together: their cache misses overlap instead of adding up.
const PREFETCHED: usize = 8;

fn lookup_in_tables<'v>(
    view: &'v View,
    key: &[u8],
    snapshot: Sequence,
) -> Result<Option<Found<'v>>> {
    let hash = hash_key(key);
    let mut candidates = view.version.sources().filter_map(|run| run.find(key));
    loop {
        let mut batch = [None; PREFETCHED];
        for (slot, handle) in batch.iter_mut().zip(candidates.by_ref()) {
            handle.table.prefetch_filter(hash);
            *slot = Some(handle);
        }
        if batch[0].is_none() {
            return Ok(None);
        }
        for handle in batch.into_iter().flatten() {
            match lookup_in_table(handle, key, hash, snapshot)? {
                Answer::Value(value) => return Ok(Some(Found::Table(handle, value))),
                Answer::Deleted => return Ok(None),
                Answer::Unknown => {}
            }
        }
    }
}

/// What one table says about a key.
enum Answer {
    Value(TableValue),
    Deleted,
    Unknown,
}

fn lookup_in_table(
    handle: &TableHandle,
    key: &[u8],
    hash: u64,
    snapshot: Sequence,
) -> Result<Answer> {
    let table = &handle.table;
    let tombstone = if handle.meta.range_tombstones == 0 {
        None
    } else {
        table.range_tombstones().newest_covering(key, snapshot)
    };
    if table.may_contain(hash)
        && let Some((trailer, value)) = table.get(key, hash, snapshot)?
    {
        let live = is_live(trailer, tombstone)?;
        return Ok(if live { Answer::Value(value) } else { Answer::Deleted });
    }
    Ok(if tombstone.is_some() { Answer::Deleted } else { Answer::Unknown })
}

/// Whether a version is a value, given the newest range tombstone of its own source that covers it.
fn is_live(trailer: Trailer, tombstone: Option<Sequence>) -> Result<bool> {
    if tombstone.is_some_and(|tombstone| tombstone > trailer.sequence()) {
        return Ok(false);
    }
    value_kind_is_live(trailer)
}

/// Whether a point record of this kind is a value.
///
/// # Errors
/// For kinds that format 1 reserves and this version cannot interpret.
pub(crate) fn value_kind_is_live(trailer: Trailer) -> Result<bool> {
    match trailer.kind() {
        Some(ValueKind::Put) => Ok(true),
        Some(ValueKind::Delete) => Ok(false),
        other => Err(Error::new(
            crate::error::ErrorKind::UnsupportedFormat,
            format!("a record of kind {other:?} needs a newer RustLite"),
        )),
    }
}

//! Point lookup in a view, newest source first.
//!
//! For any key, every source holds only older versions than the sources before it. So the first source that knows the key decides,
//! and a range tombstone that covers the key ends the search: everything behind it is older. The key is hashed once, and the hash serves all filters.

use std::sync::Arc;

use crate::error::Result;
use crate::key::{Sequence, Trailer, ValueKind, hash_key};
use crate::kinds::expiry::{self, EXPIRY_BYTES};
use crate::kinds::unknown_kind;
use crate::manifest::TableHandle;
use crate::memtable::{Memtable, ValueSpan};
use crate::read::operands::merged_value;
use crate::read::pinned::PinnedValue;
use crate::read::view::View;
use crate::sstable::TableValue;

/// Where a value was found.
pub(crate) enum Found<'v> {
    Memtable(&'v Arc<Memtable>, ValueSpan),
    Table(&'v Arc<TableHandle>, TableValue),
    /// What took more than finding it.
    Made(PinnedValue),
}

impl Found<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Memtable(memtable, span) => memtable.value(*span),
            Self::Table(handle, value) => handle.table.value(value),
            Self::Made(value) => value,
        }
    }

    pub(crate) fn into_copy(self) -> Vec<u8> {
        self.as_slice().to_vec()
    }

    pub(crate) fn into_pinned(self) -> PinnedValue {
        match self {
            Self::Memtable(memtable, span) => PinnedValue::in_memtable(Arc::clone(memtable), span),
            Self::Table(handle, value) => PinnedValue::in_table(Arc::clone(handle), value),
            Self::Made(value) => value,
        }
    }
}

/// The value of a full key as a reader at `snapshot` sees it.
pub(crate) fn lookup<'v>(
    view: &'v View,
    key: &[u8],
    snapshot: Sequence,
) -> Result<Option<Found<'v>>> {
    lookup_hashed(view, key, hash_key(key), snapshot)
}

/// As [`lookup`], where the key's hash is known.
pub(crate) fn lookup_hashed<'v>(
    view: &'v View,
    key: &[u8],
    hash: u64,
    snapshot: Sequence,
) -> Result<Option<Found<'v>>> {
    #[cfg(feature = "planted-slowdown")]
    planted_slowdown();
    match lookup_in_memtables(view, key, hash, snapshot)? {
        Some(verdict) => Ok(verdict),
        None => lookup_in_tables(view, key, hash, snapshot),
    }
}

/// What a reader sees of a key, once a source has decided it.
pub(super) type Verdict<'v> = Option<Found<'v>>;

/// `None` if the tables decide.
#[inline]
pub(super) fn lookup_in_memtables<'v>(
    view: &'v View,
    key: &[u8],
    hash: u64,
    snapshot: Sequence,
) -> Result<Option<Verdict<'v>>> {
    for memtable in view.memtables() {
        let tombstone = memtable.newest_covering(key, snapshot);
        match memtable.get(key, hash, snapshot) {
            Some((trailer, span)) => {
                if !is_live(trailer, tombstone) {
                    return Ok(Some(None));
                }
                let found = Found::Memtable(memtable, span);
                return if is_plain(trailer) {
                    Ok(Some(Some(found)))
                } else {
                    understand(view, key, snapshot, (trailer, found)).map(Some)
                };
            }
            None if tombstone.is_some() => return Ok(Some(None)),
            None => {}
        }
    }
    Ok(None)
}

/// About a twentieth of a point read's instructions, for nothing: see the feature in `Cargo.toml`.
#[cfg(feature = "planted-slowdown")]
#[inline(never)]
fn planted_slowdown() {
    for step in 0..PLANTED_STEPS {
        std::hint::black_box(step);
    }
}

/// Each is a little more than one instruction, once the compiler has unrolled them.
#[cfg(feature = "planted-slowdown")]
const PLANTED_STEPS: u32 = 72;

/// Candidate tables whose filters are brought in together: their cache misses overlap instead of adding up.
const PREFETCHED: usize = 8;

fn lookup_in_tables<'v>(
    view: &'v View,
    key: &[u8],
    hash: u64,
    snapshot: Sequence,
) -> Result<Option<Found<'v>>> {
    view.read_cost.looked_up(hash, view.version.l0().len());
    let mut candidates = view.version.sources().filter_map(|run| run.find(key));
    loop {
        let mut batch = [None; PREFETCHED];
        for (slot, handle) in batch.iter_mut().zip(candidates.by_ref()) {
            handle.table.prefetch_filter(hash);
            *slot = Some(handle);
        }
        let Some(&last) = batch.iter().flatten().last() else { return Ok(None) };
        // Most keys are in the last, where most data is: searching its index takes as long as waiting for the filters.
        let block = last.table.find_block(key)?;
        for handle in batch.into_iter().flatten() {
            let begin = if !handle.table.may_contain(key, hash) {
                None
            } else if Arc::ptr_eq(handle, last) {
                Some(block)
            } else {
                Some(handle.table.find_block(key)?)
            };
            let verdict = lookup_in_table(view, (handle, begin), (key, hash), snapshot)?;
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
        }
    }
}

/// What one table says about a key, where the search in it begins at a block; at none if its filter has said no.
#[inline]
pub(super) fn lookup_in_table<'v>(
    view: &'v View,
    (handle, begin): (&'v Arc<TableHandle>, Option<usize>),
    (key, hash): (&[u8], u64),
    snapshot: Sequence,
) -> Result<Option<Verdict<'v>>> {
    let table = &handle.table;
    let tombstone = if handle.meta.range_tombstones == 0 {
        None
    } else {
        table.range_tombstones().newest_covering(key, snapshot)
    };
    if let Some(block) = begin
        && let Some((trailer, value)) = table.get_from(block, key, hash, snapshot)?
    {
        if !is_live(trailer, tombstone) {
            return Ok(Some(None));
        }
        let found = Found::Table(handle, value);
        return if is_plain(trailer) {
            Ok(Some(Some(found)))
        } else {
            understand(view, key, snapshot, (trailer, found)).map(Some)
        };
    }
    Ok(tombstone.map(|_| None))
}

/// Whether a version is something else than a delete, given the newest range tombstone of its own source that covers it.
#[inline]
fn is_live(trailer: Trailer, tombstone: Option<Sequence>) -> bool {
    trailer.kind() != Some(ValueKind::Delete)
        && tombstone.is_none_or(|tombstone| tombstone < trailer.sequence())
}

/// Whether a record's value is the user's, as it is.
#[inline]
pub(crate) fn is_plain(trailer: Trailer) -> bool {
    trailer.kind() == Some(ValueKind::Put)
}

/// The value of a record that is neither a plain put nor a delete.
#[cold]
fn understand<'v>(
    view: &View,
    key: &[u8],
    snapshot: Sequence,
    (trailer, found): (Trailer, Found<'v>),
) -> Result<Option<Found<'v>>> {
    match trailer.kind() {
        Some(ValueKind::PutExpiring) => {}
        Some(ValueKind::Merge) => {
            let value = merged_value(view, key, snapshot)?;
            return Ok(Some(Found::Made(PinnedValue::made(value))));
        }
        Some(ValueKind::ValuePointer) => {
            let value = view.rules.values.read(found.as_slice())?;
            return Ok(Some(Found::Made(PinnedValue::in_value_file(value))));
        }
        _ => return Err(unknown_kind(trailer)),
    }
    if expiry::alive(found.as_slice(), view.rules.now())?.is_none() {
        return Ok(None);
    }
    Ok(Some(match found {
        Found::Memtable(memtable, span) => {
            Found::Made(PinnedValue::behind_expiry(Arc::clone(memtable), span))
        }
        Found::Table(handle, value) => Found::Table(handle, value.skip(EXPIRY_BYTES)),
        made @ Found::Made(_) => made,
    }))
}

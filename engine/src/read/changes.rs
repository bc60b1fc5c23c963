//! Whether something was written to a key or a range after a certain sequence number: what transactions ask before they commit.
//!
//! Exact as long as a snapshot at that sequence number is registered: compactions then keep, of each key, the newest record or range
//! tombstone that is newer than the snapshot (see `compaction/retention.rs`). Sources without anything that new are passed over.

use std::sync::Arc;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{Sequence, Trailer, hash_key};
use crate::limits::SEQUENCE_MAX;
use crate::manifest::TableHandle;
use crate::memtable::Memtable;
use crate::range_tombstones::RangeTombstones;
use crate::read::view::View;

/// The memtables that may hold something newer than `since`.
fn memtables_after(view: &View, since: Sequence) -> impl Iterator<Item = &Arc<Memtable>> {
    let frozen = view.frozen.iter().take_while(move |frozen| frozen.last_sequence > since);
    std::iter::once(&view.active).chain(frozen.map(|frozen| &frozen.memtable))
}

/// True if a record or a range tombstone newer than `since` concerns the key.
pub(crate) fn key_changed(view: &View, key: &[u8], since: Sequence) -> Result<bool> {
    let hash = hash_key(key);
    for memtable in memtables_after(view, since) {
        let tombstone = memtable.newest_covering(key, SEQUENCE_MAX);
        let point = memtable.get(key, hash, SEQUENCE_MAX).map(|(trailer, _)| trailer.sequence());
        // Of any key, a source holds only older versions than the sources before it: the first that knows it decides.
        if let Some(newest) = tombstone.max(point) {
            return Ok(newest > since);
        }
    }
    for handle in view.version.sources().filter_map(|run| run.find(key)) {
        if handle.meta.largest_sequence <= since {
            continue;
        }
        let tombstone = handle.table.range_tombstones().newest_covering(key, SEQUENCE_MAX);
        let point = if handle.table.may_contain(key, hash) {
            handle.table.get(key, hash, SEQUENCE_MAX)?.map(|(trailer, _)| trailer.sequence())
        } else {
            None
        };
        if let Some(newest) = tombstone.max(point) {
            return Ok(newest > since);
        }
    }
    Ok(false)
}

/// A key of the range (or its start, for a range tombstone) that a record or tombstone newer than `since` concerns.
pub(crate) fn range_changed(
    view: &View,
    start: &[u8],
    end: &[u8],
    since: Sequence,
) -> Result<Option<Vec<u8>>> {
    for memtable in memtables_after(view, since) {
        if memtable.range_tombstone_count() > 0
            && tombstone_after(&memtable.range_tombstones(), start, end, since)
        {
            return Ok(Some(start.to_vec()));
        }
        if let Some(key) = record_after(memtable.cursor(), start, end, since)? {
            return Ok(Some(key));
        }
    }
    let newer = |handle: &&Arc<TableHandle>| handle.meta.largest_sequence > since;
    for run in view.version.sources() {
        for handle in run.overlapping(Some(start), Some(end)).iter().filter(newer) {
            if tombstone_after(handle.table.range_tombstones(), start, end, since) {
                return Ok(Some(start.to_vec()));
            }
            if let Some(key) = record_after(handle.table.cursor(), start, end, since)? {
                return Ok(Some(key));
            }
        }
    }
    Ok(None)
}

fn tombstone_after(
    tombstones: &RangeTombstones,
    start: &[u8],
    end: &[u8],
    since: Sequence,
) -> bool {
    tombstones
        .clipped(Some(start), Some(end))
        .fragments()
        .any(|(_, _, sequences)| sequences.first().is_some_and(|&newest| newest > since))
}

fn record_after(
    mut cursor: impl Cursor,
    start: &[u8],
    end: &[u8],
    since: Sequence,
) -> Result<Option<Vec<u8>>> {
    cursor.seek(start, Trailer::NEWEST)?;
    while cursor.valid() && cursor.key() < end {
        if cursor.trailer().sequence() > since {
            return Ok(Some(cursor.key().to_vec()));
        }
        cursor.next()?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;

//! Puts a batch's records into the memtable.

use std::cell::RefCell;
use std::sync::Arc;

use crate::batch::{Record, Records, WriteBatch};
use crate::error::{Error, Result};
use crate::key::{Sequence, Trailer, ValueKind};
use crate::memtable::approaches::{Approaches, KEYS_MAX, NewRecord, insert_all};
use crate::memtable::{Memtable, Splice};

thread_local! {
    /// Where the thread inserted last: single puts in key order go on from there, as the records of a sorted batch do.
    static SPLICE: RefCell<Splice> = RefCell::default();

    /// Memory for the searches of a batch.
    static SEARCHES: RefCell<Approaches> = RefCell::default();
}

/// Inserts a batch's records, by the places that were found before if they were.
pub(super) fn apply(
    memtable: &Arc<Memtable>,
    batch: &WriteBatch,
    first: Sequence,
    ahead: Option<&mut Approaches>,
) -> Result<()> {
    SPLICE.with_borrow_mut(|splice| match ahead {
        Some(ahead) => insert(memtable, batch, first, |record| {
            ahead.arrive(record.key);
            memtable.insert_approached(record, splice, ahead)
        }),
        None if batch.count() == 1 => {
            insert(memtable, batch, first, |NewRecord { key, trailer, value }| {
                memtable.insert(key, trailer, value, splice)
            })
        }
        None => SEARCHES.with_borrow_mut(|searches| {
            let mut group = [NewRecord::default(); KEYS_MAX];
            let mut filled = 0;
            insert(memtable, batch, first, |record| {
                group[filled] = record;
                filled += 1;
                if filled < KEYS_MAX {
                    return Ok(());
                }
                filled = 0;
                insert_all(memtable, &group, splice, searches)
            })?;
            insert_all(memtable, &group[..filled], splice, searches)
        }),
    })
}

/// Gives each record its sequence number, and hands those over that belong to a key.
#[inline]
fn insert<'b>(
    memtable: &Memtable,
    batch: &'b WriteBatch,
    first: Sequence,
    mut take: impl FnMut(NewRecord<'b>) -> Result<()>,
) -> Result<()> {
    for (sequence, record) in (first..).zip(Records::new(batch.bytes())) {
        let Record { kind, key, value } =
            record.map_err(|_| Error::internal("a batch does not decode"))?;
        if kind == ValueKind::RangeDelete {
            memtable.add_range_tombstone(key, value, sequence);
        } else {
            take(NewRecord { key, trailer: Trailer::new(sequence, kind), value })?;
        }
    }
    Ok(())
}

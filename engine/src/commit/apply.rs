//! Puts a batch's records into the memtable.

use std::cell::RefCell;
use std::sync::Arc;

use crate::batch::{Record, Records, WriteBatch};
use crate::commit::later::Later;
use crate::error::{Error, Result};
use crate::key::{Sequence, Trailer, ValueKind};
use crate::memtable::approaches::{Approaches, KEYS_MAX, NewRecord, insert_all};
use crate::memtable::pending::PendingPuts;
use crate::memtable::{Memtable, Splice};

/// So many puts are made at once after a reader had to finish puts for which there was time.
const PUTS_AT_ONCE: u32 = 128;

/// How a thread's single puts go.
#[derive(Default)]
struct Habit {
    /// So many more are made at once.
    at_once: u32,
    /// The last one was left for later.
    leaves: bool,
}

thread_local! {
    /// Where the thread inserted last: single puts in key order go on from there, as the records of a sorted batch do.
    static SPLICE: RefCell<Splice> = RefCell::default();

    static HABIT: RefCell<Habit> = RefCell::default();

    /// Memory for the searches of a batch.
    static SEARCHES: RefCell<Approaches> = RefCell::default();
}

impl Habit {
    /// Leaves a put for later, if that is likely to save anything. False if it must be made at once.
    #[inline]
    fn leave(
        &mut self,
        later: &Later<PendingPuts>,
        memtable: &Arc<Memtable>,
        record: NewRecord<'_>,
    ) -> Result<bool> {
        if self.at_once > 0 {
            self.at_once -= 1;
            return Ok(false);
        }
        later.add(|puts| {
            if self.leaves && puts.is_empty() {
                *self = Self { at_once: PUTS_AT_ONCE, leaves: false };
                return Ok(false);
            }
            self.leaves = puts.put(memtable, record)?;
            Ok(self.leaves)
        })
    }
}

/// Inserts a batch's records, by the places that were found before if they were. A single put that comes in no order is left to be
/// finished `later`, if it may be.
pub(super) fn apply(
    memtable: &Arc<Memtable>,
    batch: &WriteBatch,
    first: Sequence,
    ahead: Option<&mut Approaches>,
    later: Option<&Later<PendingPuts>>,
) -> Result<()> {
    SPLICE.with_borrow_mut(|splice| match ahead {
        Some(ahead) => insert(memtable, batch, first, |record| {
            ahead.arrive(record.key);
            memtable.insert_approached(record, splice, ahead)
        }),
        None if batch.count() == 1 => insert(memtable, batch, first, |record| {
            if let Some(later) = later
                && splice.is_left_out(1)
                && HABIT.with_borrow_mut(|habit| habit.leave(later, memtable, record))?
            {
                return Ok(());
            }
            memtable.insert(record.key, record.trailer, record.value, splice)
        }),
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

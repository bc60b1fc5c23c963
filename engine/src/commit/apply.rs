//! Puts a batch's records into the memtable.

use std::cell::RefCell;
use std::sync::Arc;

use crate::batch::{Record, Records, WriteBatch};
use crate::commit::later::{Later, Work as _};
use crate::error::{Error, Result};
use crate::key::{Sequence, Trailer, ValueKind};
use crate::memtable::approaches::{Approaches, KEYS_MAX, NewRecord, insert_all};
use crate::memtable::pending::PendingPuts;
use crate::memtable::{Memtable, Splice};

/// So many batches are inserted at once after a reader had to finish one for which there was time.
const AT_ONCE: u32 = 128;

/// Batches of more records are inserted at once: their own searches wait together.
const LEFT_MAX: u32 = 4;

/// How a thread's small batches go.
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
    /// Leaves a batch's records for later, if that is likely to save anything. False if they must be inserted at once.
    #[inline]
    fn leave(
        &mut self,
        later: &Later<PendingPuts>,
        leave: impl FnOnce(&mut PendingPuts) -> Result<()>,
    ) -> Result<bool> {
        if self.at_once > 0 {
            self.at_once -= 1;
            return Ok(false);
        }
        later.add(|puts| {
            if self.leaves && puts.is_done() {
                *self = Self { at_once: AT_ONCE, leaves: false };
                return Ok(false);
            }
            leave(puts)?;
            self.leaves = !puts.is_done();
            Ok(true)
        })
    }
}

/// Inserts a batch's records, by the places that were found before if they were. A few that come in no order are left to be finished
/// `later`, if they may be.
pub(super) fn apply(
    memtable: &Arc<Memtable>,
    batch: &WriteBatch,
    first: Sequence,
    ahead: Option<&mut Approaches>,
    later: Option<&Later<PendingPuts>>,
) -> Result<()> {
    SPLICE.with_borrow_mut(|splice| {
        if let Some(ahead) = ahead {
            return insert(memtable, batch, first, |record| {
                ahead.arrive(record.key);
                memtable.insert_approached(record, splice, ahead)
            });
        }
        if let Some(later) = later
            && batch.count() <= LEFT_MAX
            && splice.is_left_out(batch.count())
        {
            let leave = |puts: &mut PendingPuts| {
                insert(memtable, batch, first, |record| puts.put(memtable, record, splice))
            };
            if HABIT.with_borrow_mut(|habit| habit.leave(later, leave))? {
                return Ok(());
            }
        }
        insert_in_groups(memtable, batch, first, splice)
    })
}

/// Inserts the records of a batch; those of a larger one that come in no order are searched a few at a time.
fn insert_in_groups(
    memtable: &Arc<Memtable>,
    batch: &WriteBatch,
    first: Sequence,
    splice: &mut Splice,
) -> Result<()> {
    if batch.count() == 1 {
        return insert(memtable, batch, first, |NewRecord { key, trailer, value }| {
            memtable.insert(key, trailer, value, splice)
        });
    }
    SEARCHES.with_borrow_mut(|searches| {
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

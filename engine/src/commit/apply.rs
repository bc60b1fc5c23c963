//! Puts a batch's records into the memtable.

use std::cell::RefCell;

use crate::batch::{Record, Records};
use crate::error::{Error, Result};
use crate::key::{Sequence, Trailer, ValueKind};
use crate::memtable::approaches::Approaches;
use crate::memtable::{Memtable, Splice};

thread_local! {
    /// Where the thread inserted last: single puts in key order go on from there, as the records of a sorted batch do.
    static SPLICE: RefCell<Splice> = RefCell::default();
}

/// Inserts a batch's records, by the places that were found before if they were.
pub(super) fn apply(
    memtable: &Memtable,
    batch: &[u8],
    first: Sequence,
    mut ahead: Option<&mut Approaches>,
) -> Result<()> {
    SPLICE.with_borrow_mut(|splice| {
        for (sequence, record) in (first..).zip(Records::new(batch)) {
            let record = record.map_err(|_| Error::internal("a batch does not decode"))?;
            if record.kind == ValueKind::RangeDelete {
                memtable.add_range_tombstone(record.key, record.value, sequence);
            } else {
                let trailer = Trailer::new(sequence, record.kind);
                match &mut ahead {
                    None => memtable.insert(record.key, trailer, record.value, splice)?,
                    Some(ahead) => {
                        let Record { key, value, .. } = record;
                        ahead.arrive(key);
                        memtable.insert_approached(key, trailer, value, splice, ahead)?;
                    }
                }
            }
        }
        Ok(())
    })
}

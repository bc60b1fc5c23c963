//! What a transaction has written: an [`Overlay`] for its reads, which becomes a batch at commit, with savepoints.
//!
//! Each change that a savepoint may have to take back leaves an entry in an undo log. A key that was changed since the newest savepoint
//! already needs no second entry; so the log is never longer than the number of keys times the number of savepoints.
//!
//! Cursors hold the overlay as it was when they were made. The first write after that copies it, if the cursor still lives.

use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use crate::batch::{Origin, WriteBatch};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, ValueKind};
use crate::kinds::expiry::EXPIRY_BYTES;
use crate::read::key_ranges::Inserted;
use crate::read::overlay::{Base, Operands, Overlay, OwnWrite, Point};
use crate::read::visible::KeyRange;

/// Kind and lengths of a record in a batch, at most.
const RECORD_OVERHEAD_BYTES: usize = 16;

#[derive(Debug)]
enum Undo {
    /// The key had this, or nothing.
    Point(Arc<[u8]>, Option<Point>),
    Range(Inserted),
}

impl Undo {
    fn bytes(&self) -> usize {
        match self {
            Self::Point(key, before) => {
                before.as_ref().map_or(RECORD_OVERHEAD_BYTES, |before| point_bytes(key, before))
            }
            Self::Range(inserted) => RECORD_OVERHEAD_BYTES + inserted.bytes(),
        }
    }
}

#[derive(Debug)]
struct Mark {
    number: u64,
    undo_len: usize,
}

/// The uncommitted writes of one transaction.
#[derive(Debug)]
pub(crate) struct WriteSet {
    overlay: Arc<Overlay>,
    /// Bytes that the points take in the batch.
    point_bytes: usize,
    undo: Vec<Undo>,
    undo_bytes: usize,
    /// The savepoints that can be rolled back to, oldest first.
    marks: Vec<Mark>,
    last_mark: u64,
    bytes_max: usize,
}

fn point_bytes(key: &[u8], point: &Point) -> usize {
    let record = |value: &[u8]| RECORD_OVERHEAD_BYTES + key.len() + value.len();
    match &point.write {
        OwnWrite::Put(value) => record(value),
        OwnWrite::PutExpiring(_, value) => record(value) + EXPIRY_BYTES,
        OwnWrite::Delete => record(&[]),
        OwnWrite::Merge(merge) => {
            let Operands { base, list } = &**merge;
            let operands: usize = list.iter().map(|operand| record(operand)).sum();
            match base {
                Base::Committed => operands,
                Base::Own(value) => operands + record(value.as_deref().unwrap_or_default()),
            }
        }
    }
}

impl WriteSet {
    /// No writes, and room for so many bytes of them, savepoints included.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            overlay: Arc::default(),
            point_bytes: 0,
            undo: Vec::new(),
            undo_bytes: 0,
            marks: Vec::new(),
            last_mark: 0,
            bytes_max,
        }
    }

    pub(crate) fn overlay(&self) -> &Arc<Overlay> {
        &self.overlay
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.overlay.is_empty()
    }

    /// Bytes that the writes will take in the log, at most.
    fn batch_bytes(&self) -> usize {
        let ranges = &self.overlay.ranges;
        self.point_bytes + ranges.bytes() + ranges.len() * RECORD_OVERHEAD_BYTES
    }

    fn check_room(&self, more: usize) -> Result<()> {
        let needed = self.batch_bytes() + self.undo_bytes + more;
        if needed > self.bytes_max {
            return Err(Error::invalid(format!(
                "the transaction would be larger than {} bytes; commit it in parts",
                self.bytes_max
            )));
        }
        Ok(())
    }

    fn newest_mark(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.number)
    }

    fn push_undo(&mut self, undo: Undo) {
        self.undo_bytes += undo.bytes();
        self.undo.push(undo);
    }

    /// Sets a full key, or deletes it.
    pub(crate) fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.write(key, value.map_or(OwnWrite::Delete, |value| OwnWrite::Put(Arc::from(value))))
    }

    /// Gives a full key one more operand.
    pub(crate) fn merge(&mut self, key: &[u8], operand: &[u8]) -> Result<()> {
        let bytes = RECORD_OVERHEAD_BYTES + key.len() + operand.len();
        self.check_room(bytes)?;
        let savepoint = self.newest_mark();
        if let Some(Point { write: OwnWrite::Merge(operands), savepoint: then }) =
            Arc::make_mut(&mut self.overlay).points.get_mut(key)
            && *then == savepoint
        {
            operands.list.push(Arc::from(operand));
            self.point_bytes += bytes;
            return Ok(());
        }
        let mut operands = match self.overlay.get(key) {
            None => Operands { base: Base::Committed, list: Vec::new() },
            Some(OwnWrite::Delete) => Operands { base: Base::Own(None), list: Vec::new() },
            Some(OwnWrite::Put(value) | OwnWrite::PutExpiring(_, value)) => {
                Operands { base: Base::Own(Some(Arc::clone(value))), list: Vec::new() }
            }
            Some(OwnWrite::Merge(operands)) => Operands::clone(operands),
        };
        operands.list.push(Arc::from(operand));
        self.replace(key, Point { write: OwnWrite::Merge(Box::new(operands)), savepoint });
        Ok(())
    }

    /// Makes something new of a full key.
    pub(crate) fn write(&mut self, key: &[u8], write: OwnWrite) -> Result<()> {
        let point = Point { write, savepoint: self.newest_mark() };
        self.check_room(point_bytes(key, &point))?;
        self.replace(key, point);
        Ok(())
    }

    fn replace(&mut self, key: &[u8], point: Point) {
        let savepoint = point.savepoint;
        self.point_bytes += point_bytes(key, &point);
        let (key, before) = match Arc::make_mut(&mut self.overlay).points.entry(Arc::from(key)) {
            Entry::Vacant(entry) => {
                let key = Arc::clone(entry.key());
                entry.insert(point);
                (key, None)
            }
            Entry::Occupied(mut entry) => (Arc::clone(entry.key()), Some(entry.insert(point))),
        };
        self.point_bytes -= before.as_ref().map_or(0, |before| point_bytes(&key, before));
        if savepoint > 0 && before.as_ref().is_none_or(|before| before.savepoint != savepoint) {
            self.push_undo(Undo::Point(key, before));
        }
    }

    /// Deletes a range of full keys, which is not empty.
    pub(crate) fn delete_range(&mut self, range: &KeyRange) -> Result<()> {
        let savepoint = self.newest_mark();
        self.check_room(RECORD_OVERHEAD_BYTES + range.start.len() + range.end.len())?;
        let overlay = Arc::make_mut(&mut self.overlay);
        let bounds = (Bound::Included(range.start.as_slice()), Bound::Excluded(&*range.end));
        let inside: Vec<Arc<[u8]>> =
            overlay.points.range::<[u8], _>(bounds).map(|(key, _)| Arc::clone(key)).collect();
        let mut undo = Vec::new();
        for key in inside {
            let Some(before) = overlay.points.remove(&key) else { continue };
            self.point_bytes -= point_bytes(&key, &before);
            if before.savepoint != savepoint {
                undo.push(Undo::Point(key, Some(before)));
            }
        }
        undo.push(Undo::Range(overlay.ranges.insert(&range.start, &range.end)));
        if savepoint > 0 {
            undo.into_iter().for_each(|undo| self.push_undo(undo));
        }
        Ok(())
    }

    /// Remembers this moment. Gives its number.
    pub(crate) fn set_savepoint(&mut self) -> u64 {
        self.last_mark += 1;
        self.marks.push(Mark { number: self.last_mark, undo_len: self.undo.len() });
        self.last_mark
    }

    fn find_mark(&self, number: u64) -> Result<usize> {
        self.marks.binary_search_by_key(&number, |mark| mark.number).map_err(|_| {
            Error::invalid(
                "the savepoint is gone: it was released, or the transaction was rolled back to an \
                 earlier one",
            )
        })
    }

    /// Takes back every write since the savepoint, which stays. Later savepoints are gone.
    pub(crate) fn rollback_to(&mut self, number: u64) -> Result<()> {
        let index = self.find_mark(number)?;
        let keep = self.marks[index].undo_len;
        self.marks.truncate(index + 1);
        let overlay = Arc::make_mut(&mut self.overlay);
        // From the newest entry on, so that the oldest of a key has the last word.
        for undo in self.undo.drain(keep..).rev() {
            self.undo_bytes -= undo.bytes();
            match undo {
                Undo::Range(inserted) => overlay.ranges.undo(inserted),
                Undo::Point(key, before) => {
                    let restored = before.as_ref().map_or(0, |before| point_bytes(&key, before));
                    let now = match before {
                        Some(before) => overlay.points.insert(Arc::clone(&key), before),
                        None => overlay.points.remove(&key),
                    };
                    self.point_bytes += restored;
                    self.point_bytes -= now.as_ref().map_or(0, |now| point_bytes(&key, now));
                }
            }
        }
        Ok(())
    }

    /// Forgets a savepoint and later ones; the writes stay.
    pub(crate) fn release(&mut self, number: u64) -> Result<()> {
        let index = self.find_mark(number)?;
        self.marks.truncate(index);
        if self.marks.is_empty() {
            self.undo = Vec::new();
            self.undo_bytes = 0;
        }
        Ok(())
    }

    /// A batch with the same effect on the keyspaces that `wanted` names, its points in key order.
    pub(crate) fn to_batch(
        &self,
        origin: Origin,
        wanted: impl Fn(KeyspaceId) -> bool,
    ) -> WriteBatch {
        let mut batch = WriteBatch::of(origin, self.batch_bytes());
        for (start, end) in self.overlay.ranges.iter() {
            add_range(&mut batch, start, end, &wanted);
        }
        for (key, point) in &self.overlay.points {
            if !KeyspaceId::of(key).is_some_and(&wanted) {
                continue;
            }
            add_point(&mut batch, key, &point.write);
        }
        batch
    }
}

/// Adds what it takes to make of a key what the transaction has made of it.
fn add_point(batch: &mut WriteBatch, key: &[u8], write: &OwnWrite) {
    match write {
        OwnWrite::Put(value) => batch.add_checked(ValueKind::Put, key, value),
        OwnWrite::PutExpiring(lifetime, value) => batch.add_expiring_checked(key, *lifetime, value),
        OwnWrite::Delete => batch.add_checked(ValueKind::Delete, key, &[]),
        OwnWrite::Merge(merge) => {
            let Operands { base, list } = &**merge;
            match base {
                Base::Committed => {}
                Base::Own(Some(value)) => batch.add_checked(ValueKind::Put, key, value),
                Base::Own(None) => batch.add_checked(ValueKind::Delete, key, &[]),
            }
            list.iter().for_each(|operand| batch.add_checked(ValueKind::Merge, key, operand));
        }
    }
}

/// Adds a range that may have grown together over several keyspaces, one record for each.
fn add_range(
    batch: &mut WriteBatch,
    start: &[u8],
    end: &[u8],
    wanted: &impl Fn(KeyspaceId) -> bool,
) {
    let mut start = start.to_vec();
    let mut add = |start: &[u8], end: &[u8]| {
        if KeyspaceId::of(start).is_some_and(wanted) {
            batch.add_checked(ValueKind::RangeDelete, start, end);
        }
    };
    while let Some(keyspace) = KeyspaceId::of(&start) {
        let keyspace_end = KeyspaceId(keyspace.0.saturating_add(1)).prefix();
        if end <= keyspace_end.as_slice() {
            break;
        }
        add(&start, &keyspace_end);
        start = keyspace_end.to_vec();
    }
    add(&start, end);
}

#[cfg(test)]
mod tests;

//! The public cursor and the public double-ended iterator.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::error::Result;
use crate::key::{KeyspaceId, Sequence};
use crate::limits::KEYSPACE_PREFIX_BYTES;
use crate::read::get::{Found, lookup};
use crate::read::observed::Observed;
use crate::read::overlay::Overlay;
use crate::read::snapshot::{SnapshotGuard, SnapshotList};
use crate::read::view::View;
use crate::read::visible::{KeyRange, VisibleCursor};

/// What an iterator reads: one view at one sequence number.
#[derive(Debug, Clone)]
pub(crate) struct ReadPoint {
    pub(crate) view: Arc<View>,
    pub(crate) sequence: Sequence,
    /// Keeps the sequence number readable, if it belongs to a snapshot.
    pub(crate) guard: Option<Arc<SnapshotGuard>>,
    /// What the reading transaction sees besides, if one reads.
    pub(crate) transaction: Option<InTransaction>,
}

/// What distinguishes a read inside a transaction.
#[derive(Debug, Clone)]
pub(crate) struct InTransaction {
    /// Its own writes.
    pub(crate) own: Arc<Overlay>,
    /// Who wants to know what was read.
    pub(crate) observed: Option<Arc<Observed>>,
}

impl ReadPoint {
    /// What is visible now, or, as long as the guard lives, what was visible when the guard was made.
    pub(crate) fn new(
        view: Arc<View>,
        sequence: Sequence,
        guard: Option<Arc<SnapshotGuard>>,
    ) -> Self {
        Self { view, sequence, guard, transaction: None }
    }

    /// Whether it is a registered snapshot of the database with this list.
    pub(crate) fn is_of(&self, snapshots: &Arc<SnapshotList>) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_of(snapshots))
    }

    /// The value of a full key, copied.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(inside) = &self.transaction {
            let committed = (&*self.view, self.sequence);
            return inside.own.find(committed, key, inside.observed.as_deref(), <[u8]>::to_vec);
        }
        Ok(lookup(&self.view, key, self.sequence)?.map(Found::into_copy))
    }

    /// A cursor over the keys of a range.
    pub(crate) fn cursor(&self, range: KeyRange) -> VisibleCursor {
        self.as_seen(VisibleCursor::new(&self.view, self.sequence, range))
    }

    /// A cursor over the keys with the stem that is the start of the range.
    pub(crate) fn stem_cursor(&self, range: KeyRange) -> VisibleCursor {
        self.as_seen(VisibleCursor::with_stem(&self.view, self.sequence, range))
    }

    fn as_seen(&self, cursor: VisibleCursor) -> VisibleCursor {
        match &self.transaction {
            Some(inside) => cursor.for_transaction(&inside.own, inside.observed.as_ref()),
            None => cursor,
        }
    }
}

/// All keys of a keyspace.
pub(crate) fn keyspace_range(keyspace: KeyspaceId) -> KeyRange {
    KeyRange {
        start: keyspace.prefix().to_vec(),
        end: KeyspaceId(keyspace.0.saturating_add(1)).prefix().to_vec(),
    }
}

/// The full keys between two user bounds.
pub(crate) fn bounded_range<K: AsRef<[u8]>>(
    keyspace: KeyspaceId,
    bounds: &impl RangeBounds<K>,
) -> KeyRange {
    let all = keyspace_range(keyspace);
    let full = |key: &K| [&keyspace.prefix()[..], key.as_ref()].concat();
    // The smallest key behind another is that key with a zero byte.
    let after = |key: &K| [&keyspace.prefix()[..], key.as_ref(), &[0]].concat();
    KeyRange {
        start: match bounds.start_bound() {
            Bound::Unbounded => all.start,
            Bound::Included(key) => full(key),
            Bound::Excluded(key) => after(key),
        },
        end: match bounds.end_bound() {
            Bound::Unbounded => all.end,
            Bound::Included(key) => after(key),
            Bound::Excluded(key) => full(key),
        },
    }
}

/// The full keys that begin with a user prefix.
pub(crate) fn prefix_range(keyspace: KeyspaceId, prefix: &[u8]) -> KeyRange {
    let start = [&keyspace.prefix()[..], prefix].concat();
    let mut end = start.clone();
    // The end is the prefix plus one, as a number; trailing 0xff bytes carry over.
    while end.len() > KEYSPACE_PREFIX_BYTES && end.last() == Some(&0xff) {
        end.pop();
    }
    if end.len() > KEYSPACE_PREFIX_BYTES {
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
    } else {
        end = keyspace_range(keyspace).end;
    }
    KeyRange { start, end }
}

/// Walks the keys of a range without copying them: the fast way to scan.
///
/// Made by `Database::cursor` and its siblings; sees the database as it was then. Not positioned at first. It owns what it reads, so it
/// can be kept and sent to other threads; a forgotten one costs space (the memtables and files of its time stay), not progress.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::Database;
/// let db = Database::in_memory()?;
/// for i in 0..10 {
///     db.put(format!("k{i}"), "v")?;
/// }
/// let mut cursor = db.cursor()?;
/// cursor.seek("k7")?;
/// let mut seen = 0;
/// while cursor.valid() {
///     seen += cursor.key().len();
///     cursor.next()?;
/// }
/// assert_eq!(seen, 6);
/// # Ok(())
/// # }
/// ```
pub struct Cursor {
    inner: VisibleCursor,
    keyspace: KeyspaceId,
    _point: ReadPoint,
    seek_key: Vec<u8>,
}

impl Cursor {
    pub(crate) fn new(point: ReadPoint, keyspace: KeyspaceId, range: KeyRange) -> Self {
        Self { inner: point.cursor(range), keyspace, _point: point, seek_key: Vec::new() }
    }

    fn full(&mut self, key: &[u8]) {
        self.seek_key.clear();
        self.seek_key.extend_from_slice(&self.keyspace.prefix());
        self.seek_key.extend_from_slice(key);
    }

    /// True while the cursor stands on a record.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.inner.valid()
    }

    /// To the first key of the range.
    ///
    /// # Errors
    /// If a table cannot be read. Then the cursor stands nowhere.
    pub fn seek_to_first(&mut self) -> Result<()> {
        self.inner.seek_to_first()
    }

    /// To the last key of the range.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek_to_last(&mut self) -> Result<()> {
        self.inner.seek_to_last()
    }

    /// To the first key at or after `key`.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.full(key.as_ref());
        self.inner.seek(&self.seek_key)
    }

    /// To the last key strictly before `key`.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek_before(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.full(key.as_ref());
        self.inner.seek_before(&self.seek_key)
    }

    /// To the next key. Does nothing if the cursor stands nowhere.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    #[expect(clippy::should_implement_trait, reason = "it lends the record, which Iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        self.inner.next()
    }

    /// To the previous key. Does nothing if the cursor stands nowhere.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.inner.prev()
    }

    /// The key, valid until the cursor moves. Empty if the cursor stands nowhere.
    #[must_use]
    #[inline]
    pub fn key(&self) -> &[u8] {
        if self.valid() { user_key(self.inner.key()) } else { &[] }
    }

    /// The value, valid until the cursor moves. Empty if the cursor stands nowhere.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &[u8] {
        if self.valid() { self.inner.value() } else { &[] }
    }
}

fn user_key(full: &[u8]) -> &[u8] {
    full.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default()
}

/// A key and its value, copied.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Iterates over the keys of a range, from both ends, as the database was when the iterator was made.
///
/// It owns what it reads: keep it, send it to other threads. After an error it ends.
pub struct Iter {
    point: ReadPoint,
    range: KeyRange,
    front: Option<VisibleCursor>,
    back: Option<VisibleCursor>,
    finished: bool,
}

impl Iter {
    pub(crate) fn new(point: ReadPoint, range: KeyRange) -> Self {
        Self { point, range, front: None, back: None, finished: false }
    }

    /// Moves one end by one record and checks that the ends have not met.
    fn step(&mut self, forward: bool) -> Result<Option<KeyValue>> {
        let (mine, other) =
            if forward { (&mut self.front, &self.back) } else { (&mut self.back, &self.front) };
        let cursor = match mine {
            Some(cursor) => {
                if forward {
                    cursor.next()?
                } else {
                    cursor.prev()?
                }
                cursor
            }
            None => {
                let cursor = mine.insert(self.point.cursor(self.range.clone()));
                if forward {
                    cursor.seek_to_first()?
                } else {
                    cursor.seek_to_last()?
                }
                cursor
            }
        };
        if !cursor.valid() {
            return Ok(None);
        }
        let key = cursor.key();
        let met = other
            .as_ref()
            .is_some_and(|other| if forward { key >= other.key() } else { key <= other.key() });
        Ok((!met).then(|| (user_key(key).to_vec(), cursor.value().to_vec())))
    }

    fn advance(&mut self, forward: bool) -> Option<Result<KeyValue>> {
        if self.finished {
            return None;
        }
        let item = self.step(forward).transpose();
        self.finished = !matches!(item, Some(Ok(_)));
        item
    }
}

impl Iterator for Iter {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(true)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(false)
    }
}

impl std::iter::FusedIterator for Iter {}

impl std::fmt::Debug for Iter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter").field("sequence", &self.point.sequence).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("valid", &self.valid()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges_end_just_behind_the_prefix() {
        let ks = KeyspaceId(1);
        let range = prefix_range(ks, b"ab");
        assert_eq!(range.end, b"\0\0\0\x01ac");
        assert_eq!(prefix_range(ks, b"a\xff").end, b"\0\0\0\x01b");
        assert_eq!(prefix_range(ks, b"\xff\xff").end, b"\0\0\0\x02");
        assert_eq!(prefix_range(ks, b"").end, b"\0\0\0\x02");
    }
}

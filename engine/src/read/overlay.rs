//! What a transaction has written and not committed, as one more source of its reads.
//!
//! ```text
//! newest   points     key -> value or delete      in front of everything
//!          ranges     deleted ranges              hide what is committed, never the points
//! oldest   the snapshot
//! ```
//!
//! Deleting a range forgets the points inside; points written later lie on top. So the two parts say what a transaction's writes come to,
//! and a batch of the ranges followed by the points has the same effect.
//!
//! Guarantees: an overlay never changes while a cursor holds it (owners copy it on write), and [`OWN`] is newer than any
//! sequence number of the database, so merges put the points first.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{Sequence, Trailer, ValueKind, compare_internal};
use crate::limits::SEQUENCE_MAX;
use crate::read::key_ranges::KeyRanges;
use crate::read::observed::Observed;

/// The sequence number of uncommitted points. The pipeline never gives it away.
pub(crate) const OWN: Sequence = SEQUENCE_MAX;

/// What a write has left of a key.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// `None` if the key was deleted.
    pub(crate) value: Option<Arc<[u8]>>,
    /// The savepoint that was the newest when it was written; see `txn::write_set`.
    pub(crate) savepoint: u64,
}

/// Uncommitted writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    /// By full key.
    pub(crate) points: BTreeMap<Arc<[u8]>, Point>,
    pub(crate) ranges: KeyRanges,
}

/// What an overlay says about a key.
#[derive(Debug)]
pub(crate) enum OwnWrite {
    Value(Arc<[u8]>),
    Deleted,
    /// Nothing: ask the snapshot.
    Unknown,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    /// As [`get`](Self::get), for a read: `observed` is told of what the snapshot must be asked for.
    pub(crate) fn read(&self, key: &[u8], observed: Option<&Observed>) -> OwnWrite {
        let own = self.get(key);
        if let (OwnWrite::Unknown, Some(observed)) = (&own, observed) {
            observed.key(key);
        }
        own
    }

    /// What was written to the key.
    pub(crate) fn get(&self, key: &[u8]) -> OwnWrite {
        match self.points.get(key) {
            Some(Point { value: Some(value), .. }) => OwnWrite::Value(Arc::clone(value)),
            Some(_) => OwnWrite::Deleted,
            None if self.ranges.contains(key) => OwnWrite::Deleted,
            None => OwnWrite::Unknown,
        }
    }
}

/// Walks the points of an overlay.
pub(crate) struct OverlayCursor {
    overlay: Arc<Overlay>,
    current: Option<Current>,
}

struct Current {
    key: Arc<[u8]>,
    trailer: Trailer,
    value: Option<Arc<[u8]>>,
}

impl Current {
    fn new((key, point): (&Arc<[u8]>, &Point)) -> Self {
        let kind = if point.value.is_some() { ValueKind::Put } else { ValueKind::Delete };
        let trailer = Trailer::new(OWN, kind);
        Self { key: Arc::clone(key), trailer, value: point.value.clone() }
    }
}

impl OverlayCursor {
    pub(crate) fn new(overlay: Arc<Overlay>) -> Self {
        Self { overlay, current: None }
    }

    /// To the first point within the bound.
    fn forward(&mut self, from: Bound<&[u8]>) {
        let found = self.overlay.points.range::<[u8], _>((from, Bound::Unbounded)).next();
        self.current = found.map(Current::new);
    }

    /// To the last point within the bound.
    fn backward(&mut self, to: Bound<&[u8]>) {
        let found = self.overlay.points.range::<[u8], _>((Bound::Unbounded, to)).next_back();
        self.current = found.map(Current::new);
    }

    fn at(&self) -> &Current {
        self.current.as_ref().expect("only called while the cursor is valid")
    }

    /// True if the cursor stands strictly before the internal key.
    fn is_before(&self, key: &[u8], trailer: Trailer) -> bool {
        self.current
            .as_ref()
            .is_some_and(|own| compare_internal(&own.key, own.trailer, key, trailer).is_lt())
    }
}

impl Cursor for OverlayCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.forward(Bound::Unbounded);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.backward(Bound::Unbounded);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.forward(Bound::Included(key));
        if self.is_before(key, trailer) {
            self.forward(Bound::Excluded(key));
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.backward(Bound::Included(key));
        if self.valid() && !self.is_before(key, trailer) {
            self.backward(Bound::Excluded(key));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let key = Arc::clone(&self.at().key);
        self.forward(Bound::Excluded(&key));
        Ok(())
    }

    #[inline]
    fn repeats(&self) -> bool {
        false
    }

    fn prev(&mut self) -> Result<()> {
        let key = Arc::clone(&self.at().key);
        self.backward(Bound::Excluded(&key));
        Ok(())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        &self.at().key
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.at().trailer
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.at().value.as_deref().unwrap_or_default()
    }
}

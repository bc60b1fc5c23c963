//! What a transaction has written and not committed, as one more source of its reads.
//!
//! ```text
//! newest   points     key -> value or delete      in front of everything
//!          ranges     deleted ranges              hide what is committed, never the points
//! oldest   the snapshot
//! ```
//!
//! Deleting a range forgets the points inside; points written later lie on top. So the two parts say what a transaction's writes come to,
//! and a batch of the ranges followed by the points has the same effect. Operands of merges wait here as they do in the tree: they are
//! applied when the key is read.
//!
//! Guarantees: an overlay never changes while a cursor holds it (owners copy it on write), and [`OWN`] is newer than any
//! sequence number of the database, so merges put the points first.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::cursor::{Cursor, Standing};
use crate::error::Result;
use crate::key::{Sequence, Trailer, ValueKind, compare_internal};
use crate::kinds::expiry::Millis;
use crate::kinds::operator::Chain;
use crate::limits::SEQUENCE_MAX;
use crate::read::get::{Found, lookup};
use crate::read::key_ranges::KeyRanges;
use crate::read::observed::Observed;
use crate::read::view::View;

/// The sequence number of uncommitted points. The pipeline never gives it away.
pub(crate) const OWN: Sequence = SEQUENCE_MAX;

/// What a transaction has made of a key.
#[derive(Debug, Clone)]
pub(crate) enum OwnWrite {
    Put(Arc<[u8]>),
    /// It will live so long, from the commit on.
    PutExpiring(Millis, Arc<[u8]>),
    Delete,
    Merge(Box<Operands>),
}

/// Operands of a key's merge operator.
#[derive(Debug, Clone)]
pub(crate) struct Operands {
    pub(crate) base: Base,
    /// Oldest first.
    pub(crate) list: Vec<Arc<[u8]>>,
}

/// What operands apply to.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// Whatever is committed.
    Committed,
    /// The value that the transaction has set itself, or none, because it has deleted the key.
    Own(Option<Arc<[u8]>>),
}

impl Operands {
    /// Adds the operands to a chain that goes from newer to older ones, behind what it has.
    pub(crate) fn push_to(&self, chain: &mut Chain) {
        for operand in self.list.iter().rev() {
            chain.push(Trailer::new(OWN, ValueKind::Merge), operand);
        }
    }
}

/// What writes have left of a key.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) write: OwnWrite,
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

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    /// What was written to the key; `None` if nothing.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&OwnWrite> {
        static DELETED: OwnWrite = OwnWrite::Delete;
        match self.points.get(key) {
            Some(point) => Some(&point.write),
            None => self.ranges.contains(key).then_some(&DELETED),
        }
    }

    /// What `take` makes of a full key's value: with these writes on top of what the view has at `sequence`. `observed` is told if the
    /// view was asked.
    pub(crate) fn find<R>(
        &self,
        (view, sequence): (&View, Sequence),
        key: &[u8],
        observed: Option<&Observed>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let operands = match self.get(key) {
            Some(OwnWrite::Put(value) | OwnWrite::PutExpiring(_, value)) => {
                return Ok(Some(take(value)));
            }
            Some(OwnWrite::Delete) => return Ok(None),
            Some(OwnWrite::Merge(operands)) => Some(&**operands),
            None => None,
        };
        if let Some(Operands { base: Base::Own(base), .. }) = operands {
            return merged(view, key, base.as_deref(), operands).map(|value| Some(take(&value)));
        }
        if let Some(observed) = observed {
            observed.key(key);
        }
        let found = lookup(view, key, sequence)?;
        if operands.is_none() {
            return Ok(found.map(|found| take(found.as_slice())));
        }
        let base = found.as_ref().map(Found::as_slice);
        merged(view, key, base, operands).map(|value| Some(take(&value)))
    }
}

fn merged(
    view: &View,
    key: &[u8],
    base: Option<&[u8]>,
    operands: Option<&Operands>,
) -> Result<Vec<u8>> {
    let mut chain = Chain::default();
    operands.iter().for_each(|operands| operands.push_to(&mut chain));
    view.rules.merge(key, base, &chain)
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
        let (kind, value) = match &point.write {
            // The lifetime has not begun.
            OwnWrite::Put(value) | OwnWrite::PutExpiring(_, value) => (ValueKind::Put, Some(value)),
            OwnWrite::Delete => (ValueKind::Delete, None),
            // Whoever meets it asks the overlay for the operands.
            OwnWrite::Merge(_) => (ValueKind::Merge, None),
        };
        Self { key: Arc::clone(key), trailer: Trailer::new(OWN, kind), value: value.cloned() }
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

    fn next(&mut self) -> Result<Option<Standing>> {
        let key = Arc::clone(&self.at().key);
        self.forward(Bound::Excluded(&key));
        Ok(self.standing())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        self.current.as_ref().map(|own| Standing { trailer: own.trailer, repeats: false })
    }

    fn prev(&mut self) -> Result<Option<Standing>> {
        let key = Arc::clone(&self.at().key);
        self.backward(Bound::Excluded(&key));
        Ok(self.standing())
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

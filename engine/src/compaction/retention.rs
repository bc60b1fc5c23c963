//! Which versions and tombstones a flush or compaction may drop.
//!
//! The live snapshots and the visible end cut the sequence numbers into *stripes*: two versions in one stripe look the same to every
//! reader that there is or will be. So of each key only the newest version of each stripe is kept, and a version that a range
//! tombstone of its own stripe covers is dropped. In the oldest stripe at the bottom of the tree, tombstones have nothing left to
//! hide and are dropped themselves, and sequence numbers become 0, which tables store in one byte.
//!
//! A value that has expired is as good as deleted to every reader, snapshots included, so it is treated as a tombstone.

use crate::error::Result;
use crate::key::{Sequence, Trailer, ValueKind};
use crate::kinds::Rules;
use crate::kinds::expiry::{self, Millis};
use crate::range_tombstones::RangeTombstones;

/// The fixed facts of one flush or compaction.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// Ascending: every live snapshot, and the newest visible sequence number.
    boundaries: Vec<Sequence>,
    /// Nothing below the output holds older versions of its keys.
    bottommost: bool,
    /// What has expired by now is dropped.
    now: Millis,
}

impl Retention {
    pub(crate) fn new(boundaries: Vec<Sequence>, bottommost: bool, rules: &Rules) -> Self {
        debug_assert!(boundaries.is_sorted() && !boundaries.is_empty());
        Self { boundaries, bottommost, now: rules.now() }
    }

    fn stripe(&self, sequence: Sequence) -> usize {
        self.boundaries.partition_point(|&boundary| boundary < sequence)
    }

    /// The newest sequence number of a stripe.
    fn stripe_end(&self, stripe: usize) -> Sequence {
        self.boundaries.get(stripe).copied().unwrap_or(Sequence::MAX)
    }

    /// The tombstones that must stay.
    pub(crate) fn tombstones(&self, inputs: &RangeTombstones) -> RangeTombstones {
        inputs.filtered(|sequence, newer| {
            let stripe = self.stripe(sequence);
            let hidden = newer.is_some_and(|newer| self.stripe(newer) == stripe);
            let hides_nothing = self.bottommost && stripe == 0;
            !hidden && !hides_nothing
        })
    }

    /// Starts on a sequence of records.
    pub(crate) fn filter<'a>(&'a self, tombstones: &'a RangeTombstones) -> RecordFilter<'a> {
        RecordFilter { retention: self, tombstones, key: Vec::new(), stripe: None }
    }
}

/// Decides record by record, in internal-key order.
#[derive(Debug)]
pub(crate) struct RecordFilter<'a> {
    retention: &'a Retention,
    tombstones: &'a RangeTombstones,
    /// The key of the last record, and the stripe of its last version seen.
    key: Vec<u8>,
    stripe: Option<usize>,
}

impl RecordFilter<'_> {
    /// Takes the next record and gives what stays of it to `emit`.
    #[inline]
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        emit: &mut impl FnMut(&[u8], Trailer, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let stripe = self.retention.stripe(trailer.sequence());
        if self.stripe.is_some() && key == self.key.as_slice() {
            if self.stripe == Some(stripe) {
                return Ok(());
            }
        } else {
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.stripe = Some(stripe);
        if self.is_covered(key, trailer, stripe) {
            return Ok(());
        }
        match trailer.kind() {
            Some(ValueKind::Put) => emit(key, self.settled(trailer, stripe), value),
            Some(ValueKind::Delete) if self.hides_nothing(stripe) => Ok(()),
            Some(ValueKind::PutExpiring) => self.push_expiring(key, trailer, value, stripe, emit),
            _ => emit(key, trailer, value),
        }
    }

    /// A value that has expired becomes a delete, so that it goes on hiding older versions, whatever the clock will say later.
    #[inline(never)]
    fn push_expiring(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        stripe: usize,
        emit: &mut impl FnMut(&[u8], Trailer, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if expiry::alive(value, self.retention.now)?.is_some() {
            emit(key, self.settled(trailer, stripe), value)
        } else if self.hides_nothing(stripe) {
            Ok(())
        } else {
            emit(key, Trailer::new(trailer.sequence(), ValueKind::Delete), &[])
        }
    }

    /// True if nothing older than this stripe's version is left anywhere.
    #[inline]
    fn hides_nothing(&self, stripe: usize) -> bool {
        self.retention.bottommost && stripe == 0
    }

    /// The trailer to keep a value with.
    #[inline]
    fn settled(&self, trailer: Trailer, stripe: usize) -> Trailer {
        match trailer.kind() {
            Some(kind) if self.hides_nothing(stripe) => Trailer::new(0, kind),
            _ => trailer,
        }
    }

    fn is_covered(&self, key: &[u8], trailer: Trailer, stripe: usize) -> bool {
        !self.tombstones.is_empty()
            && self
                .tombstones
                .newest_covering(key, self.retention.stripe_end(stripe))
                .is_some_and(|tombstone| tombstone > trailer.sequence())
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;

//! Which versions and tombstones a flush or compaction may drop.
//!
//! The live snapshots and the visible end cut the sequence numbers into *stripes*: two versions in one stripe look the same to every
//! reader that there is or will be. So of each key only the newest version of each stripe is kept, and a version that a range
//! tombstone of its own stripe covers is dropped. In the oldest stripe at the bottom of the tree, tombstones have nothing left to
//! hide and are dropped themselves, and sequence numbers become 0, which tables store in one byte.

use crate::key::{Sequence, Trailer, ValueKind};
use crate::range_tombstones::RangeTombstones;

/// The fixed facts of one flush or compaction.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// Ascending: every live snapshot, and the newest visible sequence number.
    boundaries: Vec<Sequence>,
    /// Nothing below the output holds older versions of its keys.
    bottommost: bool,
}

impl Retention {
    pub(crate) fn new(boundaries: Vec<Sequence>, bottommost: bool) -> Self {
        debug_assert!(boundaries.is_sorted() && !boundaries.is_empty());
        Self { boundaries, bottommost }
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
    /// The trailer to keep the record with; `None` to drop it.
    #[inline]
    pub(crate) fn keep(&mut self, key: &[u8], trailer: Trailer) -> Option<Trailer> {
        let stripe = self.retention.stripe(trailer.sequence());
        if self.stripe.is_some() && key == self.key.as_slice() {
            if self.stripe == Some(stripe) {
                return None;
            }
        } else {
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.stripe = Some(stripe);
        if self.is_covered(key, trailer, stripe) {
            return None;
        }
        if !(self.retention.bottommost && stripe == 0) {
            return Some(trailer);
        }
        match trailer.kind() {
            Some(ValueKind::Delete) => None,
            Some(ValueKind::Put) => Some(Trailer::new(0, ValueKind::Put)),
            _ => Some(trailer),
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
mod tests {
    use super::*;

    fn run(
        boundaries: &[Sequence],
        bottommost: bool,
        tombstones: &[(&str, &str, Sequence)],
        records: &[(&str, Sequence, ValueKind)],
    ) -> Vec<(String, Sequence, ValueKind)> {
        let retention = Retention::new(boundaries.to_vec(), bottommost);
        let tombstones = RangeTombstones::from_tombstones(
            tombstones.iter().map(|&(start, end, seq)| (start.into(), end.into(), seq)),
        );
        let mut filter = retention.filter(&tombstones);
        records
            .iter()
            .filter_map(|&(key, sequence, kind)| {
                let kept = filter.keep(key.as_bytes(), Trailer::new(sequence, kind))?;
                Some((key.to_owned(), kept.sequence(), kept.kind().unwrap()))
            })
            .collect()
    }

    use ValueKind::{Delete, Put};

    #[test]
    fn without_snapshots_only_the_newest_version_stays() {
        let records = [("a", 9, Put), ("a", 5, Put), ("b", 7, Delete), ("b", 2, Put)];
        let kept = run(&[10], false, &[], &records);
        assert_eq!(kept, vec![("a".into(), 9, Put), ("b".into(), 7, Delete)]);
        assert_eq!(run(&[10], true, &[], &records), vec![("a".into(), 0, Put)]);
    }

    #[test]
    fn every_snapshot_keeps_the_version_that_it_sees() {
        let records =
            [("a", 9, Put), ("a", 8, Put), ("a", 5, Delete), ("a", 4, Put), ("a", 1, Put)];
        let kept = run(&[4, 6, 10], true, &[], &records);
        assert_eq!(kept, vec![("a".into(), 9, Put), ("a".into(), 5, Delete), ("a".into(), 0, Put)]);
    }

    #[test]
    fn a_range_tombstone_drops_what_it_covers_in_its_own_stripe_only() {
        let records = [("a", 9, Put), ("b", 3, Put), ("c", 3, Put)];
        assert_eq!(run(&[10], false, &[("a", "c", 5)], &records).len(), 2);
        assert_eq!(run(&[4, 10], false, &[("a", "c", 5)], &records).len(), 3, "a snapshot at 4");
        let retention = Retention::new(vec![4, 10], true);
        let set = RangeTombstones::from_tombstones([(b"a".to_vec(), b"c".to_vec(), 5)]);
        assert!(!retention.tombstones(&set).is_empty(), "the snapshot's version must stay hidden");
        assert!(Retention::new(vec![10], true).tombstones(&set).is_empty());
    }
}

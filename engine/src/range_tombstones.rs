//! Range tombstones cut into fragments, so that one binary search tells the newest one over a key.
//!
//! Guarantees: the fragments are sorted, disjoint and not empty; the sequence numbers of a fragment
//! are distinct and newest first; neighbours that touch and say the same are one fragment. The set
//! never changes once it is built.
//!
//! ```text
//! tombstones            fragments
//! [a ------- d) @5      [a, b) {5}
//!     [b ------- f) @9  [b, d) {9, 5}
//!                       [d, f) {9}
//! ```
//!
//! A fragment lists every tombstone above it, so a stack of `n` tombstones over the same keys costs
//! `n` numbers per fragment. Disjoint tombstones, the usual case, cost one fragment of one number
//! each.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::key::Sequence;

/// Start (inclusive), end (exclusive), and the sequence numbers of all tombstones over that range,
/// newest first.
pub(crate) type Fragment<'a> = (&'a [u8], &'a [u8], &'a [Sequence]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredFragment {
    start: Vec<u8>,
    end: Vec<u8>,
    sequences: Vec<Sequence>,
}

/// An immutable set of range tombstones over full keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeTombstones {
    fragments: Vec<StoredFragment>,
}

impl RangeTombstones {
    /// The set that covers nothing.
    pub(crate) const fn empty() -> Self {
        Self { fragments: Vec::new() }
    }

    /// The fragments of tombstones in any order; a tombstone whose start is not before its end
    /// covers nothing.
    pub(crate) fn from_tombstones(
        tombstones: impl IntoIterator<Item = (Vec<u8>, Vec<u8>, Sequence)>,
    ) -> Self {
        let tombstones: Vec<_> = tombstones.into_iter().collect();
        let borrowed =
            tombstones.iter().map(|(start, end, sequence)| (&**start, &**end, *sequence));
        Self::sweep(borrowed)
    }

    /// All tombstones of all sets.
    pub(crate) fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::sweep(sets.into_iter().flat_map(|set| {
            set.fragments().flat_map(|(start, end, sequences)| {
                sequences.iter().map(move |&sequence| (start, end, sequence))
            })
        }))
    }

    /// Walks the edges of all tombstones in key order, keeping the set of those that are open.
    fn sweep<'a>(tombstones: impl Iterator<Item = (&'a [u8], &'a [u8], Sequence)>) -> Self {
        // Edges at one key are handled together, so the order among them is of no importance.
        let mut edges: Vec<(&[u8], Sequence, bool)> = Vec::new();
        for (start, end, sequence) in tombstones.filter(|(start, end, _)| start < end) {
            edges.push((start, sequence, true));
            edges.push((end, sequence, false));
        }
        edges.sort_unstable_by(|a, b| a.0.cmp(b.0));

        // The same sequence number can be open more than once: tables may share parts of one
        // tombstone.
        let mut open: BTreeMap<Sequence, usize> = BTreeMap::new();
        let mut result = Self::empty();
        let mut opened_at: &[u8] = &[];
        for same_key in edges.chunk_by(|a, b| a.0 == b.0) {
            let key = same_key[0].0;
            if !open.is_empty() {
                result.append(opened_at, key, open.keys().rev().copied().collect());
            }
            for &(_, sequence, _) in same_key.iter().filter(|edge| edge.2) {
                *open.entry(sequence).or_insert(0) += 1;
            }
            for &(_, sequence, _) in same_key.iter().filter(|edge| !edge.2) {
                if let Entry::Occupied(mut count) = open.entry(sequence) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
            opened_at = key;
        }
        debug_assert!(open.is_empty(), "every tombstone that starts also ends");
        result
    }

    /// Adds a fragment at or after the end of the last one.
    fn append(&mut self, start: &[u8], end: &[u8], sequences: Vec<Sequence>) {
        debug_assert!(start < end && !sequences.is_empty());
        if let Some(last) = self.fragments.last_mut() {
            debug_assert!(last.end.as_slice() <= start);
            if last.end == start && last.sequences == sequences {
                last.end = end.to_vec();
                return;
            }
        }
        self.fragments.push(StoredFragment { start: start.to_vec(), end: end.to_vec(), sequences });
    }

    /// True if no key is covered.
    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Number of fragments.
    pub(crate) fn len(&self) -> usize {
        self.fragments.len()
    }

    /// All fragments in key order.
    pub(crate) fn fragments(&self) -> impl DoubleEndedIterator<Item = Fragment<'_>> {
        self.fragments.iter().map(StoredFragment::borrow)
    }

    /// The fragment that `key` lies in.
    pub(crate) fn covering_fragment(&self, key: &[u8]) -> Option<Fragment<'_>> {
        let after = self.fragments.partition_point(|fragment| fragment.start.as_slice() <= key);
        let candidate = &self.fragments[after.checked_sub(1)?];
        (key < candidate.end.as_slice()).then(|| candidate.borrow())
    }

    /// The newest tombstone over `key` that a reader at `snapshot` may see.
    #[inline]
    pub(crate) fn newest_covering(&self, key: &[u8], snapshot: Sequence) -> Option<Sequence> {
        if self.fragments.is_empty() {
            return None;
        }
        let (_, _, sequences) = self.covering_fragment(key)?;
        let invisible = sequences.partition_point(|&sequence| sequence > snapshot);
        sequences.get(invisible).copied()
    }

    /// The part of the set in `from` (inclusive) to `to` (exclusive); `None` is no bound.
    pub(crate) fn clipped(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Self {
        let first = from.map_or(0, |from| {
            self.fragments.partition_point(|fragment| fragment.end.as_slice() <= from)
        });
        let mut result = Self::empty();
        for (start, end, sequences) in self.fragments[first..].iter().map(StoredFragment::borrow) {
            if to.is_some_and(|to| to <= start) {
                break;
            }
            let start = from.map_or(start, |from| from.max(start));
            let end = to.map_or(end, |to| to.min(end));
            if start < end {
                result.append(start, end, sequences.to_vec());
            }
        }
        result
    }

    /// The set without the tombstones that `keep` refuses.
    ///
    /// `keep` is asked for each tombstone of each fragment, newest first, and is told the next
    /// newer tombstone of the same fragment, whether or not that one was kept.
    pub(crate) fn filtered(
        &self,
        mut keep: impl FnMut(Sequence, Option<Sequence>) -> bool,
    ) -> Self {
        let mut result = Self::empty();
        for (start, end, sequences) in self.fragments() {
            let mut newer = None;
            let kept: Vec<Sequence> = sequences
                .iter()
                .copied()
                .filter(|&sequence| keep(sequence, newer.replace(sequence)))
                .collect();
            if !kept.is_empty() {
                result.append(start, end, kept);
            }
        }
        result
    }
}

impl StoredFragment {
    fn borrow(&self) -> Fragment<'_> {
        (&self.start, &self.end, &self.sequences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tombstone = (Vec<u8>, Vec<u8>, Sequence);

    /// A small generator whose whole run follows from one printed number.
    struct Random(u64);

    impl Random {
        fn from_environment() -> Self {
            let seed = match std::env::var("RUSTLITE_TEST_SEED") {
                Ok(seed) => seed.parse().expect("RUSTLITE_TEST_SEED must be a number"),
                Err(_) => std::process::id().into(),
            };
            eprintln!("replay with RUSTLITE_TEST_SEED={seed}");
            Self(seed)
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % bound
        }

        /// Short keys of few letters, so that equal bounds and prefixes of one another are common.
        fn key(&mut self) -> Vec<u8> {
            (0..self.below(4)).map(|_| b'a' + self.below(3) as u8).collect()
        }

        fn tombstones(&mut self, most: u64) -> Vec<Tombstone> {
            (0..self.below(most + 1)).map(|_| (self.key(), self.key(), self.below(12))).collect()
        }
    }

    fn every_key() -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
        for length in 0..4 {
            let longer: Vec<_> = keys
                .iter()
                .filter(|key| key.len() == length)
                .flat_map(|key| b"abcd".iter().map(|letter| [key.as_slice(), &[*letter]].concat()))
                .collect();
            keys.extend(longer);
        }
        keys
    }

    fn naive_all(model: &[Tombstone], key: &[u8]) -> Vec<Sequence> {
        let mut all: Vec<_> = model
            .iter()
            .filter(|(start, end, _)| start.as_slice() <= key && key < end.as_slice())
            .map(|tombstone| tombstone.2)
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.dedup();
        all
    }

    fn assert_same(set: &RangeTombstones, model: &[Tombstone]) {
        assert_well_formed(set);
        for key in every_key() {
            let expected = naive_all(model, &key);
            let found = set.covering_fragment(&key).map_or(&[][..], |fragment| fragment.2);
            assert_eq!(found, expected, "all over {key:?} in {model:?}");
            for snapshot in 0..13 {
                let newest = expected.iter().copied().find(|&sequence| sequence <= snapshot);
                assert_eq!(set.newest_covering(&key, snapshot), newest, "{key:?} at {snapshot}");
            }
        }
    }

    fn assert_well_formed(set: &RangeTombstones) {
        assert_eq!(set.len(), set.fragments().count());
        assert_eq!(set.is_empty(), set.fragments.is_empty());
        for fragment in &set.fragments {
            assert!(fragment.start < fragment.end, "{fragment:?}");
            assert!(!fragment.sequences.is_empty(), "{fragment:?}");
            assert!(fragment.sequences.windows(2).all(|pair| pair[0] > pair[1]), "{fragment:?}");
        }
        for pair in set.fragments.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{pair:?}");
            let split = pair[0].end == pair[1].start && pair[0].sequences == pair[1].sequences;
            assert!(!split, "neighbours that say the same: {pair:?}");
        }
    }

    #[test]
    fn fragments_answer_as_the_list_of_tombstones_does() {
        let mut random = Random::from_environment();
        for _ in 0..200 {
            let model = random.tombstones(8);
            assert_same(&RangeTombstones::from_tombstones(model.clone()), &model);
        }
    }

    #[test]
    fn union_covers_what_any_of_the_sets_covers() {
        let mut random = Random::from_environment();
        for _ in 0..100 {
            let models: Vec<_> = (0..random.below(4)).map(|_| random.tombstones(4)).collect();
            let sets: Vec<_> = models
                .iter()
                .map(|model| RangeTombstones::from_tombstones(model.clone()))
                .collect();
            assert_same(&RangeTombstones::union(&sets), &models.concat());
        }
    }

    #[test]
    fn clipping_keeps_exactly_the_inside() {
        let mut random = Random::from_environment();
        for _ in 0..100 {
            let model = random.tombstones(6);
            let set = RangeTombstones::from_tombstones(model.clone());
            let from = (random.below(4) > 0).then(|| random.key());
            let to = (random.below(4) > 0).then(|| random.key());
            let clip = |(start, end, sequence): &Tombstone| {
                let start = from.iter().chain([start]).max().cloned().unwrap();
                let end = to.iter().chain([end]).min().cloned().unwrap();
                (start, end, *sequence)
            };
            let inside: Vec<_> = model.iter().map(clip).collect();
            assert_same(&set.clipped(from.as_deref(), to.as_deref()), &inside);
        }
    }

    #[test]
    fn filtering_drops_tombstones_and_names_the_next_newer_one() {
        let mut random = Random::from_environment();
        for _ in 0..100 {
            let model = random.tombstones(8);
            let set = RangeTombstones::from_tombstones(model.clone());
            let limit = random.below(12);
            let even: Vec<_> =
                model.iter().filter(|t| t.2 % 2 == 0 && t.2 < limit).cloned().collect();
            assert_same(&set.filtered(|sequence, _| sequence % 2 == 0 && sequence < limit), &even);

            // Keeping only what has nothing newer leaves the newest tombstone of each fragment.
            let newest = set.filtered(|_, newer| newer.is_none());
            assert_well_formed(&newest);
            for key in every_key() {
                assert_eq!(newest.newest_covering(&key, 99), set.newest_covering(&key, 99));
                assert!(newest.covering_fragment(&key).is_none_or(|f| f.2.len() == 1));
            }
            let mut asked = Vec::new();
            set.filtered(|sequence, newer| {
                asked.push((sequence, newer));
                false
            });
            let expected: Vec<_> = set
                .fragments()
                .flat_map(|(_, _, sequences)| {
                    let newer = std::iter::once(None).chain(sequences.iter().copied().map(Some));
                    sequences.iter().copied().zip(newer).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(asked, expected);
        }
    }

    #[test]
    fn a_hundred_thousand_disjoint_tombstones_make_as_many_fragments() {
        let count = if cfg!(miri) { 100 } else { 100_000_u32 };
        let set = RangeTombstones::from_tombstones((0..count).rev().map(|index| {
            let start = (2 * index).to_be_bytes().to_vec();
            (start, (2 * index + 1).to_be_bytes().to_vec(), u64::from(index) + 1)
        }));
        assert_eq!(set.len(), count as usize);
        for index in (0..count).step_by(97) {
            let expected = Some(u64::from(index) + 1);
            assert_eq!(set.newest_covering(&(2 * index).to_be_bytes(), 1 << 40), expected);
            assert_eq!(set.newest_covering(&(2 * index + 1).to_be_bytes(), 1 << 40), None);
        }
    }

    #[test]
    fn parts_of_one_tombstone_join_again() {
        let whole = RangeTombstones::from_tombstones([(b"a".to_vec(), b"z".to_vec(), 7)]);
        let left = whole.clipped(None, Some(b"m"));
        let right = whole.clipped(Some(b"m"), None);
        assert_eq!(RangeTombstones::union([&right, &left, &left]), whole);
        assert_eq!(RangeTombstones::union([]), RangeTombstones::empty());
    }

    #[test]
    fn empty_and_reversed_ranges_cover_nothing() {
        let reversed = (b"b".to_vec(), b"a".to_vec(), 1);
        let empty = (b"a".to_vec(), b"a".to_vec(), 2);
        assert!(RangeTombstones::from_tombstones([reversed, empty]).is_empty());
    }
}

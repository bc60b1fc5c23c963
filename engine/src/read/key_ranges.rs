//! A set of keys made of ranges, which can be undone step by step.
//!
//! Guarantees: ranges are not empty, disjoint and don't touch; so one search tells whether a key or a range meets the set.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::read::visible::KeyRange;

/// Disjoint ranges of full keys: inclusive start, exclusive end.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyRanges {
    /// End by start.
    ranges: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Length of all starts and ends.
    bytes: usize,
}

/// How to take an insert back.
#[derive(Debug)]
pub(crate) struct Inserted {
    /// Start of the range that now covers the inserted one.
    start: Vec<u8>,
    /// The ranges that it replaced.
    replaced: Vec<KeyRange>,
}

impl Inserted {
    /// Memory that it holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let replaced = self.replaced.iter().map(|range| range.start.len() + range.end.len() + 48);
        self.start.len() + replaced.sum::<usize>()
    }
}

impl KeyRanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Length of all starts and ends, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ranges.iter().map(|(start, end)| (start.as_slice(), end.as_slice()))
    }

    /// True if the key is in the set.
    #[inline]
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.last_from(Bound::Included(key)).is_some_and(|(_, end)| key < end)
    }

    /// True if a key between the bounds is in the set.
    pub(crate) fn overlaps(&self, start: &[u8], end: &[u8]) -> bool {
        self.last_from(Bound::Excluded(end)).is_some_and(|(_, last)| start < last)
    }

    /// The last range that starts within the bound.
    fn last_from(&self, bound: Bound<&[u8]>) -> Option<(&[u8], &[u8])> {
        if self.ranges.is_empty() {
            return None;
        }
        let range = self.ranges.range::<[u8], _>((Bound::Unbounded, bound)).next_back();
        range.map(|(start, end)| (start.as_slice(), end.as_slice()))
    }

    /// Adds the keys from `start` to `end`, if there are any. Cheap when they continue a range.
    pub(crate) fn add(&mut self, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        let next = self.ranges.range::<[u8], _>((Bound::Excluded(start), Bound::Unbounded)).next();
        let alone = next.is_none_or(|(next, _)| end < next.as_slice());
        let before = self.ranges.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(start)));
        if let (true, Some((_, last))) = (alone, before.into_iter().next_back())
            && start <= last.as_slice()
        {
            if last.as_slice() < end {
                self.bytes = self.bytes - last.len() + end.len();
                last.clear();
                last.extend_from_slice(end);
            }
            return;
        }
        self.insert(start, end);
    }

    /// Adds the keys from `start` to `end`, of which there must be some, so that it can be undone.
    pub(crate) fn insert(&mut self, start: &[u8], end: &[u8]) -> Inserted {
        debug_assert!(start < end);
        let (mut low, mut high) = (start.to_vec(), end.to_vec());
        let mut replaced = Vec::new();
        // Ranges that touch the new one, from the last to the first.
        while let Some((first, last)) = self.last_from(Bound::Included(high.as_slice()))
            && low.as_slice() <= last
        {
            let range = KeyRange { start: first.to_vec(), end: last.to_vec() };
            low = low.min(range.start.clone());
            high = high.max(range.end.clone());
            self.ranges.remove(&range.start);
            self.bytes -= range.start.len() + range.end.len();
            replaced.push(range);
        }
        self.bytes += low.len() + high.len();
        self.ranges.insert(low.clone(), high);
        Inserted { start: low, replaced }
    }

    /// Takes back the newest insert that is not yet taken back.
    pub(crate) fn undo(&mut self, inserted: Inserted) {
        if let Some(end) = self.ranges.remove(&inserted.start) {
            self.bytes -= inserted.start.len() + end.len();
        }
        for range in inserted.replaced {
            self.bytes += range.start.len() + range.end.len();
            self.ranges.insert(range.start, range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(set: &KeyRanges) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        set.iter().map(|(start, end)| (text(start), text(end))).collect()
    }

    #[test]
    fn ranges_that_touch_become_one_and_come_apart_again() {
        let mut set = KeyRanges::default();
        let first = set.insert(b"c", b"e");
        let second = set.insert(b"m", b"p");
        let bridge = set.insert(b"d", b"m");
        assert_eq!(listed(&set), [("c".into(), "p".into())]);
        assert!(set.contains(b"c") && set.contains(b"o") && !set.contains(b"p"));
        let inside = set.insert(b"f", b"g");
        assert_eq!(set.len(), 1);
        set.undo(inside);
        set.undo(bridge);
        assert_eq!(listed(&set), [("c".into(), "e".into()), ("m".into(), "p".into())]);
        assert!(set.overlaps(b"a", b"d") && set.overlaps(b"d", b"z") && !set.overlaps(b"e", b"m"));
        set.undo(second);
        set.undo(first);
        assert!(set.is_empty() && set.bytes() == 0 && !set.overlaps(b"", b"z"));
    }

    #[test]
    fn adding_gives_the_same_set_as_inserting() {
        // Every pair of ranges over six letters, then a third over both.
        let bounds: Vec<(u8, u8)> = (b'a'..b'f')
            .flat_map(|start| (start + 1..=b'f').map(move |end| (start, end)))
            .collect();
        for &(a, b) in &bounds {
            for &(c, d) in &bounds {
                for &(e, f) in &bounds {
                    let (mut added, mut inserted) = (KeyRanges::default(), KeyRanges::default());
                    for (start, end) in [(a, b), (c, d), (e, f)] {
                        added.add(&[start], &[end]);
                        inserted.insert(&[start], &[end]);
                    }
                    assert_eq!(added.ranges, inserted.ranges);
                    let bytes: usize = added.iter().map(|(low, high)| low.len() + high.len()).sum();
                    assert_eq!((added.bytes(), inserted.bytes()), (bytes, bytes));
                    for key in b'a'..=b'f' {
                        let expected = [(a, b), (c, d), (e, f)]
                            .iter()
                            .any(|&(start, end)| start <= key && key < end);
                        assert_eq!(added.contains(&[key]), expected);
                    }
                }
            }
        }
        let mut nothing = KeyRanges::default();
        nothing.add(b"b", b"b");
        nothing.add(b"b", b"a");
        assert!(nothing.is_empty());
    }
}

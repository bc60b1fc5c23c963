//! A flat index over a skiplist: the heads of the nodes of one level in an array, so that a search begins near its end.
//!
//! The upper half of a skiplist's levels costs a search one cache miss each. Their nodes are few, so an array of their heads fits into
//! a near cache, and a binary search in it costs less than two of those misses. The array is a snapshot: nodes that are
//! inserted later are found by walking on from the node that it gives, and when the list has grown by half a new one is made.
//!
//! Guarantees: a fence is strictly before the target that it is given for; nothing is published through this module but
//! addresses of nodes that were reachable before, and generations are set once and read after.

#![forbid(unsafe_code)]

use std::sync::OnceLock;

use super::arena::Address;
use crate::key::{common_prefix_len, head_of};
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Records that a list has before the first fences are made.
const RECORDS_MIN: usize = if cfg!(miri) { 64 } else { 2048 };

/// Enough for a list that grows by half from one generation to the next until addresses run out.
const GENERATIONS: usize = 48;

/// The heads of some nodes, in order.
#[derive(Debug)]
pub(crate) struct Fences {
    /// What all fenced keys begin with.
    prefix: Vec<u8>,
    /// First 8 bytes behind the prefix, as numbers.
    heads: Vec<u64>,
    nodes: Vec<Address>,
}

impl Fences {
    /// Fences at these nodes, whose keys ascend.
    pub(crate) fn new<'a>(nodes: impl Iterator<Item = (&'a [u8], Address)>) -> Option<Self> {
        let (keys, nodes): (Vec<&[u8]>, Vec<Address>) = nodes.unzip();
        let (first, last) = (keys.first()?, keys.last()?);
        let shared = common_prefix_len(first, last);
        let head = |key: &&[u8]| head_of(key.get(shared..).unwrap_or_default());
        let heads = keys.iter().map(head).collect();
        Some(Self { prefix: first.get(..shared)?.to_vec(), heads, nodes })
    }

    /// The last node that is certainly before `key`, if one is and it is not the very last.
    ///
    /// Behind the last fence lie all keys of a load in key order, too many to walk.
    #[inline]
    pub(crate) fn before(&self, key: &[u8]) -> Option<Address> {
        let head = head_of(key.strip_prefix(self.prefix.as_slice())?);
        let count = self.heads.partition_point(|&fence| fence < head);
        if count == self.heads.len() {
            return None;
        }
        self.nodes.get(count.checked_sub(1)?).copied()
    }
}

/// The fences of one list, generation after generation. Old ones stay, because somebody may be using them.
pub(crate) struct FenceIndex {
    generations: Box<[OnceLock<Fences>; GENERATIONS]>,
    /// How many generations there are. Release after the generation is set, and acquire before it is used.
    made: AtomicUsize,
    /// The number of records from which on the next generation is due. Exchanged by whoever makes it, so only one does; relaxed.
    due_at: AtomicUsize,
}

impl FenceIndex {
    pub(crate) fn new() -> Self {
        Self {
            generations: Box::new([const { OnceLock::new() }; GENERATIONS]),
            made: AtomicUsize::new(0),
            due_at: AtomicUsize::new(RECORDS_MIN),
        }
    }

    /// The newest generation.
    #[inline]
    pub(crate) fn current(&self) -> Option<&Fences> {
        let newest = self.made.load(Ordering::Acquire).checked_sub(1)?;
        self.generations.get(newest)?.get()
    }

    /// True if a list of so many records should have new fences.
    #[inline]
    pub(crate) fn is_due(&self, records: usize) -> bool {
        records >= self.due_at.load(Ordering::Relaxed)
    }

    /// True for exactly one caller when new fences are due: who makes them.
    pub(crate) fn claim(&self, records: usize) -> bool {
        let due_at = self.due_at.load(Ordering::Relaxed);
        let next = records.saturating_add(records / 2);
        records >= due_at
            && self
                .due_at
                .compare_exchange(due_at, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Makes fences the newest generation. A list that outgrows the generations keeps its last.
    pub(crate) fn publish(&self, fences: Fences) {
        let made = self.made.load(Ordering::Acquire);
        // Two that were due one after the other may end at the same time: one of them is enough.
        if self.generations.get(made).is_some_and(|slot| slot.set(fences).is_ok()) {
            self.made.store(made + 1, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_the_last_one_whose_head_is_before_the_key() {
        let keys = ["user1", "user10", "user2000000", "user20000001", "user3"];
        let nodes = (1..).map(Address);
        let fences = Fences::new(keys.iter().map(|key| key.as_bytes()).zip(nodes)).unwrap();
        let before = |key: &str| fences.before(key.as_bytes()).map(|node| node.0);
        assert_eq!(before("user1"), None, "not strictly before");
        assert_eq!(before("user11"), Some(2));
        assert_eq!(before("user2000000"), Some(2));
        assert_eq!(before("user20000001"), Some(3));
        assert_eq!(before("user2500"), Some(4));
        assert_eq!(before("user4"), None, "behind the last");
        assert_eq!(before("zzz"), None, "another prefix");
        assert!(Fences::new(std::iter::empty()).is_none());
    }

    #[test]
    fn generations_are_due_when_the_list_has_grown_by_half() {
        let index = FenceIndex::new();
        assert!(index.current().is_none());
        assert!(!index.is_due(RECORDS_MIN - 1));
        assert!(!index.claim(RECORDS_MIN - 1));
        assert!(index.is_due(RECORDS_MIN));
        assert!(index.claim(RECORDS_MIN));
        assert!(!index.is_due(RECORDS_MIN));
        assert!(!index.claim(RECORDS_MIN));
        index.publish(Fences::new([(&b"k"[..], Address(7))].into_iter()).unwrap());
        assert_eq!(index.current().unwrap().nodes, [Address(7)]);
        assert!(!index.is_due(RECORDS_MIN * 3 / 2 - 1));
        assert!(index.is_due(RECORDS_MIN * 3 / 2));
    }
}

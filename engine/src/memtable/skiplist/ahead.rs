//! Finding where keys belong before they are inserted, while waiting for memory costs nothing.
//!
//! A search waits for memory at each node that it moves to. Here a search is something that can be left and gone on with: a move asks for
//! the next node and does not wait for it. The searches of several keys take turns, or other work is done between two moves. (Kocberber
//! et al., "Asynchronous memory access chaining", VLDB 2015.)
//!
//! An insert uses what was found if that is still true. Whether somebody has inserted there meanwhile is told by the exchange that links the
//! node, as always. A search may begin before its record has a sequence number, and then leads to where the newest version belongs. That is for
//! commits with a condition on the key only: whoever wrote it since has made them fail, so that every version that the search meets is older than
//! what will be inserted. Others must wait for the number and search for it, because newer versions may be there already.

#![forbid(unsafe_code)]

use std::num::NonZeroU64;

use super::{
    ArenaFull, FENCE_LEVEL, Gap, LINK_BYTES, Ordering, SkipList, Splice, Target, height_of,
};
use crate::key::Trailer;
use crate::memtable::arena::Address;
use crate::memtable::link::{self, Order};
use crate::simd::prefetch_at;

const LINE_BYTES: usize = 64;

/// Levels whose nodes behind the key are brought in too: most nodes are linked at no others.
const LEVELS_BEHIND: usize = 2;

/// How far the search for the place of a key has come, from a fence down.
#[derive(Debug, Default)]
pub(crate) struct Approach {
    /// The list that the addresses belong to; none if there is no search.
    owner: Option<NonZeroU64>,
    /// What is searched, beside the key.
    trailer: Trailer,
    /// Levels that are left to search.
    levels: usize,
    /// The gap of the level at hand, and whether what its end in front shares with the key is known.
    gap: Gap,
    measured: bool,
    /// The node behind that gap, if it had to be asked for because the link could not tell.
    asked: Address,
    /// The gaps of the levels that were searched.
    gaps: [Gap; FENCE_LEVEL + 1],
}

/// The node of a record that is complete, and that nobody can find yet.
#[derive(Debug)]
pub(crate) struct Unlinked {
    owner: NonZeroU64,
    address: Address,
    height: usize,
}

impl Approach {
    /// Whether moves are left.
    pub(crate) fn is_under_way(&self) -> bool {
        self.levels > 0
    }

    /// Whether the place was found, and is in that list.
    #[inline]
    pub(super) fn is_found_in(&self, list: &SkipList) -> bool {
        self.owner == Some(list.id) && self.levels == 0
    }
}

impl SkipList {
    /// Begins to search the place of a record, if that is between fences; `NEWEST` is for one that has no sequence number yet. Anything
    /// may be inserted meanwhile.
    pub(crate) fn set_out(&self, key: &[u8], trailer: Trailer) -> Approach {
        let Some(before) = self.fences.current().and_then(|fences| fences.before(key)) else {
            return Approach::default();
        };
        self.prefetch(before, FENCE_LEVEL);
        Approach {
            owner: Some(self.id),
            trailer,
            levels: FENCE_LEVEL + 1,
            gap: Gap { before, ..Gap::default() },
            ..Approach::default()
        }
    }

    /// Goes on to the next node of the search for the place of the same key, and asks for it; false if the place was found, or there is
    /// nothing to find.
    #[inline]
    pub(crate) fn go_on(&self, key: &[u8], approach: &mut Approach) -> bool {
        if approach.owner != Some(self.id) {
            return false;
        }
        let target = Target { key, trailer: approach.trailer };
        let node = self.node(approach.gap.before);
        if !approach.measured {
            approach.gap.shared_before = link::common(node.key(), key, 0) as u32;
            approach.measured = true;
        }
        while let Some(level) = approach.levels.checked_sub(1) {
            let gap = &mut approach.gap;
            let shared = gap.shared_before as usize;
            let link = node.follow(level);
            let next = link::address(link);
            if next != link::address(gap.link) && next != Address::NULL {
                let (order, shared) = match link::order(link, key, shared) {
                    Some(known) => known,
                    None if approach.asked == next => {
                        self.node(next).order(target, link::saturate(shared))
                    }
                    None => {
                        approach.asked = next;
                        self.prefetch(next, level);
                        return true;
                    }
                };
                if order == Order::Before {
                    (gap.before, gap.shared_before) = (next, shared as u32);
                    self.prefetch(next, level);
                    return true;
                }
                gap.shared_behind = shared as u32;
                if level < LEVELS_BEHIND && link::shared(link) != link::saturate(shared) {
                    // Linking a node here takes the key behind.
                    self.prefetch(next, 0);
                }
            }
            gap.link = link;
            approach.gaps[level] = *gap;
            approach.levels = level;
        }
        false
    }

    /// Writes the node of a record, which nobody finds before it is [linked](Self::link).
    pub(crate) fn make(
        &self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
    ) -> Result<Unlinked, ArenaFull> {
        let height = height_of(key, trailer);
        let address = self.make_node(Target { key, trailer }, value, height).ok_or(ArenaFull)?;
        Ok(Unlinked { owner: self.id, address, height })
    }

    /// The key of a node of this list.
    #[inline]
    pub(crate) fn key_of(&self, made: &Unlinked) -> &[u8] {
        assert_eq!(made.owner, self.id, "a node is used with the list that it was made for");
        self.node(made.address).key()
    }

    /// Links a node of this list, by the place that was searched before if it was found.
    #[inline]
    pub(crate) fn link(&self, made: Unlinked, splice: &mut Splice, approach: &Approach) {
        let key = self.key_of(&made);
        let Unlinked { address: made, height, .. } = made;
        let target = Target { key, trailer: Trailer(self.node(made).header().trailer) };
        if !approach.is_found_in(self) || height > approach.gaps.len() {
            return self.link_node(target, made, height, splice);
        }
        for (level, &(mut gap)) in approach.gaps.iter().enumerate().take(height) {
            while !self.link_between(target, made, level, &mut gap) {
                gap = self.walk(target, level, Gap { link: 0, shared_behind: 0, ..gap });
            }
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for the lines of a node that a search will read: link, header and the begin of the key.
    #[inline]
    fn prefetch(&self, at: Address, level: usize) {
        let base = self.node(at).base;
        prefetch_at(base.wrapping_sub(level * LINK_BYTES));
        prefetch_at(base);
        prefetch_at(base.wrapping_add(LINE_BYTES));
    }
}

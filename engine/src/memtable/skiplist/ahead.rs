//! Bringing in what inserts and searches of several keys will touch, so that their cache misses overlap.
//!
//! A search waits for memory at each node that it moves to. Here the paths of several keys are walked in turn, one move each, and a node is
//! asked for a turn before it is read. That decides nothing: whatever is found on the way is found again, at hand then, by the insert or
//! search itself. (Kocberber et al., "Asynchronous memory access chaining", VLDB 2015.)

#![forbid(unsafe_code)]

use super::{FENCE_LEVEL, LINK_BYTES, SkipList};
use crate::memtable::arena::Address;
use crate::memtable::link::{self, Order};
use crate::simd::prefetch_at;

/// Paths that are walked together, at most.
const PATHS: usize = 8;

/// A path that is not at its end after so many moves is given up: nodes that it has brought in may be gone again.
const MOVES_MAX: usize = 32;

const LINE_BYTES: usize = 64;

/// How far the search of a key has come.
struct Path<'k> {
    key: &'k [u8],
    /// A node before the key, and the level at which to go on from it.
    at: Address,
    level: usize,
    /// Bytes at the start that the key shares with that of the node, once the node has been read.
    shared: Option<usize>,
}

impl SkipList {
    /// Brings in what inserts of these keys will touch, as far as they belong between fences. Only a hint.
    pub(crate) fn bring_in<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let Some(fences) = self.fences.current() else { return };
        let mut paths: [Option<Path<'_>>; PATHS] = [const { None }; PATHS];
        for (path, key) in paths.iter_mut().zip(keys) {
            *path = fences.before(key).map(|at| {
                self.prefetch(at, FENCE_LEVEL);
                Path { key, at, level: FENCE_LEVEL, shared: None }
            });
        }
        for _ in 0..MOVES_MAX {
            let mut moving = false;
            for slot in &mut paths {
                if let Some(path) = slot {
                    if self.move_on(path) {
                        moving = true;
                    } else {
                        *slot = None;
                    }
                }
            }
            if !moving {
                return;
            }
        }
    }

    /// Goes to the next node of a path, and asks for it; false at the path's end.
    #[inline]
    fn move_on(&self, path: &mut Path<'_>) -> bool {
        let node = self.node(path.at);
        let shared = path.shared.unwrap_or_else(|| link::common(node.key(), path.key, 0));
        loop {
            let link = node.follow(path.level);
            let next = link::address(link);
            if next != Address::NULL {
                if let Some((Order::Before, shared)) = link::order(link, path.key, shared) {
                    self.prefetch(next, path.level);
                    (path.at, path.shared) = (next, Some(shared));
                    return true;
                }
                // If only the next key itself can tell, it is the key or very near.
                if path.level == 0 {
                    self.prefetch(next, 0);
                }
            }
            if path.level == 0 {
                return false;
            }
            path.level -= 1;
        }
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

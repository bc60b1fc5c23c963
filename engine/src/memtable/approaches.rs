//! The keys of a commit on their way to their places in the memtable, before the commit has its place in the order.
//!
//! Whoever makes a batch whose keys lie far apart sets out for them early, and goes on whenever there is something else to do between two
//! moves: waiting for memory then costs nothing (see [`skiplist`](super::skiplist)). The inserts use what was found. All of it is a
//! hint: what was not found by then, or of another memtable, is searched by the inserts.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Memtable;
use super::skiplist::Approach;
use crate::error::Result;
use crate::key::hash_key;

/// Keys that are under way at once, at most: about as many misses as a processor has outstanding.
const KEYS_MAX: usize = 8;

/// A search that has not arrived after so many moves is left to the insert: what it has brought in may be gone again.
const MOVES_MAX: usize = 32;

/// Searches for the places of some keys.
#[derive(Default)]
pub(crate) struct Approaches {
    memtable: Option<Arc<Memtable>>,
    /// The first `count` are under way; the others only keep their memory.
    ways: Vec<Way>,
    count: usize,
}

/// The search for the place of one key.
#[derive(Default)]
pub(super) struct Way {
    key: Vec<u8>,
    pub(super) hash: u64,
    pub(super) place: Approach,
}

impl Approaches {
    /// Forgets everything, and begins with a memtable.
    pub(crate) fn begin(&mut self, memtable: &Arc<Memtable>) {
        self.memtable = Some(Arc::clone(memtable));
        self.count = 0;
    }

    /// Forgets everything.
    pub(crate) fn end(&mut self) {
        self.memtable = None;
        self.count = 0;
    }

    /// Forgets the oldest searches if there is not room for so many more.
    pub(crate) fn make_room(&mut self, keys: usize) {
        if self.count + keys > KEYS_MAX {
            self.count = 0;
        }
    }

    /// Begins the search for the place of the key that `write` puts into an empty buffer, if there is room for it.
    pub(crate) fn set_out(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let Some(memtable) = self.memtable.as_ref().filter(|_| self.count < KEYS_MAX) else {
            return Ok(());
        };
        if self.count == self.ways.len() {
            self.ways.push(Way::default());
        }
        let way = &mut self.ways[self.count];
        way.key.clear();
        write(&mut way.key)?;
        way.hash = hash_key(&way.key);
        way.place = memtable.set_out(&way.key, way.hash);
        self.count += 1;
        Ok(())
    }

    /// Goes on by one move of each search.
    pub(crate) fn go_on(&mut self) {
        let Some(memtable) = &self.memtable else { return };
        for way in &mut self.ways[..self.count] {
            memtable.go_on(&way.key, &mut way.place);
        }
    }

    /// Goes on with all until a lookup of a key has nothing to wait for in the memtable: at once if the memtable certainly lacks it.
    pub(crate) fn await_lookup(&mut self, key: &[u8]) {
        let (Some(memtable), Some(way)) = (&self.memtable, self.of(key)) else { return };
        if memtable.presence.may_contain(way.hash) {
            self.arrive(key);
        }
    }

    /// Goes on with all until the search for the place of a key is over, or takes too long.
    pub(crate) fn arrive(&mut self, key: &[u8]) {
        for _ in 0..MOVES_MAX {
            if self.of(key).is_none_or(|way| !way.place.is_under_way()) {
                return;
            }
            self.go_on();
        }
    }

    /// The search for the place of a key, if there is one.
    #[inline]
    pub(super) fn of(&self, key: &[u8]) -> Option<&Way> {
        self.ways[..self.count].iter().find(|way| way.key == key)
    }
}

//! Merges several sorted sources into one, in both directions.
//!
//! A binary heap of source indices, ordered by what each source stands on, that knows its runner-up: the source that comes next should
//! the root move behind it. In the common case the source that was just advanced is still the smallest, and one comparison with the
//! runner-up shows it. The same comparison tells whether the two stand on versions of one key.

use std::cmp::Ordering;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::Trailer;
use crate::read::source::Source;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// The merge of several sources. Internal keys are unique across them.
pub(crate) struct MergeCursor<S = Source> {
    sources: Vec<S>,
    /// Indices of the valid sources; the root is the current one.
    heap: Vec<usize>,
    direction: Direction,
    /// Where in the heap the runner-up is, if there are two sources or more.
    runner_up: usize,
    /// Whether the runner-up stands on a version of the root's key.
    tied: bool,
    /// See [`Cursor::repeats`].
    repeats: bool,
    /// How often the merge has gone on in another source.
    switches: u64,
    /// Scratch for turning around.
    key: Vec<u8>,
}

impl<S: Cursor> MergeCursor<S> {
    pub(crate) fn new(sources: Vec<S>) -> Self {
        let heap = Vec::with_capacity(sources.len());
        Self {
            sources,
            heap,
            direction: Direction::Forward,
            runner_up: 1,
            tied: false,
            repeats: false,
            switches: 0,
            key: Vec::new(),
        }
    }

    /// Adds a source, before the merge is positioned.
    pub(crate) fn push(&mut self, source: S) {
        debug_assert!(self.heap.is_empty(), "the merge is positioned already");
        self.sources.push(source);
    }

    /// Whether source `a` comes before source `b`, and whether they stand on versions of one key.
    #[inline]
    fn compare(&self, a: usize, b: usize) -> (bool, bool) {
        let (a, b) = (&self.sources[a], &self.sources[b]);
        let keys = a.key().cmp(b.key());
        let order = keys.then_with(|| b.trailer().cmp(&a.trailer()));
        let first = match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        };
        (first, keys == Ordering::Equal)
    }

    fn comes_first(&self, a: usize, b: usize) -> bool {
        self.compare(a, b).0
    }

    fn rebuild(&mut self, direction: Direction) {
        self.direction = direction;
        self.heap.clear();
        self.heap.extend((0..self.sources.len()).filter(|&index| self.sources[index].valid()));
        for position in (0..self.heap.len() / 2).rev() {
            self.sift_down(position);
        }
        self.choose_runner_up();
    }

    /// Whether it was moved backward last.
    #[inline]
    pub(crate) fn goes_backward(&self) -> bool {
        self.direction == Direction::Backward
    }

    /// How often it has gone on in another source since this was asked last.
    pub(crate) fn take_switches(&mut self) -> u64 {
        std::mem::take(&mut self.switches)
    }

    fn choose_runner_up(&mut self) {
        let second = match self.heap[..] {
            [] | [_] => return,
            [_, left, right, ..] if self.comes_first(right, left) => 2,
            _ => 1,
        };
        self.runner_up = second;
        self.tied = self.compare(self.heap[0], self.heap[second]).1;
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let mut first = position;
            for child in [2 * position + 1, 2 * position + 2] {
                if child < self.heap.len() && self.comes_first(self.heap[child], self.heap[first]) {
                    first = child;
                }
            }
            if first == position {
                return;
            }
            self.heap.swap(position, first);
            position = first;
        }
    }

    /// Puts the root where it belongs after it has moved.
    #[inline(always)]
    fn root_moved(&mut self) {
        let root = self.heap[0];
        let stays = self.sources[root].valid() && (self.heap.len() == 1 || self.stays_first(root));
        if stays {
            self.repeats = self.sources[root].repeats();
        } else {
            self.runner_up_takes_over();
        }
    }

    #[inline]
    fn stays_first(&mut self, root: usize) -> bool {
        let (first, tied) = self.compare(root, self.heap[self.runner_up]);
        if first {
            self.tied = tied;
        }
        first
    }

    fn runner_up_takes_over(&mut self) {
        // It stands where it stood when the root had not moved yet.
        self.repeats = self.tied;
        self.switches += 1;
        if !self.sources[self.heap[0]].valid() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        self.choose_runner_up();
    }

    fn all(
        &mut self,
        direction: Direction,
        mut position: impl FnMut(&mut S) -> Result<()>,
    ) -> Result<()> {
        self.heap.clear();
        for source in &mut self.sources {
            position(source)?;
        }
        self.rebuild(direction);
        Ok(())
    }

    #[inline(always)]
    fn current(&self) -> &S {
        &self.sources[self.heap[0]]
    }

    /// Copies the current position into the scratch, to seek the other sources to it.
    fn remember(&mut self) -> Trailer {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(self.key());
        self.key = key;
        self.trailer()
    }
}

impl<S: Cursor> Cursor for MergeCursor<S> {
    #[inline]
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.all(Direction::Forward, S::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.all(Direction::Backward, S::seek_to_last)
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.all(Direction::Forward, |source| source.seek(key, trailer))
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.all(Direction::Backward, |source| source.seek_before(key, trailer))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.direction == Direction::Backward {
            // Everybody to the current record or behind it; the root stands on it again and is then moved on.
            let trailer = self.remember();
            let key = std::mem::take(&mut self.key);
            self.seek(&key, trailer)?;
            self.key = key;
        }
        let root = self.heap[0];
        let moved = self.sources[root].next();
        if moved.is_err() {
            self.heap.clear();
            return moved;
        }
        self.root_moved();
        Ok(())
    }

    #[inline]
    fn repeats(&self) -> bool {
        self.repeats
    }

    #[inline]
    fn is_surely_newest(&self) -> bool {
        // Going backward, who holds a newer version of the root's key is the runner-up.
        self.direction == Direction::Backward
            && (self.heap.len() == 1 || !self.tied)
            && self.current().is_surely_newest()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.direction == Direction::Forward {
            let trailer = self.remember();
            let key = std::mem::take(&mut self.key);
            let before = self.seek_before(&key, trailer);
            self.key = key;
            return before;
        }
        let root = self.heap[0];
        let moved = self.sources[root].prev();
        if moved.is_err() {
            self.heap.clear();
            return moved;
        }
        self.root_moved();
        Ok(())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.current().key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.current().trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().value()
    }
}

//! Merges several sorted sources into one, in both directions.
//!
//! A tree of losers (Knuth, "The Art of Computer Programming", volume 3, section 5.4.1): each match keeps the source that lost it, so that
//! after a move only the matches on the way from the moved source to the last one are played again. What is compared is mostly a number,
//! the *head*: 16 bytes of each source's key from about where the keys begin to differ. Which source comes next is anybody's guess, so
//! the matches are played without a branch that depends on it.

use std::cmp::Ordering;

use crate::cursor::{Cursor, Standing};
use crate::error::Result;
use crate::key::{Trailer, common_prefix_len, compare_versions, padded};
use crate::read::source::Source;

/// Heads begin so many bytes before the first that differs: what all keys begin with gets shorter from time to time.
const SLACK_BYTES: usize = 8;

/// Leaving out fewer bytes than this is not worth looking whether they are still the same.
const SKIPPED_BYTES_MIN: usize = 8;

/// The head of a source that has come to its end. A key may have it too.
const HEAD_MAX: u128 = u128::MAX;

/// The loser of a match to which only one source has come yet.
const NOBODY: usize = usize::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Two things with one index: the head of a source, and a match. Match 1 is the last, and the winners of matches `2 n` and `2 n + 1` meet
/// in match `n`; source `s` of `c` comes to match `(c + s) / 2` first. There is no match 0.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Such that the smallest comes first.
    head: u128,
    loser: usize,
    /// Whether the loser stands on a version of the winner's key.
    tied: bool,
}

/// The merge of several sources. Internal keys are unique across them.
pub(crate) struct MergeCursor<S = Source> {
    sources: Vec<S>,
    /// One for each source; none if there is only one source.
    slots: Vec<Slot>,
    /// Index of the current source.
    winner: usize,
    /// See [`Cursor::standing`].
    standing: Option<Standing>,
    direction: Direction,
    /// What the keys of all sources begin with, and heads leave out.
    skipped: Vec<u8>,
    /// How often the merge has gone on in another source.
    switches: u64,
    /// Scratch for turning around.
    key: Vec<u8>,
}

impl<S: Cursor> MergeCursor<S> {
    pub(crate) fn new(sources: Vec<S>) -> Self {
        Self {
            sources,
            slots: Vec::new(),
            winner: 0,
            standing: None,
            direction: Direction::Forward,
            skipped: Vec::new(),
            switches: 0,
            key: Vec::new(),
        }
    }

    /// Adds a source, before the merge is positioned.
    pub(crate) fn push(&mut self, source: S) {
        debug_assert!(!self.valid(), "the merge is positioned already");
        self.sources.push(source);
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

    /// Begins anew with where all sources stand.
    #[inline(never)]
    fn rebuild(&mut self, direction: Direction) {
        self.direction = direction;
        self.winner = 0;
        if self.sources.len() > 1 {
            self.choose_skipped();
            let unplayed = |source| Slot {
                head: head_of(source, &self.skipped, direction).unwrap_or(HEAD_MAX),
                loser: NOBODY,
                tied: false,
            };
            self.slots.clear();
            self.slots.extend(self.sources.iter().map(unplayed));
            (0..self.sources.len()).for_each(|source| self.play(source));
        }
        self.standing = self.sources.get(self.winner).and_then(S::standing);
    }

    fn choose_skipped(&mut self) {
        self.skipped.clear();
        let mut valid = self.sources.iter().filter(|source| source.valid());
        let Some(first) = valid.next().map(S::key) else { return };
        let common = valid.map(|other| common_prefix_len(first, other.key())).min();
        let skipped = common.unwrap_or(0).saturating_sub(SLACK_BYTES);
        if skipped >= SKIPPED_BYTES_MIN {
            self.skipped.extend_from_slice(&first[..skipped]);
        }
    }

    /// Plays the matches of a source that has a new head, until there is a winner or nobody to play against yet.
    #[inline(always)]
    fn play(&mut self, source: usize) {
        let (mut best, mut head) = (source, self.slots[source].head);
        let mut number = self.slots.len().midpoint(source);
        while number > 0 {
            let other = self.slots[number].loser;
            if other == NOBODY {
                self.slots[number].loser = best;
                return;
            }
            let other_head = self.slots[other].head;
            let (mut loses, mut tied) = (other_head < head, false);
            if other_head == head {
                (loses, tied) = self.compare_whole(other, best);
            }
            let slot = &mut self.slots[number];
            (slot.loser, slot.tied) = (if loses { best } else { other }, tied);
            best = if loses { other } else { best };
            head = if loses { other_head } else { head };
            number /= 2;
        }
        self.winner = best;
    }

    /// Whether source `a`, which has the same head as `b`, comes before it, and whether they stand on versions of one key.
    #[inline(never)]
    fn compare_whole(&self, a: usize, b: usize) -> (bool, bool) {
        let (a, b) = (&self.sources[a], &self.sources[b]);
        if !a.valid() || !b.valid() {
            return (a.valid(), false);
        }
        let (order, tied) = compare_versions(a.key(), a.trailer(), b.key(), b.trailer());
        let first = match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        };
        (first, tied)
    }

    /// Whether any other source stands on a version of the winner's key: then it has lost a match to the winner.
    #[inline]
    fn is_tied(&self) -> bool {
        let mut number = self.slots.len().midpoint(self.winner);
        let mut tied = false;
        while number > 0 {
            tied |= self.slots[number].tied;
            number /= 2;
        }
        tied
    }

    /// Looks who comes next after the winner has moved, or has tried to.
    #[inline(always)]
    fn winner_moved(&mut self, moved: Result<Option<Standing>>) -> Result<Option<Standing>> {
        self.standing = None;
        let moved = moved?;
        self.standing = if self.slots.is_empty() { moved } else { self.next_winner(moved) };
        Ok(self.standing)
    }

    #[inline(never)]
    fn next_winner(&mut self, moved: Option<Standing>) -> Option<Standing> {
        let (before, tied) = (self.winner, self.is_tied());
        match head_of(&self.sources[before], &self.skipped, self.direction) {
            Some(head) => {
                self.slots[before].head = head;
                self.play(before);
            }
            None => self.rebuild(self.direction),
        }
        if self.winner == before {
            return moved;
        }
        self.switches += 1;
        // The others stand where they stood when the winner had not moved yet.
        self.current().standing().map(|standing| Standing { repeats: tied, ..standing })
    }

    fn all(
        &mut self,
        direction: Direction,
        mut position: impl FnMut(&mut S) -> Result<()>,
    ) -> Result<()> {
        self.standing = None;
        for source in &mut self.sources {
            position(source)?;
        }
        self.rebuild(direction);
        Ok(())
    }

    #[inline(always)]
    fn current(&self) -> &S {
        &self.sources[self.winner]
    }

    /// Everybody to the current record or behind it, so that the winner stands on it again.
    #[cold]
    fn turn_forward(&mut self) -> Result<()> {
        let (key, trailer) = self.remember();
        let turned = self.seek(&key, trailer);
        self.key = key;
        turned
    }

    /// Everybody before the current record.
    #[cold]
    fn turn_backward(&mut self) -> Result<Option<Standing>> {
        let (key, trailer) = self.remember();
        let turned = self.seek_before(&key, trailer);
        self.key = key;
        turned.map(|()| self.standing)
    }

    /// The current position, copied into the scratch, which is the caller's to give back.
    fn remember(&mut self) -> (Vec<u8>, Trailer) {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(self.key());
        (key, self.trailer())
    }
}

impl<S: Cursor> Cursor for MergeCursor<S> {
    #[inline]
    fn valid(&self) -> bool {
        self.standing.is_some()
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
    fn next(&mut self) -> Result<Option<Standing>> {
        if self.direction == Direction::Backward {
            self.turn_forward()?;
        }
        let moved = self.sources[self.winner].next();
        self.winner_moved(moved)
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        self.standing
    }

    #[inline]
    fn is_surely_newest(&self) -> bool {
        // Going backward, whoever holds a newer version of the winner's key has not come to it yet.
        self.direction == Direction::Backward
            && !self.is_tied()
            && self.current().is_surely_newest()
    }

    #[inline]
    fn prev(&mut self) -> Result<Option<Standing>> {
        if self.direction == Direction::Forward {
            return self.turn_backward();
        }
        let moved = self.sources[self.winner].prev();
        self.winner_moved(moved)
    }

    #[inline(always)]
    fn key(&self) -> &[u8] {
        self.current().key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.standing.expect("only called while the merge is valid").trailer
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().value()
    }
}

/// The head of where a source stands. `None` if its key does not begin with what is skipped.
#[inline(always)]
fn head_of<S: Cursor>(source: &S, skipped: &[u8], direction: Direction) -> Option<u128> {
    if !source.valid() {
        return Some(HEAD_MAX);
    }
    let mut key = source.key();
    if !skipped.is_empty() {
        key = key.strip_prefix(skipped)?;
    }
    // Missing bytes count as zero: a key may have the head of a longer one, but not a greater one.
    let head = u128::from_be_bytes(padded(key));
    Some(if direction == Direction::Forward { head } else { !head })
}

#[cfg(test)]
mod tests;

//! From all versions to what one reader sees.
//!
//! Going forward, the merge stands *on* the record shown, so key and value are slices of it. Going backward, versions of a key
//! arrive oldest first, so the newest visible one is only known when the merge has left the key: key and value are copies, and the merge
//! stands before the key.

use std::sync::Arc;

use crate::cursor::Cursor as _;
use crate::error::Result;
use crate::key::{Sequence, Trailer};
use crate::range_tombstones::RangeTombstones;
use crate::read::get::value_kind_is_live;
use crate::read::merge::MergeCursor;
use crate::read::source::{RunCursor, Source};
use crate::read::view::View;

/// After this many versions of one key, seek past the rest instead of stepping.
const STEPS_BEFORE_SEEK: u32 = 16;

/// A range of full keys: inclusive start, exclusive end.
#[derive(Debug, Clone)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not positioned, or past an end.
    Invalid,
    /// The merge stands on the record.
    On,
    /// The record is in the buffers; the merge stands before it.
    Before,
}

/// A cursor over the visible records of a range.
pub(crate) struct VisibleCursor {
    merge: MergeCursor,
    snapshot: Sequence,
    tombstones: Arc<RangeTombstones>,
    range: KeyRange,
    state: State,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl VisibleCursor {
    /// A cursor over `range` of `view` at `snapshot`. Not positioned.
    pub(crate) fn new(view: &View, snapshot: Sequence, range: KeyRange) -> Self {
        let mut sources: Vec<Source> = view
            .memtables()
            .filter(|memtable| !memtable.is_empty())
            .map(|memtable| Source::Memtable(memtable.cursor()))
            .collect();
        for run in view.version.sources() {
            if !run.overlapping(Some(&range.start), Some(&range.end)).is_empty() {
                sources.push(Source::Run(RunCursor::new(Arc::clone(run))));
            }
        }
        Self {
            merge: MergeCursor::new(sources),
            snapshot,
            tombstones: view.range_tombstones(),
            range,
            state: State::Invalid,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.state != State::Invalid
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match self.state {
            State::On => self.merge.key(),
            _ => &self.key,
        }
    }

    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match self.state {
            State::On => self.merge.value(),
            _ => &self.value,
        }
    }

    pub(crate) fn seek_to_first(&mut self) -> Result<()> {
        self.state = State::Invalid;
        self.merge.seek(&self.range.start, Trailer::NEWEST)?;
        self.find_forward(false)
    }

    pub(crate) fn seek_to_last(&mut self) -> Result<()> {
        self.state = State::Invalid;
        self.merge.seek_before(&self.range.end, Trailer::NEWEST)?;
        self.find_backward()
    }

    /// To the first record with a key at or after `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        if key <= self.range.start.as_slice() {
            return self.seek_to_first();
        }
        self.state = State::Invalid;
        self.merge.seek(key, Trailer::NEWEST)?;
        self.find_forward(false)
    }

    /// To the last record with a key before `key`.
    pub(crate) fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        if key >= self.range.end.as_slice() {
            return self.seek_to_last();
        }
        self.state = State::Invalid;
        self.merge.seek_before(key, Trailer::NEWEST)?;
        self.find_backward()
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<()> {
        match self.state {
            State::Invalid => return Ok(()),
            State::On => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Invalid;
                self.merge.next()?;
            }
            State::Before => {
                self.state = State::Invalid;
                self.merge.seek(&self.key, Trailer::NEWEST)?;
            }
        }
        self.find_forward(true)
    }

    pub(crate) fn prev(&mut self) -> Result<()> {
        match self.state {
            State::Invalid => return Ok(()),
            State::On => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Invalid;
                self.merge.seek_before(&self.key, Trailer::NEWEST)?;
            }
            State::Before => self.state = State::Invalid,
        }
        self.find_backward()
    }

    /// From the merge's position on, the first visible record. `skipping`: versions of `self.key` are done with.
    fn find_forward(&mut self, mut skipping: bool) -> Result<()> {
        let mut skipped = 0;
        while self.merge.valid() {
            let key = self.merge.key();
            if skipping && key == self.key.as_slice() {
                skipped += 1;
                if skipped > STEPS_BEFORE_SEEK {
                    skipped = 0;
                    self.merge.seek(&self.key, Trailer::OLDEST)?;
                    // At most one more version, the one with the smallest trailer, can follow.
                    if self.merge.valid() && self.merge.key() == self.key.as_slice() {
                        self.merge.next()?;
                    }
                } else {
                    self.merge.next()?;
                }
                continue;
            }
            if key >= self.range.end.as_slice() {
                return Ok(());
            }
            let trailer = self.merge.trailer();
            if trailer.sequence() > self.snapshot {
                self.merge.next()?;
                continue;
            }
            if value_kind_is_live(trailer)? && !self.is_covered(key, trailer) {
                self.state = State::On;
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            skipping = true;
            skipped = 0;
            self.merge.next()?;
        }
        Ok(())
    }

    /// From the merge's position back, the last visible record.
    fn find_backward(&mut self) -> Result<()> {
        while self.merge.valid() {
            if self.merge.key() < self.range.start.as_slice() {
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(self.merge.key());
            let mut newest = None;
            while self.merge.valid() && self.merge.key() == self.key.as_slice() {
                let trailer = self.merge.trailer();
                if trailer.sequence() <= self.snapshot {
                    newest = Some(trailer);
                    if value_kind_is_live(trailer)? {
                        self.value.clear();
                        self.value.extend_from_slice(self.merge.value());
                    }
                }
                self.merge.prev()?;
            }
            if let Some(trailer) = newest
                && value_kind_is_live(trailer)?
                && !self.is_covered(&self.key, trailer)
            {
                self.state = State::Before;
                return Ok(());
            }
        }
        Ok(())
    }

    #[inline]
    fn is_covered(&self, key: &[u8], trailer: Trailer) -> bool {
        !self.tombstones.is_empty()
            && self
                .tombstones
                .newest_covering(key, self.snapshot)
                .is_some_and(|tombstone| tombstone > trailer.sequence())
    }
}

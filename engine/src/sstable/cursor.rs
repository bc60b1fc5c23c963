//! A cursor over a table's map, in both directions.
//!
//! It owns a share of the table, so it may outlive everything else that knows the table. Values are slices of the map or of the
//! decompressed block that the cursor is in. Once it has moved through some blocks in a row it asks the kernel to read ahead, more
//! each time, because the map itself is set up for point reads; where blocks are often not in memory, it does so from the first block on.

use std::sync::Arc;

use rustlite_io::Advice;

use super::block::prefetch_arrays;
use super::held_block::HeldBlock;
use super::index::Place;
use super::position::Position;
use super::table::Table;
use crate::cursor::{Cursor, Standing};
use crate::error::Result;
use crate::key::Trailer;

/// How much a scan has read ahead at a time, in bytes: first, and at most. The first is what a scan of a hundred small records needs.
const WINDOW_BYTES_FIRST: u64 = 32 << 10;
const WINDOW_BYTES_MAX: u64 = 256 << 10;

/// Blocks in a row that make a scan of what is not in memory, and of what probably is: asking the kernel costs more there than it gains.
const SCAN_BLOCKS: u32 = 2;
const SCAN_BLOCKS_KNOWN: u32 = 16;

/// A position in a table.
#[derive(Debug)]
pub(crate) struct TableCursor {
    /// The table, and the block under the cursor.
    held: HeldBlock,
    /// Which block that is.
    index: usize,
    position: Position,
    valid: bool,
    /// Blocks walked through without a seek.
    walked: u32,
    /// Whether it reads ahead without waiting to see how far the scan goes.
    hurries: bool,
    /// How much the kernel was asked for last, and how far in either direction it was asked to read ahead.
    window: u64,
    asked_until: u64,
    asked_from: u64,
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self {
            held: HeldBlock::new(table),
            index: usize::MAX,
            position: Position::new(),
            valid: false,
            walked: 0,
            hurries: false,
            window: 0,
            asked_until: 0,
            asked_from: u64::MAX,
        }
    }

    #[inline]
    fn table(&self) -> &Arc<Table> {
        self.held.table()
    }

    /// Brings block `index` in; false if there is none. The position must enter it next.
    fn bring_in(&mut self, index: usize) -> Result<bool> {
        let Some(place) = self.table().index.place(&self.table().map, index) else {
            return Ok(false);
        };
        if self.walked == 0 {
            self.hurries = self.table().doubts(index, place);
        }
        let known = self.table().is_verified(index);
        if self.hurries || self.walked >= if known { SCAN_BLOCKS_KNOWN } else { SCAN_BLOCKS } {
            self.read_ahead(place, index > self.index || self.walked == 0);
        }
        let block = self.table().data_block(index, place)?;
        self.held.hold(block);
        self.index = index;
        if self.walked == 0 {
            // A scan goes through the block in order, and the processor foresees that by itself.
            prefetch_arrays(self.held.bytes());
        }
        Ok(true)
    }

    /// Enters block `index`; false if there is none. A record must be chosen next.
    fn enter(&mut self, index: usize) -> Result<bool> {
        if !self.bring_in(index)? {
            return Ok(false);
        }
        let entered = self.position.enter(self.held.bytes());
        entered.ok_or_else(|| self.malformed())?;
        Ok(true)
    }

    /// Keeps the kernel at least half a window ahead of a scan in either direction.
    fn read_ahead(&mut self, place: Place, forward: bool) {
        let data_end = self.table().index.data_end();
        let (from, until) = (self.asked_from.min(place.end), self.asked_until.max(place.offset));
        let (ahead, is_all) = if forward {
            (until - place.offset, until >= data_end)
        } else {
            (place.end - from, from == 0)
        };
        if is_all || (self.window > 0 && ahead >= self.window / 2) {
            return;
        }
        self.window = (self.window * 2).clamp(WINDOW_BYTES_FIRST, WINDOW_BYTES_MAX);
        let wanted = if forward {
            self.asked_until = (until + self.window).min(data_end);
            until..self.asked_until
        } else {
            self.asked_from = from.saturating_sub(self.window);
            self.asked_from..from
        };
        self.table().map.advise(Advice::WillNeed, wanted.start as usize..wanted.end as usize);
    }

    #[cold]
    fn malformed(&self) -> crate::Error {
        let place = self.table().index.place(&self.table().map, self.index);
        self.table().malformed_block(place.map_or(0, |place| place.offset))
    }

    /// To record `at` of the block.
    fn set(&mut self, at: usize) -> Result<()> {
        let set = self.position.set(self.held.bytes(), at);
        set.ok_or_else(|| self.malformed())?;
        self.valid = true;
        Ok(())
    }

    fn lower_bound(&self, key: &[u8], trailer: Trailer) -> Result<usize> {
        let block = self.held.bytes();
        self.position.lower_bound(block, key, trailer).ok_or_else(|| self.malformed())
    }

    fn begin_seek(&mut self) {
        self.valid = false;
        self.walked = 0;
        self.window = 0;
        self.asked_until = 0;
        self.asked_from = u64::MAX;
    }

    /// Leaves the block at its end.
    #[inline(never)]
    fn next_block(&mut self) -> Result<()> {
        self.walked = self.walked.saturating_add(1);
        if self.bring_in(self.index + 1)? {
            let entered = self.position.enter_next(self.held.bytes());
            entered.ok_or_else(|| self.malformed())?;
            self.valid = true;
        }
        Ok(())
    }

    /// Leaves the block at its start.
    #[inline(never)]
    fn previous_block(&mut self) -> Result<()> {
        self.walked = self.walked.saturating_add(1);
        match self.index.checked_sub(1) {
            Some(previous) if self.enter(previous)? => self.set(self.position.count() - 1),
            _ => Ok(()),
        }
    }
}

impl Cursor for TableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.begin_seek();
        if self.enter(0)? {
            self.set(0)?;
        }
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.begin_seek();
        let Some(last) = self.table().index.count().checked_sub(1) else { return Ok(()) };
        if self.enter(last)? {
            self.set(self.position.count() - 1)?;
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.begin_seek();
        let mut index = self.table().find_block(key)?;
        // Only versions of one key that fill whole blocks make this go round more than twice.
        while self.enter(index)? {
            let at = self.lower_bound(key, trailer)?;
            if at < self.position.count() {
                self.set(at)?;
                let (found, position) = (self.position.key(), self.position.trailer());
                if self.table().is_before(found, position, key, trailer) {
                    self.next()?;
                }
                return Ok(());
            }
            index += 1;
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.seek(key, trailer)?;
        if self.valid { self.prev().map(drop) } else { self.seek_to_last() }
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Standing>> {
        debug_assert!(self.valid, "next needs a position");
        // An error on the way must not leave the old position behind.
        self.valid = false;
        match self.position.advance(self.held.bytes()) {
            Some(true) => self.valid = true,
            Some(false) => self.next_block()?,
            None => return Err(self.malformed()),
        }
        Ok(self.standing())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        let standing = Standing { trailer: self.trailer(), repeats: self.position.repeats() };
        self.valid.then_some(standing)
    }

    #[inline]
    fn is_surely_newest(&self) -> bool {
        self.position.is_surely_newest(self.held.bytes())
    }

    #[inline]
    fn prev(&mut self) -> Result<Option<Standing>> {
        debug_assert!(self.valid, "prev needs a position");
        self.valid = false;
        match self.position.retreat(self.held.bytes()) {
            Some(true) => self.valid = true,
            Some(false) => self.previous_block()?,
            None => return Err(self.malformed()),
        }
        Ok(self.standing())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.position.key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.table().effective(self.position.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        let block = self.held.bytes();
        block.get(self.position.value()).expect("the record was checked when it was entered")
    }
}

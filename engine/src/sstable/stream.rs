//! A forward-only cursor that reads a table's file in large overlapped requests, for compactions.
//!
//! It leaves the map and the block cache alone, so that a compaction does not push hot blocks out of memory, and verifies every
//! block, so that a compaction never copies damage into a new table.

use std::sync::Arc;

use rustlite_io::FileStream;

use super::compression::{Codec, decompress};
use super::index::Place;
use super::position::Position;
use super::table::Table;
use crate::cursor::{Cursor, Standing};
use crate::error::{Error, Result};
use crate::key::Trailer;

/// Reads and checks data blocks of one table, front to back.
pub(super) struct BlockReader {
    stream: Box<dyn FileStream>,
    payload: Vec<u8>,
}

impl BlockReader {
    pub(super) fn open(table: &Table) -> Result<Self> {
        let stream = table.env.fs.open_stream(&table.identity.path)?;
        Ok(Self { stream, payload: Vec::new() })
    }

    /// Reads the block at `place`, which must not be before the last one.
    pub(super) fn read(&mut self, table: &Table, place: Place) -> Result<()> {
        let block = self.stream.read(place.offset..place.end)?;
        let stored = table.check_block(place, block)?;
        if place.codec == Codec::None {
            self.payload.clear();
            self.payload.extend_from_slice(stored);
            return Ok(());
        }
        decompress(&table.identity, place.offset, place.codec, stored, &mut self.payload)
    }

    /// The payload of the block that was read last.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Any bytes of the file behind what was read.
    pub(super) fn raw(&mut self, range: std::ops::Range<u64>) -> Result<&[u8]> {
        Ok(self.stream.read(range)?)
    }
}

/// A position in a table that only moves forward.
pub(crate) struct TableStream {
    table: Arc<Table>,
    reader: BlockReader,
    /// Which block the reader holds; `usize::MAX` before the first.
    index: usize,
    position: Position,
    valid: bool,
}

impl TableStream {
    pub(super) fn new(table: Arc<Table>) -> Result<Self> {
        let reader = BlockReader::open(&table)?;
        Ok(Self { table, reader, index: usize::MAX, position: Position::new(), valid: false })
    }

    /// Reads block `index`; false if there is none. The position must enter it next.
    fn read(&mut self, index: usize) -> Result<bool> {
        let Some(place) = self.table.index.place(&self.table.map, index) else {
            return Ok(false);
        };
        if self.index != usize::MAX && index < self.index {
            self.reader = BlockReader::open(&self.table)?;
        }
        if self.index != index {
            // Should reading fail, the reader holds no block.
            self.index = usize::MAX;
            self.reader.read(&self.table, place)?;
            self.index = index;
        }
        Ok(true)
    }

    /// Enters block `index`; false if there is none. A record must be chosen next.
    fn enter(&mut self, index: usize) -> Result<bool> {
        if !self.read(index)? {
            return Ok(false);
        }
        let entered = self.position.enter(self.reader.payload());
        entered.ok_or_else(|| self.malformed())?;
        Ok(true)
    }

    fn set(&mut self, at: usize) -> Result<()> {
        let set = self.position.set(self.reader.payload(), at);
        set.ok_or_else(|| self.malformed())?;
        self.valid = true;
        Ok(())
    }

    #[cold]
    fn malformed(&self) -> Error {
        let place = self.table.index.place(&self.table.map, self.index);
        self.table.malformed_block(place.map_or(0, |place| place.offset))
    }
}

impl Cursor for TableStream {
    fn valid(&self) -> bool {
        self.valid
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.valid = false;
        if self.enter(0)? {
            self.set(0)?;
        }
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        Err(Error::internal("a table stream cannot seek to the last record"))
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.valid = false;
        let mut index = self.table.find_block(key)?;
        while self.enter(index)? {
            let at = self.position.lower_bound(self.reader.payload(), key, trailer);
            let at = at.ok_or_else(|| self.malformed())?;
            if at < self.position.count() {
                self.set(at)?;
                let (found, position) = (self.position.key(), self.position.trailer());
                if self.table.is_before(found, position, key, trailer) {
                    self.next()?;
                }
                return Ok(());
            }
            index += 1;
        }
        Ok(())
    }

    fn seek_before(&mut self, _key: &[u8], _trailer: Trailer) -> Result<()> {
        Err(Error::internal("a table stream cannot seek backwards"))
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Standing>> {
        debug_assert!(self.valid, "next needs a position");
        self.valid = false;
        match self.position.advance(self.reader.payload()) {
            Some(true) => self.valid = true,
            Some(false) => {
                if self.read(self.index + 1)? {
                    let entered = self.position.enter_next(self.reader.payload());
                    entered.ok_or_else(|| self.malformed())?;
                    self.valid = true;
                }
            }
            None => return Err(self.malformed()),
        }
        Ok(self.standing())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        let standing = Standing { trailer: self.trailer(), repeats: self.position.repeats() };
        self.valid.then_some(standing)
    }

    fn prev(&mut self) -> Result<Option<Standing>> {
        Err(Error::internal("a table stream cannot move backwards"))
    }

    fn key(&self) -> &[u8] {
        self.position.key()
    }

    fn trailer(&self) -> Trailer {
        self.table.effective(self.position.trailer())
    }

    fn value(&self) -> &[u8] {
        let value = self.reader.payload().get(self.position.value());
        value.expect("the record was checked when it was entered")
    }
}

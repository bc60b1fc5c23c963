//! Walking a memtable in key order, while others go on inserting.
//!
//! Guarantees: the cursor keeps its memtable alive; records inserted after a move may or may not be
//! met by later moves, and every record that was there before is met. No move fails.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Memtable;
use super::skiplist::{Entry, Position};
use crate::cursor::{Cursor, Standing};
use crate::error::Result;
use crate::key::Trailer;

/// A position in a memtable.
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    position: Option<Position>,
    repeats: bool,
}

impl MemtableCursor {
    pub(super) fn new(memtable: Arc<Memtable>) -> Self {
        Self { memtable, position: None, repeats: false }
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        let position = self.position.expect("only called while the cursor is valid");
        self.memtable.list.entry(position)
    }
}

impl Cursor for MemtableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.position.is_some()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.position = self.memtable.list.first();
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position = self.memtable.list.last();
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.position = self.memtable.list.seek(key, trailer);
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.position = self.memtable.list.seek_before(key, trailer);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Standing>> {
        let list = &self.memtable.list;
        let position = self.position.expect("only called while the cursor is valid");
        let next = list.next(position);
        self.repeats =
            next.is_some_and(|next| list.entry(next).key() == list.entry(position).key());
        self.position = next;
        Ok(self.standing())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        let entry = self.memtable.list.entry(self.position?);
        Some(Standing { trailer: entry.trailer(), repeats: self.repeats })
    }

    fn prev(&mut self) -> Result<Option<Standing>> {
        // Nodes have no way back, and the record before may be newer than the last look: search for
        // it.
        let entry = self.entry();
        let position = self.memtable.list.seek_before(entry.key(), entry.trailer());
        self.position = position;
        Ok(self.standing())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.entry().key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.entry().trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().value()
    }
}

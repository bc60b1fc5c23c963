//! Walking a memtable in key order, while others go on inserting.
//!
//! Guarantees: the cursor keeps its memtable alive; records inserted after a seek may or may not be
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
    /// Some records right before this one, in order, for the next moves backward. None are known if it is empty.
    stride: Vec<Position>,
}

impl MemtableCursor {
    pub(super) fn new(memtable: Arc<Memtable>) -> Self {
        Self { memtable, position: None, repeats: false, stride: Vec::new() }
    }

    #[inline]
    fn go_to(&mut self, position: Option<Position>) {
        self.position = position;
        self.stride.clear();
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
        self.go_to(self.memtable.list.first());
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.go_to(self.memtable.list.last());
        Ok(())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.go_to(self.memtable.list.seek(key, trailer));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.go_to(self.memtable.list.seek_before(key, trailer));
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Standing>> {
        let list = &self.memtable.list;
        let position = self.position.expect("only called while the cursor is valid");
        let next = list.next(position);
        self.repeats =
            next.is_some_and(|next| list.entry(next).key() == list.entry(position).key());
        self.go_to(next);
        Ok(self.standing())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        let entry = self.memtable.list.entry(self.position?);
        Some(Standing { trailer: entry.trailer(), repeats: self.repeats })
    }

    fn prev(&mut self) -> Result<Option<Standing>> {
        let position = self.position.expect("only called while the cursor is valid");
        if self.stride.is_empty() {
            self.memtable.list.records_before(position, &mut self.stride);
        }
        self.position = self.stride.pop();
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

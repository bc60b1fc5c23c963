//! A position inside one data block, and the key that it stands on, put together.
//!
//! The key is kept contiguous: the block's prefix is written once per block, head and rest once per record. The block's bytes
//! belong to the cursor, which passes them to every call; `None` means that they do not hold what their header promises.

use std::ops::Range;

use super::block::{BlockLayout, BlockView, Record};
use crate::key::Trailer;

/// Room for what follows a block's prefix in a key: mostly enough, so that a seek allocates once.
const KEY_BYTES_USUAL: usize = 64;

/// Where a cursor stands in its block.
#[derive(Debug)]
pub(super) struct Position {
    layout: BlockLayout,
    index: usize,
    /// The record's first key bytes after the prefix.
    head: u64,
    /// Whether it has the key of the record that the position advanced from.
    repeats: bool,
    /// Scratch: the key that a block was left with.
    left: Vec<u8>,
    key: Vec<u8>,
    trailer: Trailer,
    /// Where the value is. Its end is where the next record begins.
    value: Range<usize>,
}

impl Position {
    pub(super) fn new() -> Self {
        Self {
            layout: BlockLayout::default(),
            index: 0,
            head: 0,
            repeats: false,
            left: Vec::new(),
            key: Vec::new(),
            trailer: Trailer::OLDEST,
            value: 0..0,
        }
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    #[inline]
    pub(super) fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// See [`Standing::repeats`](crate::cursor::Standing::repeats).
    #[inline]
    pub(super) fn repeats(&self) -> bool {
        self.repeats
    }

    /// See [`Cursor::is_surely_newest`](crate::cursor::Cursor::is_surely_newest).
    #[inline]
    pub(super) fn is_surely_newest(&self, block: &[u8]) -> bool {
        let view = BlockView::with_layout(block, self.layout);
        let before = self.index.checked_sub(1).and_then(|before| view.head(before));
        before.is_some_and(|head| head != self.head)
    }

    /// Where the value is in the block.
    #[inline]
    pub(super) fn value(&self) -> Range<usize> {
        self.value.clone()
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Enters the block behind the one left and stands on its first record.
    pub(super) fn enter_next(&mut self, block: &[u8]) -> Option<()> {
        std::mem::swap(&mut self.key, &mut self.left);
        self.enter(block)?;
        self.set(block, 0)?;
        self.repeats = self.key == self.left;
        Some(())
    }

    /// Enters a block; `set` must follow.
    pub(super) fn enter(&mut self, block: &[u8]) -> Option<()> {
        let view = BlockView::parse(block)?;
        self.layout = view.layout();
        let prefix = view.prefix()?;
        self.key.clear();
        self.key.reserve(prefix.len() + KEY_BYTES_USUAL);
        self.key.extend_from_slice(prefix);
        Some(())
    }

    /// Number of records in the block.
    pub(super) fn count(&self) -> usize {
        self.layout.count()
    }

    /// The number of records of the block before (`key`, `trailer`).
    pub(super) fn lower_bound(&self, block: &[u8], key: &[u8], trailer: Trailer) -> Option<usize> {
        BlockView::with_layout(block, self.layout).lower_bound(key, trailer)
    }

    /// To record `index` of the block.
    #[inline(always)]
    pub(super) fn set(&mut self, block: &[u8], index: usize) -> Option<()> {
        let at = BlockView::with_layout(block, self.layout).record_offset(index)?;
        self.index = index;
        self.take(block, at)?;
        self.repeats = false;
        Some(())
    }

    /// To the next record of the block; false if there is none.
    #[inline]
    pub(super) fn advance(&mut self, block: &[u8]) -> Option<bool> {
        if self.index + 1 >= self.count() {
            return Some(false);
        }
        self.index += 1;
        self.take(block, self.value.end)?;
        Some(true)
    }

    /// To the previous record of the block; false if there is none.
    #[inline]
    pub(super) fn retreat(&mut self, block: &[u8]) -> Option<bool> {
        let Some(index) = self.index.checked_sub(1) else { return Some(false) };
        self.set(block, index)?;
        Some(true)
    }

    #[inline(always)]
    fn take(&mut self, block: &[u8], at: usize) -> Option<()> {
        let view = BlockView::with_layout(block, self.layout);
        let head = view.head(self.index)?;
        let Record { suffix_len, trailer, rest, value } = view.record_at(at)?;
        let prefix_len = self.layout.prefix_len();
        let is_as_long = self.key.len() == prefix_len + suffix_len;
        self.repeats = is_as_long && head == self.head;
        match self.key.get_mut(prefix_len..)?.split_first_chunk_mut() {
            // Mostly the key is as long as the one before it, and takes its place.
            Some((old_head, old_rest)) if is_as_long => {
                self.repeats = self.repeats && old_rest == rest;
                *old_head = head.to_be_bytes();
                old_rest.copy_from_slice(rest);
            }
            _ => {
                self.key.truncate(prefix_len);
                self.key.extend_from_slice(&head.to_be_bytes());
                self.key.truncate(prefix_len + suffix_len);
                self.key.extend_from_slice(rest);
            }
        }
        self.head = head;
        self.trailer = trailer;
        self.value = value;
        Some(())
    }
}

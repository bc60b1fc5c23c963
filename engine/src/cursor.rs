//! The interface of everything that can be walked in internal-key order: memtables, tables, levels, merges of them.

use crate::error::Result;
use crate::key::Trailer;

/// What there is to know of a record but key and value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) trailer: Trailer,
    /// After a `next`: whether the record is another version of the key that the cursor stood on before. The caller need not have kept
    /// the key.
    pub(crate) repeats: bool,
}

/// A position in a sorted run of records.
///
/// Not positioned at first. Every move returns an error rather than skip what cannot be read; after an error the cursor is invalid and
/// repeats nothing: seek again or drop it. `key`, `trailer` and `value` may only be called while `valid()`.
pub(crate) trait Cursor {
    /// True while positioned on a record.
    fn valid(&self) -> bool;

    /// To the first record.
    fn seek_to_first(&mut self) -> Result<()>;

    /// To the last record.
    fn seek_to_last(&mut self) -> Result<()>;

    /// To the first record at or after (`key`, `trailer`) in internal-key order.
    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()>;

    /// To the last record strictly before (`key`, `trailer`) in internal-key order.
    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()>;

    /// To the next record, and says how it stands there. Must be `valid()`.
    fn next(&mut self) -> Result<Option<Standing>>;

    /// What the caller wants to know of every record; `None` unless positioned on one.
    fn standing(&self) -> Option<Standing>;

    #[cfg(test)]
    fn repeats(&self) -> bool {
        self.standing().is_some_and(|standing| standing.repeats)
    }

    /// True only if the record before this one has another key, so that this is the newest version of its own. Says what can be
    /// told without moving: false may mean either.
    fn is_surely_newest(&self) -> bool {
        false
    }

    /// To the previous record, and says how it stands there. Must be `valid()`.
    fn prev(&mut self) -> Result<Option<Standing>>;

    /// The full key under the cursor.
    fn key(&self) -> &[u8];

    /// Sequence number and kind under the cursor.
    fn trailer(&self) -> Trailer;

    /// The value under the cursor.
    fn value(&self) -> &[u8];
}

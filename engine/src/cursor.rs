//! The interface of everything that can be walked in internal-key order: memtables, tables, levels, merges of them.

use crate::error::Result;
use crate::key::Trailer;

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

    /// To the next record. Must be `valid()`.
    fn next(&mut self) -> Result<()>;

    /// Whether the record is another version of the key that the cursor stood on before the last `next`. It may only be asked after a
    /// `next` that found a record, and says it without the caller having kept the key.
    fn repeats(&self) -> bool;

    /// True only if the record before this one has another key, so that this is the newest version of its own. Says what can be
    /// told without moving: false may mean either.
    fn is_surely_newest(&self) -> bool {
        false
    }

    /// To the previous record. Must be `valid()`.
    fn prev(&mut self) -> Result<()>;

    /// The full key under the cursor.
    fn key(&self) -> &[u8];

    /// Sequence number and kind under the cursor.
    fn trailer(&self) -> Trailer;

    /// The value under the cursor.
    fn value(&self) -> &[u8];
}

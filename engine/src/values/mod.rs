//! Value files: where large values live, so that compactions need not copy them.
//!
//! ```text
//! value file = header (40 bytes) | value*
//! header     = magic "RLVF", version u16, header length u16, database id u64, file number u64,
//!              file id u64 (random: tells copies that went different ways apart),
//!              xxh3 u64 of the header up to here
//! value      = the user's bytes, sealed as a block of a table is (`sstable/format.rs`)
//!
//! pointer    = file number | offset | length of the user's bytes    varints; the value of a record of kind ValuePointer
//! ```
//!
//! A flush or compaction that writes a value of at least the keyspace's `value_separation_bytes` puts it into a value file of its own
//! and a pointer into the table ([`writer`]). Later compactions carry the pointer. Value files are immutable and mapped ([`file`]); a
//! value is verified when it is first touched, as a block is.
//!
//! Each table states in its properties, and so in the manifest, how many bytes of which value files it points to. That is all the
//! bookkeeping there is: what is live of a file is the sum over the tables of the current version, the rest is garbage, and a file that
//! no table of the current version points to is removed once the last older version that does is gone. Both follow from the edit
//! that changes the tables, so no crash can separate them. A file of which [`GARBAGE_SHARE`] is garbage is emptied: the picker has the
//! tables that point to it rewritten, and their values move to new files. Small files that one table points to are merged in the same way
//! ([`moving`]).
//!
//! Open tables hold the value files that they point to open ([`registry`]), so whoever holds a version can follow its pointers.

pub(crate) mod file;
pub(crate) mod format;
pub(crate) mod moving;
pub(crate) mod registry;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub(crate) use file::{PinnedRange, ValueFile};
pub(crate) use format::{Pointer, ValueShare};
pub(crate) use moving::Movable;
pub(crate) use registry::ValueFiles;
pub(crate) use writer::ValueWriter;

/// A value file is emptied once this part of it, in percent, is garbage: space amplification of values stays below 2, and each byte
/// is rewritten once for each byte that became garbage.
pub(crate) const GARBAGE_SHARE: u64 = 50;

/// So many small files, garbage that moves anyway included, are worth writing a new one.
const SMALL_FILES_MIN: usize = 4;

/// A value file is full once it is so many times as large as a table should be: emptying one stays a bounded piece of work.
const FULL_TABLES: u64 = 8;

/// The size at which a value file is full, where tables should have `table_bytes`.
pub(crate) fn full_bytes(table_bytes: u64) -> u64 {
    table_bytes.saturating_mul(FULL_TABLES)
}

/// The shortest value that is separated. Verified values are remembered by the stretch of this length in which they begin, and
/// shorter values would not be worth a pointer.
pub(crate) const SEPARATION_BYTES_MIN: usize = 256;

/// From which length on values are separated unless it is said otherwise: two blocks, so that reading them in no order wastes little.
pub(crate) const SEPARATION_BYTES_USUAL: usize = 8 << 10;

//! Sorted tables: immutable files of records in internal-key order, searched in place in a memory map.
//!
//! [`format`] holds the diagram of the file. A [`TableWriter`] makes one from sorted records; a [`Table`] answers point
//! reads and hands out cursors: [`TableCursor`] over the map for reads, [`TableStream`] over large overlapped reads for
//! compactions. Whatever the bytes of a file are, reading it gives the records that were written or an error that names
//! the file and the place: never a wrong record, a panic or an unbounded allocation.

mod block;
mod block_builder;
mod cache;
mod compression;
mod cursor;
mod filter;
mod format;
#[allow(unsafe_code, reason = "keeps a pointer into what it holds")]
mod held_block;
mod index;
#[cfg(feature = "internals")]
pub(crate) mod internals;
pub(crate) mod meta;
mod position;
mod properties;
mod residency;
mod stream;
mod table;
mod tombstones;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use cache::BlockCache;
pub(crate) use compression::Codec;
pub(crate) use cursor::TableCursor;
pub(crate) use format::{BLOCK_TRAILER_BYTES, Identity};
pub(crate) use meta::TableMeta;
pub(crate) use stream::TableStream;
pub(crate) use table::{BlockHint, Table, TableEnv, TableValue};
pub(crate) use writer::{TableOptions, TableWriter};

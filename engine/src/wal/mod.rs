//! The write-ahead log: the bytes, and the segments that hold them.
//!
//! The log is one stream of *entries*, one entry per commit, addressed by LSN (bytes since the beginning of the database's life). The
//! stream lives in segment files of fixed size; a segment's first block is its header. A segment whose data has reached tables is
//! recycled under a new, higher number, so its blocks are already allocated and written when they are overwritten.
//!
//! * [`entry`] — an entry's bytes, its checksum, and the checks that tell it from garbage.
//! * [`segment`] — the segment header, and the pool that prepares, recycles and removes segments in the background.
//! * [`reader`] — walks the segments after a crash and decides where the log ends: the maximal contiguous valid prefix. A hole
//!   followed by an entry that says "everything up to beyond the hole was durable" is lost data and refused as corruption; any other
//!   hole is the torn tail of writes that nobody was promised.
//!
//! Who writes entries, and when they are durable, is the commit pipeline's business (`commit/`).

pub(crate) mod entry;
pub(crate) mod reader;
pub(crate) mod segment;

/// A position in the log stream, in bytes.
pub(crate) type Lsn = u64;

//! The read path.
//!
//! 1. [`view`] — a *view* is one consistent set of sources: the memtable being written, the frozen ones, and a version of the tree.
//!    Readers get at the current one through an epoch-guarded pointer: pin, load, search, unpin, without a lock or a shared write.
//!    Whatever outlives a call (iterators, snapshots, pinned values) holds `Arc`s instead, so it delays nobody's memory but its own.
//! 2. [`get`] — point lookup, newest source first. A point record or a covering range tombstone ends the search.
//!    [`operands`] goes on where it has met an operand of a merge.
//! 3. [`source`] and [`merge`] — cursors over one memtable, table or level, and the merge of several.
//! 4. [`visible`] — collapses the merged versions to what one reader sees: snapshot, deletes, range tombstones; both directions.
//! 5. [`overlay`] and [`observed`] — inside a transaction: its own writes as one more source, and a record of what was read.
//! 6. [`iter`] — the public cursor and double-ended iterator, with bounds.
//!
//! A reader first takes the view and then the visible sequence number: everything dropped from that view by a compaction was invisible
//! at every later sequence number. A [`snapshot`] registers its number first and takes the view afterwards: nothing that it can
//! see is dropped any more.

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod iter;
pub(crate) mod key_ranges;
pub(crate) mod merge;
pub(crate) mod multi_get;
pub(crate) mod observed;
pub(crate) mod operands;
pub(crate) mod overlay;
pub(crate) mod pinned;
pub(crate) mod snapshot;
pub(crate) mod snapshot_slots;
pub(crate) mod source;
#[allow(unsafe_code, reason = "dereferences epoch-guarded pointers")]
pub(crate) mod view;
pub(crate) mod visible;

//! What a serializable transaction has read: keys, found or not, and the ranges that its cursors have walked.
//!
//! Shared between the transaction and its cursors, which may be on other threads. Own writes that were read count too: no harm, because
//! written keys are checked anyway.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::read::key_ranges::KeyRanges;

/// Keys and ranges that were read.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Full keys.
    pub(crate) keys: BTreeSet<Box<[u8]>>,
    pub(crate) ranges: KeyRanges,
}

/// The record of reads, to which cursors add.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<Reads>);

impl Observed {
    /// The reads so far.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full key was looked up.
    pub(crate) fn key(&self, key: &[u8]) {
        let mut reads = self.lock();
        if !reads.keys.contains(key) {
            reads.keys.insert(key.into());
        }
    }

    /// Everything from `start` (inclusive) to `end` (exclusive) is known.
    pub(crate) fn range(&self, start: &[u8], end: &[u8]) {
        self.lock().ranges.add(start, end);
    }
}

//! A value that was found and not copied.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::kinds::expiry::EXPIRY_BYTES;
use crate::manifest::TableHandle;
use crate::memtable::{Memtable, ValueSpan};
use crate::sstable::TableValue;
use crate::values::PinnedRange;

/// A value in place: in a memtable, in a memory-mapped table or value file, or in a cached block; or what a merge operator has just made.
///
/// Reads as a byte slice without having been copied. It keeps what holds the value alive (a memtable, a table file, a block), so
/// don't keep many of them for long: copy instead.
#[derive(Clone)]
pub struct PinnedValue(Owner);

#[derive(Clone)]
enum Owner {
    Memtable(Arc<Memtable>, ValueSpan),
    /// Behind the time of expiry.
    Expiring(Arc<Memtable>, ValueSpan),
    Table(Arc<TableHandle>, TableValue),
    /// In a value file.
    Separated(PinnedRange),
    /// What a merge operator made.
    Made(Bytes),
}

impl PinnedValue {
    pub(crate) fn in_memtable(memtable: Arc<Memtable>, span: ValueSpan) -> Self {
        Self(Owner::Memtable(memtable, span))
    }

    pub(crate) fn in_value_file(value: PinnedRange) -> Self {
        Self(Owner::Separated(value))
    }

    pub(crate) fn made(value: Vec<u8>) -> Self {
        Self(Owner::Made(value.into()))
    }

    /// The user's part of a value that expires.
    pub(crate) fn behind_expiry(memtable: Arc<Memtable>, span: ValueSpan) -> Self {
        Self(Owner::Expiring(memtable, span))
    }

    pub(crate) fn in_table(table: Arc<TableHandle>, value: TableValue) -> Self {
        Self(Owner::Table(table, value))
    }

    /// The value as shared bytes, still without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for PinnedValue {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Owner::Memtable(memtable, span) => memtable.value(*span),
            Owner::Table(handle, value) => handle.table.value(value),
            Owner::Separated(value) => value.as_slice(),
            Owner::Made(value) => value,
            Owner::Expiring(memtable, span) => {
                memtable.value(*span).get(EXPIRY_BYTES..).unwrap_or_default()
            }
        }
    }
}

impl AsRef<[u8]> for PinnedValue {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PinnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedValue({} bytes)", self.len())
    }
}

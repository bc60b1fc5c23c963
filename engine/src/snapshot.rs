//! Consistent views of the whole database at one moment.

use std::ops::{Deref, RangeBounds};
use std::sync::Arc;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::key::KeyspaceId;
use crate::keyspace::{FullKey, Keyspace};
use crate::read::get::{Found, lookup};
use crate::read::iter::{Cursor, Iter, ReadPoint, bounded_range, keyspace_range, prefix_range};
use crate::read::multi_get::multi_get;
use crate::read::pinned::PinnedValue;
use crate::read::snapshot::SnapshotGuard;

/// The database as it was at one moment: every read through it sees the same state, whatever is written since.
///
/// It reads the default keyspace directly and any other through [`keyspace`](Self::keyspace). It owns what it needs (`'static`, `Send`):
/// while it lives, the versions that it sees are kept on disk and in memory; a forgotten one costs space, not progress.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// # let db = rustlite_engine::Database::in_memory()?;
/// db.put("k", "old")?;
/// let before = db.snapshot()?;
/// db.put("k", "new")?;
/// assert_eq!(before.get("k")?.as_deref(), Some(&b"old"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Snapshot {
    default: KeyspaceSnapshot,
}

impl Snapshot {
    pub(crate) fn take(core: &Core) -> Self {
        // Registered first, so that nothing it sees can be dropped; then the view, which holds at least all that it sees.
        Self::of(core, core.snapshot())
    }

    /// A snapshot of the sequence number that is registered.
    pub(crate) fn of(core: &Core, guard: SnapshotGuard) -> Self {
        let sequence = guard.sequence();
        let view = core.views.load();
        let point = ReadPoint::new(view, sequence, Some(Arc::new(guard)));
        Self { default: KeyspaceSnapshot { point, keyspace: KeyspaceId::DEFAULT } }
    }

    /// Another keyspace at the same moment.
    #[must_use]
    pub fn keyspace(&self, keyspace: &Keyspace) -> KeyspaceSnapshot {
        KeyspaceSnapshot { point: self.default.point.clone(), keyspace: keyspace.id() }
    }

    /// What the snapshot reads, if it is of that database.
    pub(crate) fn read_point(&self, core: &Core) -> Result<ReadPoint> {
        let point = &self.default.point;
        if !point.is_of(&core.snapshots) {
            return Err(Error::invalid("the snapshot belongs to another open database"));
        }
        Ok(point.clone())
    }

    /// The sequence number of the last write that the snapshot sees.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.default.point.sequence
    }
}

impl Deref for Snapshot {
    type Target = KeyspaceSnapshot;

    fn deref(&self) -> &KeyspaceSnapshot {
        &self.default
    }
}

/// One keyspace at one moment.
#[derive(Debug, Clone)]
pub struct KeyspaceSnapshot {
    point: ReadPoint,
    keyspace: KeyspaceId,
}

impl KeyspaceSnapshot {
    fn find(&self, key: &[u8]) -> Result<Option<Found<'_>>> {
        let key = FullKey::new(self.keyspace, key)?;
        lookup(&self.point.view, key.as_slice(), self.point.sequence)
    }

    /// The value of a key, copied.
    ///
    /// # Errors
    /// If the key is empty or too long, or a table cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        Ok(self.find(key.as_ref())?.map(Found::into_copy))
    }

    /// The value of a key, in place.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_pinned(&self, key: impl AsRef<[u8]>) -> Result<Option<PinnedValue>> {
        Ok(self.find(key.as_ref())?.map(Found::into_pinned))
    }

    /// The values of several keys, in the order of the keys.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        multi_get(&self.point.view, self.point.sequence, self.keyspace, keys, Found::into_copy)
    }

    /// The values of several keys, in place, in the order of the keys.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn multi_get_pinned<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<PinnedValue>>> {
        multi_get(&self.point.view, self.point.sequence, self.keyspace, keys, Found::into_pinned)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.find(key.as_ref())?.is_some())
    }

    /// All keys and values, in key order, from both ends.
    #[must_use]
    pub fn iter(&self) -> Iter {
        Iter::new(self.point.clone(), keyspace_range(self.keyspace))
    }

    /// The keys between two bounds, and their values.
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Iter {
        Iter::new(self.point.clone(), bounded_range(self.keyspace, &bounds))
    }

    /// The keys that begin with `prefix`, and their values.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(self.point.clone(), prefix_range(self.keyspace, prefix.as_ref()))
    }

    /// A cursor over all keys that lends keys and values instead of copying them.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.point.clone(), self.keyspace, keyspace_range(self.keyspace))
    }
}

//! Named, separate sets of keys inside one database, and the operations on them.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::batch::{WriteBatch, check_key};
use crate::database::Handle;
use crate::error::{Error, ErrorKind, Result};
use crate::key::KeyspaceId;
use crate::limits::{KEYSPACE_NAME_BYTES_MAX, KEYSPACE_PREFIX_BYTES, LEVELS};
use crate::options::WriteOptions;
use crate::read::get::{Found, lookup};
use crate::read::iter::{Cursor, Iter, bounded_range, keyspace_range, prefix_range};
use crate::read::multi_get::multi_get;
use crate::read::pinned::PinnedValue;
use crate::snapshot::{KeyspaceSnapshot, Snapshot};

/// A named set of keys with options and table files of its own, in the same log and the same atomic batches as every other keyspace of
/// its database. (RocksDB calls it a column family.)
///
/// Made by [`Database::keyspace`](crate::Database::keyspace). Cheap to clone; it keeps the database open.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::{Database, WriteBatch};
/// let db = Database::in_memory()?;
/// let users = db.keyspace("users")?;
/// let emails = db.keyspace("emails")?;
/// let mut batch = WriteBatch::new();
/// batch.put_in(&users, "7", "Ada").put_in(&emails, "ada@example.org", "7");
/// db.write(batch)?;
/// assert_eq!(users.get("7")?.as_deref(), Some(&b"Ada"[..]));
/// assert_eq!(db.get("7")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Keyspace {
    pub(crate) handle: Arc<Handle>,
    identity: Arc<Identity>,
}

/// What all handles to one keyspace share.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) dropped: AtomicBool,
}

impl Identity {
    pub(crate) fn new(id: KeyspaceId, name: &str) -> Arc<Self> {
        Arc::new(Self { id, name: name.to_owned(), dropped: AtomicBool::new(false) })
    }
}

impl Keyspace {
    pub(crate) fn new(handle: Arc<Handle>, identity: Arc<Identity>) -> Self {
        Self { handle, identity }
    }

    pub(crate) fn id(&self) -> KeyspaceId {
        self.identity.id
    }

    /// The name it was created with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// An error if the keyspace was dropped.
    pub(crate) fn check_exists(&self) -> Result<()> {
        if self.identity.dropped.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::KeyspaceNotFound,
                format!("keyspace {:?} was dropped", self.name()),
            ));
        }
        Ok(())
    }

    fn check_readable(&self) -> Result<()> {
        self.check_exists()?;
        self.handle.check_open()
    }

    /// The value of a key, copied.
    ///
    /// # Errors
    /// If the key is empty or too long, the database is closed, or a table cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.check_readable()?;
        let key = FullKey::new(self.id(), key.as_ref())?;
        self.handle.core.with_view(|view, sequence| {
            Ok(lookup(view, key.as_slice(), sequence)?.map(Found::into_copy))
        })
    }

    /// Copies the value of a key into `value`, in place of what that holds. False, and `value` is empty, if the key has none.
    ///
    /// The fast way to read many values one after the other: nothing is allocated once the buffer is large enough, and nothing that
    /// threads share is counted.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # use rustlite_engine::Database;
    /// # let db = Database::in_memory()?;
    /// db.put("k", "v")?;
    /// let mut value = Vec::new();
    /// assert!(db.get_into("k", &mut value)?);
    /// assert_eq!(value, b"v");
    /// assert!(!db.get_into("other", &mut value)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_into(&self, key: impl AsRef<[u8]>, value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        self.check_readable()?;
        let key = FullKey::new(self.id(), key.as_ref())?;
        self.handle.core.with_view(|view, sequence| {
            let found = lookup(view, key.as_slice(), sequence)?;
            if let Some(found) = &found {
                value.extend_from_slice(found.as_slice());
            }
            Ok(found.is_some())
        })
    }

    /// The value of a key, in place: no copy is made. See [`PinnedValue`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_pinned(&self, key: impl AsRef<[u8]>) -> Result<Option<PinnedValue>> {
        self.check_readable()?;
        let key = FullKey::new(self.id(), key.as_ref())?;
        self.handle.core.with_view(|view, sequence| {
            Ok(lookup(view, key.as_slice(), sequence)?.map(|found| found.into_pinned()))
        })
    }

    /// The values of several keys, all as of one moment, in the order of the keys.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        self.check_readable()?;
        let id = self.id();
        self.handle
            .core
            .with_view(|view, sequence| multi_get(view, sequence, id, keys, Found::into_copy))
    }

    /// As [`multi_get`](Self::multi_get), with the values in place: no copies are made. See [`PinnedValue`].
    ///
    /// ```
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// db.put("a", "1")?;
    /// let values = db.multi_get_pinned(&["a", "b"])?;
    /// assert_eq!(values[0].as_deref(), Some(&b"1"[..]));
    /// assert!(values[1].is_none());
    /// # Ok::<(), rustlite_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn multi_get_pinned<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<PinnedValue>>> {
        self.check_readable()?;
        let id = self.id();
        self.handle
            .core
            .with_view(|view, sequence| multi_get(view, sequence, id, keys, Found::into_pinned))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.check_readable()?;
        let key = FullKey::new(self.id(), key.as_ref())?;
        self.handle
            .core
            .with_view(|view, sequence| Ok(lookup(view, key.as_slice(), sequence)?.is_some()))
    }

    /// Sets a key, with the database's durability.
    ///
    /// # Errors
    /// If key or value are outside the limits, the database is closed, read-only or poisoned, the disk is full, or the log cannot be
    /// written; see [`ErrorKind`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, &WriteOptions::default())
    }

    /// Sets a key, with options of this write.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.handle.write_one(options, |batch| {
            batch.put_in(self, key, value);
        })
    }

    /// Sets a key to a value that expires `ttl` from now, with the database's durability: from then on the key is as if it had been
    /// deleted, and compactions free its space.
    ///
    /// Expiry goes by the machine's clock, for every reader: a snapshot does not keep a value beyond its time. If the clock is set
    /// back, a value may live longer, but one that compactions have removed does not return, and neither does an older value of its
    /// key. Lifetimes are whole milliseconds, rounded up; so long a one that its end is beyond the year 500,000,000 never ends, which
    /// is how to store a value for ever in a keyspace with a [`default_ttl`](crate::KeyspaceOptions::default_ttl).
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use std::time::Duration;
    /// let db = rustlite_engine::Database::in_memory()?;
    /// db.put_expiring("session", "Ada", Duration::from_secs(3600))?;
    /// assert!(db.contains_key("session")?);
    /// db.put_expiring("session", "Ada", Duration::ZERO)?;
    /// assert!(!db.contains_key("session")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if the keyspace has a merge operator; otherwise as [`put`](Self::put).
    pub fn put_expiring(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.put_expiring_with(key, value, ttl, &WriteOptions::default())
    }

    /// Sets a key to a value that expires, with options of this write. See [`put_expiring`](Self::put_expiring).
    ///
    /// # Errors
    /// As [`put_expiring`](Self::put_expiring).
    pub fn put_expiring_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
        options: &WriteOptions,
    ) -> Result<()> {
        self.handle.write_one(options, |batch| {
            batch.put_expiring_in(self, key, value, ttl);
        })
    }

    /// Changes a key by an operand for the keyspace's merge operator, without reading it: a counter is increased, a list appended to.
    /// The change is applied when the key is read, and by compactions. Costs as much as [`put`](Self::put). See
    /// [`MergeOperator`](crate::MergeOperator).
    ///
    /// # Errors
    /// `InvalidArgument` if the keyspace was created without a merge operator; otherwise as [`put`](Self::put). Whether the operator
    /// accepts the operand shows when the key is read.
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.merge_with(key, operand, &WriteOptions::default())
    }

    /// Changes a key by an operand, with options of this write. See [`merge`](Self::merge).
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn merge_with(
        &self,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.handle.write_one(options, |batch| {
            batch.merge_in(self, key, operand);
        })
    }

    /// Removes a key; it need not exist.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, &WriteOptions::default())
    }

    /// Removes a key, with options of this write.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<()> {
        self.handle.write_one(options, |batch| {
            batch.delete_in(self, key);
        })
    }

    /// Removes all keys from `start` (inclusive) to `end` (exclusive), in time that does not depend on their number.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete_range(&self, start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Result<()> {
        self.handle.write_one(&WriteOptions::default(), |batch| {
            batch.delete_range_in(self, start, end);
        })
    }

    /// Removes every key, in time that does not depend on their number.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn clear(&self) -> Result<()> {
        self.handle.write_one(&WriteOptions::default(), |batch| {
            batch.clear_keyspace(self);
        })
    }

    /// All keys and values, in key order, from both ends, as of now.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn iter(&self) -> Result<Iter> {
        self.check_readable()?;
        Ok(Iter::new(self.handle.core.read_point(), keyspace_range(self.id())))
    }

    /// The keys between two bounds, and their values.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// for key in ["a", "b", "c", "d"] {
    ///     db.put(key, "")?;
    /// }
    /// let keys: Result<Vec<_>, _> =
    ///     db.range("b".."d")?.rev().map(|item| item.map(|(key, _)| key)).collect();
    /// assert_eq!(keys?, [b"c", b"b"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the database is closed.
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Iter> {
        self.check_readable()?;
        Ok(Iter::new(self.handle.core.read_point(), bounded_range(self.id(), &bounds)))
    }

    /// The keys that begin with `prefix`, and their values.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        self.check_readable()?;
        Ok(Iter::new(self.handle.core.read_point(), prefix_range(self.id(), prefix.as_ref())))
    }

    /// A cursor over all keys that lends keys and values instead of copying them.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn cursor(&self) -> Result<Cursor> {
        self.check_readable()?;
        Ok(Cursor::new(self.handle.core.read_point(), self.id(), keyspace_range(self.id())))
    }

    /// The keyspace as a snapshot sees it.
    #[must_use]
    pub fn at(&self, snapshot: &Snapshot) -> KeyspaceSnapshot {
        snapshot.keyspace(self)
    }

    /// About how many bytes of table files the keys between two bounds take. Cheap: it reads indexes only; what is still in memory or
    /// in value files does not count.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn approximate_bytes<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<u64> {
        self.check_readable()?;
        let range = bounded_range(self.id(), &bounds);
        let view = self.handle.core.views.load();
        let overlapping = (0..LEVELS).flat_map(|level| {
            view.version.overlapping(level, Some(&range.start), Some(&range.end))
        });
        Ok(overlapping
            .map(|handle| {
                let end = handle.table.approximate_offset(&range.end);
                end.saturating_sub(handle.table.approximate_offset(&range.start))
            })
            .sum())
    }

    /// Merges the tables that hold keys between two bounds until overwritten and deleted data is gone from them. Returns when
    /// that is done; other writes and reads go on meanwhile.
    ///
    /// # Errors
    /// If the database is closed or read-only, the disk is full, or a file cannot be read or written.
    pub fn compact_range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<()> {
        self.check_readable()?;
        self.handle.compact(&bounded_range(self.id(), &bounds))
    }

    /// [`compact_range`](Self::compact_range) over all keys.
    ///
    /// # Errors
    /// As [`compact_range`](Self::compact_range).
    pub fn compact(&self) -> Result<()> {
        self.check_readable()?;
        self.handle.compact(&keyspace_range(self.id()))
    }
}

impl WriteBatch {
    /// Removes every key of a keyspace.
    pub fn clear_keyspace(&mut self, keyspace: &Keyspace) -> &mut Self {
        if self.accepts(keyspace) {
            self.delete_all(keyspace.id());
        }
        self
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Name of the keyspace that exists from the start.
pub(crate) const DEFAULT_NAME: &str = "default";

/// The rules for the name of a `what`.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > KEYSPACE_NAME_BYTES_MAX || name.contains('\0') {
        return Err(Error::invalid(format!(
            "a {what} has 1 to {KEYSPACE_NAME_BYTES_MAX} bytes and no NUL"
        )));
    }
    Ok(())
}

/// A full key, without an allocation for the usual lengths.
pub(crate) struct FullKey {
    inline: [u8; Self::INLINE_BYTES],
    len: usize,
    long: Vec<u8>,
}

impl FullKey {
    const INLINE_BYTES: usize = 128;

    pub(crate) fn new(keyspace: KeyspaceId, key: &[u8]) -> Result<Self> {
        check_key(key)?;
        let len = KEYSPACE_PREFIX_BYTES + key.len();
        let mut full = Self { inline: [0; Self::INLINE_BYTES], len, long: Vec::new() };
        if let Some(inline) = full.inline.get_mut(..len) {
            let (prefix, rest) = inline.split_at_mut(KEYSPACE_PREFIX_BYTES);
            prefix.copy_from_slice(&keyspace.prefix());
            rest.copy_from_slice(key);
        } else {
            full.long.reserve_exact(len);
            full.long.extend_from_slice(&keyspace.prefix());
            full.long.extend_from_slice(key);
        }
        Ok(full)
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.inline.get(..self.len).unwrap_or(&self.long)
    }
}

//! Reading inside a transaction: own writes first, then the snapshot (or, at `ReadCommitted`, what is newest).

use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyspaceId, Sequence};
use crate::keyspace::{FullKey, Keyspace};
use crate::read::changes::key_changed;
use crate::read::iter::{
    Cursor, InTransaction, Iter, ReadPoint, bounded_range, keyspace_range, prefix_range,
};
use crate::read::view::View;
use crate::txn::locks::Denied;
use crate::txn::transaction::Transaction;
use crate::txn::validate::{conflict, shown};

impl Transaction {
    /// The value of a key, copied.
    ///
    /// # Errors
    /// If the key is empty or too long, the transaction has failed or used up its time, the database is closed, or a table cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.value(KeyspaceId::DEFAULT, key.as_ref(), <[u8]>::to_vec)
    }

    /// The value of a key of a keyspace, copied.
    ///
    /// # Errors
    /// As [`get`](Self::get), and if the keyspace was dropped or belongs to another database.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.value(self.resolve(keyspace)?, key.as_ref(), <[u8]>::to_vec)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.value(KeyspaceId::DEFAULT, key.as_ref(), |_| ())?.is_some())
    }

    /// Whether a key of a keyspace has a value.
    ///
    /// # Errors
    /// As [`get_in`](Self::get_in).
    pub fn contains_key_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.value(self.resolve(keyspace)?, key.as_ref(), |_| ())?.is_some())
    }

    /// The values of several keys, all as of one moment, in the order of the keys.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        self.values(KeyspaceId::DEFAULT, keys)
    }

    /// The values of several keys of a keyspace, all as of one moment, in the order of the keys.
    ///
    /// # Errors
    /// As [`get_in`](Self::get_in).
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: &[K],
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.values(self.resolve(keyspace)?, keys)
    }

    /// The value of a key, and a lock on it until the end of the transaction: other `get_for_update` of the key wait for it.
    ///
    /// It is for transactions that update what they read and would rather wait than be run again. The lock is between transactions
    /// that call `get_for_update`. It does not keep back a plain write, or a transaction that writes the key without having locked it:
    /// at `RepeatableRead` and `Serializable` their commit makes this one fail, as always; at `ReadCommitted` this one would overwrite
    /// theirs. If the transaction has read nothing before, its snapshot is taken once it has the lock, so that what the owner before has
    /// written is no conflict.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// db.transact(|txn| {
    ///     let old = txn.get_for_update("counter")?;
    ///     let count = old.map_or(0, |bytes| bytes[0]) + 1;
    ///     txn.put("counter", [count])
    /// })?;
    /// assert_eq!(db.get("counter")?.as_deref(), Some(&[1][..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LockTimeout`](ErrorKind::LockTimeout) if the lock is not free in time; [`Deadlock`](ErrorKind::Deadlock) if its owner waits, maybe
    /// through others, for this transaction; [`Conflict`](ErrorKind::Conflict) if the key was written since the snapshot. After the last
    /// two the transaction can only be rolled back. Otherwise as [`get`](Self::get), and for read-only transactions.
    pub fn get_for_update(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.locked_value(KeyspaceId::DEFAULT, key.as_ref())
    }

    /// As [`get_for_update`](Self::get_for_update), for a key of a keyspace.
    ///
    /// # Errors
    /// As [`get_for_update`](Self::get_for_update) and [`get_in`](Self::get_in).
    pub fn get_for_update_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        self.locked_value(self.resolve(keyspace)?, key.as_ref())
    }

    /// All keys and values, in key order, from both ends, with the transaction's own writes up to now. Like every iterator it keeps
    /// seeing what it saw when it was made, whatever is written or rolled back later.
    ///
    /// At `Serializable`, the keys from its beginning (or end) to where it has come count as read, with the gaps between them.
    ///
    /// # Errors
    /// If the transaction has failed or used up its time, or the database is closed.
    pub fn iter(&self) -> Result<Iter> {
        Ok(Iter::new(self.read_point()?, keyspace_range(KeyspaceId::DEFAULT)))
    }

    /// All keys and values of a keyspace.
    ///
    /// # Errors
    /// As [`iter`](Self::iter), and if the keyspace was dropped or belongs to another database.
    pub fn iter_in(&self, keyspace: &Keyspace) -> Result<Iter> {
        Ok(Iter::new(self.read_point()?, keyspace_range(self.resolve(keyspace)?)))
    }

    /// The keys between two bounds, and their values.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Iter> {
        Ok(Iter::new(self.read_point()?, bounded_range(KeyspaceId::DEFAULT, &bounds)))
    }

    /// The keys of a keyspace between two bounds, and their values.
    ///
    /// # Errors
    /// As [`iter_in`](Self::iter_in).
    pub fn range_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        bounds: impl RangeBounds<K>,
    ) -> Result<Iter> {
        Ok(Iter::new(self.read_point()?, bounded_range(self.resolve(keyspace)?, &bounds)))
    }

    /// The keys that begin with `prefix`, and their values.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        Ok(Iter::new(self.read_point()?, prefix_range(KeyspaceId::DEFAULT, prefix.as_ref())))
    }

    /// The keys of a keyspace that begin with `prefix`, and their values.
    ///
    /// # Errors
    /// As [`iter_in`](Self::iter_in).
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        Ok(Iter::new(self.read_point()?, prefix_range(self.resolve(keyspace)?, prefix.as_ref())))
    }

    /// A cursor over all keys that lends keys and values instead of copying them.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn cursor(&self) -> Result<Cursor> {
        let keyspace = KeyspaceId::DEFAULT;
        Ok(Cursor::new(self.read_point()?, keyspace, keyspace_range(keyspace)))
    }

    /// A cursor over all keys of a keyspace.
    ///
    /// # Errors
    /// As [`iter_in`](Self::iter_in).
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Result<Cursor> {
        let keyspace = self.resolve(keyspace)?;
        Ok(Cursor::new(self.read_point()?, keyspace, keyspace_range(keyspace)))
    }

    fn value<R>(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        self.check_usable()?;
        let key = FullKey::new(keyspace, key)?;
        self.has_read.store(true, Ordering::Relaxed);
        self.core().with_view(|view, visible| self.find(view, visible, key.as_slice(), take))
    }

    fn values<K: AsRef<[u8]>>(
        &self,
        keyspace: KeyspaceId,
        keys: &[K],
    ) -> Result<Vec<Option<Vec<u8>>>> {
        self.check_usable()?;
        self.has_read.store(true, Ordering::Relaxed);
        self.core().with_view(|view, visible| {
            keys.iter()
                .map(|key| {
                    let key = FullKey::new(keyspace, key.as_ref())?;
                    self.find(view, visible, key.as_slice(), <[u8]>::to_vec)
                })
                .collect()
        })
    }

    /// Own writes first; of the view, what the transaction sees.
    pub(crate) fn find<R>(
        &self,
        view: &View,
        visible: Sequence,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let committed = (view, self.sequence(visible));
        self.writes.overlay().find(committed, key, self.observed.as_deref(), take)
    }

    fn locked_value(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check_writable()?;
        let full = FullKey::new(keyspace, key)?;
        self.lock(full.as_slice())?;
        self.value(keyspace, key, <[u8]>::to_vec)
    }

    /// Locks a full key, and makes sure that nobody has written it since the snapshot.
    fn lock(&mut self, full_key: &[u8]) -> Result<()> {
        if self.locks.contains(full_key) {
            return Ok(());
        }
        let key: Arc<[u8]> = Arc::from(full_key);
        let patience = self.core().clock.monotonic().saturating_add(self.options.lock_timeout);
        let until = self.deadline.map_or(patience, |deadline| deadline.min(patience));
        let id = self.id();
        match self.locks.acquire(&self.handle.core, id, &key, until) {
            Ok(()) => {}
            Err(Denied::TimedOut) => {
                self.check_usable()?;
                self.core().transactions.failed(ErrorKind::LockTimeout);
                return Err(Error::new(
                    ErrorKind::LockTimeout,
                    format!("{} was locked for {:?}", shown(&key), self.options.lock_timeout),
                ));
            }
            Err(Denied::Deadlock) => {
                let text = format!(
                    "the owner of {} waits for this transaction; run it again",
                    shown(&key)
                );
                return Err(self.fail(Error::new(ErrorKind::Deadlock, text)));
            }
        }
        let Some(guard) = &self.snapshot else { return Ok(()) };
        if !*self.has_read.get_mut() {
            // Nobody can tell that the transaction did not begin now.
            self.snapshot = Some(Arc::new(self.core().snapshot()));
            return Ok(());
        }
        let since = guard.sequence();
        if self.core().with_view(|view, _| key_changed(view, &key, since))? {
            let error = conflict(self.core(), &key);
            return Err(self.fail(error));
        }
        Ok(())
    }

    /// From now on the transaction can only be rolled back.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.core().transactions.failed(error.kind());
        self.failure = Some(error.clone());
        error
    }

    pub(crate) fn read_point(&self) -> Result<ReadPoint> {
        self.check_usable()?;
        self.has_read.store(true, Ordering::Relaxed);
        // For `ReadCommitted` the view must come first. A snapshot has been registered long before, so its order is right too.
        let newest = self.core().read_point();
        let sequence = self.sequence(newest.sequence);
        let mut point = ReadPoint::new(newest.view, sequence, self.snapshot.clone());
        point.transaction = Some(InTransaction {
            own: Arc::clone(self.writes.overlay()),
            observed: self.observed.clone(),
        });
        Ok(point)
    }
}

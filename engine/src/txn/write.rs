//! Writing inside a transaction: into its write set, which nobody else sees.

use std::time::Duration;

use crate::batch::{check_key, check_value};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, ValueKind};
use crate::keyspace::{FullKey, Keyspace};
use crate::kinds::expiry::lifetime;
use crate::limits::KEY_BYTES_MAX;
use crate::read::iter::keyspace_range;
use crate::read::visible::KeyRange;
use crate::txn::transaction::Transaction;

impl Transaction {
    /// Sets a key.
    ///
    /// # Errors
    /// If key or value are outside the limits, the transaction would be larger than [`BATCH_BYTES_MAX`](crate::BATCH_BYTES_MAX), is
    /// read-only, has failed or used up its time, or the database is closed. The transaction is as it was then.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.set(KeyspaceId::DEFAULT, key.as_ref(), Some(value.as_ref()))
    }

    /// Sets a key of a keyspace.
    ///
    /// # Errors
    /// As [`put`](Self::put), and if the keyspace was dropped or belongs to another database.
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.set(self.resolve(keyspace)?, key.as_ref(), Some(value.as_ref()))
    }

    /// Sets a key to a value that expires `ttl` after the commit, as [`Keyspace::put_expiring`] does. The transaction itself sees it at
    /// once, and for as long as it runs.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use std::time::Duration;
    /// let db = rustlite_engine::Database::in_memory()?;
    /// let mut txn = db.begin()?;
    /// txn.put_expiring("session", "Ada", Duration::from_secs(3600))?;
    /// assert!(txn.contains_key("session")?);
    /// txn.commit()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the keyspace has a merge operator or an
    /// index.
    pub fn put_expiring(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.set_expiring(KeyspaceId::DEFAULT, key.as_ref(), value.as_ref(), ttl)
    }

    /// As [`put_expiring`](Self::put_expiring), for a key of a keyspace.
    ///
    /// # Errors
    /// As [`put_expiring`](Self::put_expiring) and [`put_in`](Self::put_in).
    pub fn put_expiring_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.set_expiring(self.resolve(keyspace)?, key.as_ref(), value.as_ref(), ttl)
    }

    /// Gives a key an operand for its merge operator, as [`Keyspace::merge`] does: a write, not a read. So two transactions that do it
    /// to the same key conflict where two that put it do (at `RepeatableRead` and `Serializable`). At `ReadCommitted` both take effect, one
    /// after the other. The transaction itself reads what the operator makes of it; at `ReadCommitted` another's operand may still get
    /// in before the commit.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use rustlite_engine::{Database, KeyspaceOptions, U64Add};
    /// let db = Database::in_memory()?;
    /// let counters = db
    ///     .create_keyspace("counters", KeyspaceOptions::new().merge_operator(U64Add::NAME))?;
    /// let mut txn = db.begin()?;
    /// txn.merge_in(&counters, "visits", 2_u64.to_le_bytes())?;
    /// txn.merge_in(&counters, "visits", 3_u64.to_le_bytes())?;
    /// assert_eq!(txn.get_in(&counters, "visits")?, Some(5_u64.to_le_bytes().to_vec()));
    /// txn.commit()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the keyspace was created without a merge
    /// operator, or has an index. Whether the operator accepts the operand shows when the key is read.
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.add_operand(KeyspaceId::DEFAULT, key.as_ref(), operand.as_ref())
    }

    /// As [`merge`](Self::merge), for a key of a keyspace.
    ///
    /// # Errors
    /// As [`merge`](Self::merge) and [`put_in`](Self::put_in).
    pub fn merge_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.add_operand(self.resolve(keyspace)?, key.as_ref(), operand.as_ref())
    }

    /// Removes a key; it need not exist.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.set(KeyspaceId::DEFAULT, key.as_ref(), None)
    }

    /// Removes a key of a keyspace; it need not exist.
    ///
    /// # Errors
    /// As [`put_in`](Self::put_in).
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.set(self.resolve(keyspace)?, key.as_ref(), None)
    }

    /// Removes all keys from `start` (inclusive) to `end` (exclusive), those included that others add before this transaction commits at
    /// `ReadCommitted`; at higher levels such an addition is a conflict. Nothing if `start >= end`.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete_range(&mut self, start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Result<()> {
        self.remove_range(KeyspaceId::DEFAULT, start.as_ref(), end.as_ref())
    }

    /// Removes all keys of a keyspace from `start` (inclusive) to `end` (exclusive), as [`delete_range`](Self::delete_range) does.
    ///
    /// # Errors
    /// As [`put_in`](Self::put_in).
    pub fn delete_range_in(
        &mut self,
        keyspace: &Keyspace,
        start: impl AsRef<[u8]>,
        end: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.remove_range(self.resolve(keyspace)?, start.as_ref(), end.as_ref())
    }

    /// Removes every key of a keyspace.
    ///
    /// # Errors
    /// As [`put_in`](Self::put_in).
    pub fn clear_keyspace(&mut self, keyspace: &Keyspace) -> Result<()> {
        self.check_writable()?;
        self.delete_rows(&keyspace_range(self.resolve(keyspace)?))
    }

    fn set(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let key = self.full_key(keyspace, key, value.unwrap_or_default())?;
        self.write_row(key.as_slice(), value)
    }

    /// The full key of a record that may be written.
    fn full_key(&self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<FullKey> {
        self.check_writable()?;
        check_key(key)?;
        check_value(value)?;
        FullKey::new(keyspace, key)
    }

    /// The same for a kind of record that not every keyspace can hold.
    fn checked(
        &self,
        kind: ValueKind,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
    ) -> Result<FullKey> {
        let key = self.full_key(keyspace, key, value)?;
        self.core().rules.of(keyspace).admit(kind)?;
        Ok(key)
    }

    fn set_expiring(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
    ) -> Result<()> {
        let key = self.checked(ValueKind::PutExpiring, keyspace, key, value)?;
        self.write_expiring_row(key.as_slice(), lifetime(ttl), value)
    }

    fn add_operand(&mut self, keyspace: KeyspaceId, key: &[u8], operand: &[u8]) -> Result<()> {
        let key = self.checked(ValueKind::Merge, keyspace, key, operand)?;
        self.merge_row(key.as_slice(), operand)
    }

    fn remove_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: &[u8]) -> Result<()> {
        self.check_writable()?;
        if start.len() > KEY_BYTES_MAX || end.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a bound of delete_range is longer than {KEY_BYTES_MAX} bytes"
            )));
        }
        if start >= end {
            return Ok(());
        }
        let full = |key: &[u8]| [&keyspace.prefix()[..], key].concat();
        self.delete_rows(&KeyRange { start: full(start), end: full(end) })
    }
}

//! Writing inside a transaction: into its write set, which nobody else sees.

use crate::batch::{check_key, check_value};
use crate::error::{Error, Result};
use crate::key::KeyspaceId;
use crate::keyspace::{FullKey, Keyspace};
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
        self.check_writable()?;
        check_key(key)?;
        value.map_or(Ok(()), check_value)?;
        let key = FullKey::new(keyspace, key)?;
        self.write_row(key.as_slice(), value)
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

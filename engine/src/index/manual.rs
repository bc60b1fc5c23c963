//! Entries made and removed by hand.

use std::sync::Arc;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::index::maintain::violation;
use crate::index::registry::IndexState;
use crate::keyspace::FullKey;

impl Database {
    /// Adds an entry to an index of the source [`Manual`](crate::IndexSource::Manual): the index key leads to the primary key from now on.
    /// Nothing happens if it does already. Whether there is such a row is the caller's business.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # use rustlite_engine::{Database, IndexSource, IndexType};
    /// # let db = Database::in_memory()?;
    /// db.create_index("by email", &db, IndexType::Hash, IndexSource::Manual)?;
    /// db.put("user:1", "Ada")?;
    /// db.index_insert("by email", "ada@example.org", "user:1")?;
    /// assert_eq!(db.index_find("by email", "ada@example.org")?, [b"user:1"]);
    /// assert!(db.index_remove("by email", "ada@example.org", "user:1")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UniqueViolation`](crate::ErrorKind::UniqueViolation) if the index is unique and the key leads to another row;
    /// [`IndexNotFound`](crate::ErrorKind::IndexNotFound); if the entries of the index follow from rows, the primary key is empty or a key is
    /// too long; otherwise as any write.
    pub fn index_insert(
        &self,
        index: &str,
        key: impl AsRef<[u8]>,
        primary_key: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (key, primary_key) = (key.as_ref(), primary_key.as_ref());
        let index = self.manual_index(index, primary_key)?;
        let entry = index.format.entry_key(key, primary_key)?;
        let value = index.format.entry_value(primary_key);
        self.transact(|txn| match txn.read_point()?.get(&entry)? {
            Some(found) if found == value => Ok(()),
            Some(_) => Err(violation(&index, key)),
            None => txn.writes.set(&entry, Some(value)),
        })
    }

    /// Removes an entry from an index of the source [`Manual`](crate::IndexSource::Manual). False if there was no such entry.
    ///
    /// # Errors
    /// As [`index_insert`](Self::index_insert), but for the unique index.
    pub fn index_remove(
        &self,
        index: &str,
        key: impl AsRef<[u8]>,
        primary_key: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let (key, primary_key) = (key.as_ref(), primary_key.as_ref());
        let index = self.manual_index(index, primary_key)?;
        let entry = index.format.entry_key(key, primary_key)?;
        let value = index.format.entry_value(primary_key);
        self.transact(|txn| {
            let found = txn.read_point()?.get(&entry)?.is_some_and(|found| found == value);
            if found {
                txn.writes.set(&entry, None)?;
            }
            Ok(found)
        })
    }

    /// The primary keys that an index key leads to, in their order. For any index.
    ///
    /// # Errors
    /// As [`Index::find`](crate::Index::find).
    pub fn index_find(&self, index: &str, key: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        self.index(index)?.find(key)
    }

    fn manual_index(&self, name: &str, primary_key: &[u8]) -> Result<Arc<IndexState>> {
        self.handle().check_open()?;
        let index = self.handle().index_named(name)?;
        if !index.is_manual() {
            return Err(Error::invalid(format!(
                "the entries of index {name:?} follow from its rows; only those of a Manual index are \
                 made by hand"
            )));
        }
        FullKey::new(index.definition.keyspace, primary_key)?;
        Ok(index)
    }
}

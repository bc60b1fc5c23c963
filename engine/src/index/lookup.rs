//! Looking rows up by an index.

use std::ops::RangeBounds;
use std::sync::Arc;

use crate::database::Handle;
use crate::error::{Error, ErrorKind, Result};
use crate::index::definition::IndexType;
use crate::index::entry::{EntryFormat, IndexEntry};
use crate::index::registry::IndexState;
use crate::key::Sequence;
use crate::keyspace::FullKey;
use crate::read::get::{Found, lookup};
use crate::read::iter::{Iter, KeyValue, ReadPoint};
use crate::read::visible::{KeyRange, VisibleCursor};
use crate::snapshot::Snapshot;
use crate::txn::Transaction;

/// A secondary index. Cheap to clone; keeps the database open. Made by [`Database::create_index`](crate::Database::create_index) or
/// [`Database::index`](crate::Database::index).
///
/// Its own methods read what is newest; [`at`](Self::at) and [`within`](Self::within) read in a snapshot and in a transaction.
#[derive(Clone)]
pub struct Index {
    handle: Arc<Handle>,
    state: Arc<IndexState>,
}

impl Index {
    pub(super) fn new(handle: &Arc<Handle>, state: Arc<IndexState>) -> Self {
        Self { handle: Arc::clone(handle), state }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Reads at this moment: for several look-ups that must agree with each other.
    ///
    /// # Errors
    /// [`IndexNotFound`](ErrorKind::IndexNotFound) if it was dropped; [`IndexBuilding`](ErrorKind::IndexBuilding); if the database is closed.
    pub fn now(&self) -> Result<IndexReader> {
        self.handle.check_open()?;
        self.reader(self.handle.core.read_point())
    }

    /// Reads in a snapshot.
    ///
    /// # Errors
    /// As [`now`](Self::now): `IndexBuilding` if it was not ready when the snapshot was taken. If the snapshot is of another database.
    pub fn at(&self, snapshot: &Snapshot) -> Result<IndexReader> {
        self.handle.check_open()?;
        let point = snapshot.read_point(&self.handle.core)?;
        self.reader(point)
    }

    /// Reads in a transaction, its own writes included. As for iterators: what the transaction writes later is not seen.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # use rustlite_engine::{Database, IndexSource, IndexType};
    /// # let db = Database::in_memory()?;
    /// let index = db.create_index("kind", &db, IndexType::BTree, IndexSource::value_bytes(0..1))?;
    /// let mut txn = db.begin()?;
    /// txn.put("k", "x")?;
    /// assert_eq!(index.within(&txn)?.find("x")?, [b"k"]);
    /// assert!(index.find("x")?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`now`](Self::now): `IndexBuilding` if it was not ready when the transaction began. If the transaction has failed or is of another
    /// database.
    pub fn within(&self, transaction: &Transaction) -> Result<IndexReader> {
        if !Arc::ptr_eq(&transaction.handle, &self.handle) {
            return Err(Error::invalid(
                "the index belongs to another open database than the transaction",
            ));
        }
        let known = transaction.indexing.as_ref().is_some_and(|all| all.knows(&self.state));
        if !known {
            self.check_exists()?;
            return Err(self.building());
        }
        self.reader(transaction.read_point()?)
    }

    fn check_exists(&self) -> Result<()> {
        if self.state.is_dropped() {
            return Err(Error::new(
                ErrorKind::IndexNotFound,
                format!("index {:?} was dropped", self.name()),
            ));
        }
        Ok(())
    }

    fn building(&self) -> Error {
        Error::new(
            ErrorKind::IndexBuilding,
            format!("index {:?} is being built, or was at the moment that is read", self.name()),
        )
    }

    fn check_readable(&self, sequence: Sequence) -> Result<()> {
        self.check_exists()?;
        if !self.state.is_ready_at(sequence) {
            return Err(self.building());
        }
        Ok(())
    }

    fn reader(&self, point: ReadPoint) -> Result<IndexReader> {
        self.check_readable(point.sequence)?;
        Ok(IndexReader { state: Arc::clone(&self.state), point })
    }

    /// The primary keys of the rows with this index key, in their order.
    ///
    /// # Errors
    /// As [`now`](Self::now), and if a table cannot be read.
    pub fn find(&self, key: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        self.handle.check_open()?;
        // As `now`, but nothing outlives the call.
        self.handle.core.with_view(|view, visible| {
            self.check_readable(visible)?;
            let get = |key: &[u8]| Ok(lookup(view, key, visible)?.map(Found::into_copy));
            let scan = |range| VisibleCursor::with_stem(view, visible, range);
            self.state.find(key.as_ref(), get, scan)
        })
    }

    /// The rows with this index key, in the order of their keys.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn rows(&self, key: impl AsRef<[u8]>) -> Result<Vec<KeyValue>> {
        self.now()?.rows(key)
    }

    /// All entries. See [`IndexReader::iter`].
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub fn iter(&self) -> Result<IndexIter> {
        Ok(self.now()?.iter())
    }

    /// The entries between two index keys. See [`IndexReader::range`].
    ///
    /// # Errors
    /// As [`now`](Self::now), and for a Hash index.
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<IndexIter> {
        self.now()?.range(bounds)
    }

    /// The entries whose index keys begin with `prefix`. See [`IndexReader::prefix`].
    ///
    /// # Errors
    /// As [`now`](Self::now), and for a Hash index.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<IndexIter> {
        self.now()?.prefix(prefix)
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// An index at one moment.
#[derive(Clone)]
pub struct IndexReader {
    state: Arc<IndexState>,
    point: ReadPoint,
}

impl IndexReader {
    /// The primary keys of the rows with this index key, in their order.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn find(&self, key: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        let get = |key: &[u8]| self.point.get(key);
        self.state.find(key.as_ref(), get, |range| self.point.stem_cursor(range))
    }

    /// The rows with this index key, in the order of their keys.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn rows(&self, key: impl AsRef<[u8]>) -> Result<Vec<KeyValue>> {
        let mut rows = Vec::new();
        for primary_key in self.find(key)? {
            if let Some(value) = self.row(&primary_key)? {
                rows.push((primary_key, value));
            }
        }
        Ok(rows)
    }

    /// The row with this primary key, at the same moment. For an [`IndexEntry`] of this reader there is one, unless the entry was made by
    /// hand.
    ///
    /// # Errors
    /// If the key is empty or too long, or a table cannot be read.
    pub fn row(&self, primary_key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let key = FullKey::new(self.state.definition.keyspace, primary_key.as_ref())?;
        self.point.get(key.as_slice())
    }

    /// All entries, from both ends: in the order of index keys and then primary keys for a B-Tree index, in no useful order for a Hash
    /// index.
    #[must_use]
    pub fn iter(&self) -> IndexIter {
        self.entries(self.state.format.all())
    }

    /// The entries between two index keys, from both ends, ordered by index key and then by primary key.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a Hash index.
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<IndexIter> {
        self.check_ordered()?;
        Ok(self.entries(self.state.format.between(&bounds)))
    }

    /// The entries whose index keys begin with `prefix`, ordered like those of a range.
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<IndexIter> {
        self.check_ordered()?;
        Ok(self.entries(self.state.format.prefix(prefix.as_ref())))
    }

    fn check_ordered(&self) -> Result<()> {
        if self.state.format.index_type == IndexType::Hash {
            return Err(Error::invalid(format!(
                "index {:?} is a Hash index: it answers equality only",
                self.state.name
            )));
        }
        Ok(())
    }

    fn entries(&self, range: KeyRange) -> IndexIter {
        // Bounds that the wrong way round hold nothing; the iterator would not know what to do with them.
        let end = range.end.max(range.start.clone());
        let range = KeyRange { start: range.start, end };
        IndexIter { inner: Iter::new(self.point.clone(), range), state: Arc::clone(&self.state) }
    }
}

impl std::fmt::Debug for IndexReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexReader").field("name", &self.state.name).finish_non_exhaustive()
    }
}

/// Iterates over entries of an index, from both ends. It owns what it reads. After an error it ends.
pub struct IndexIter {
    inner: Iter,
    state: Arc<IndexState>,
}

impl IndexIter {
    fn decode(&self, item: Result<KeyValue>) -> Result<IndexEntry> {
        let (key, value) = item?;
        self.state.format.decode(&key, &value).ok_or_else(|| self.state.no_entry())
    }
}

impl Iterator for IndexIter {
    type Item = Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.inner.next()?;
        Some(self.decode(item))
    }
}

impl DoubleEndedIterator for IndexIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        let item = self.inner.next_back()?;
        Some(self.decode(item))
    }
}

impl std::iter::FusedIterator for IndexIter {}

impl std::fmt::Debug for IndexIter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexIter").field("index", &self.state.name).finish_non_exhaustive()
    }
}

impl IndexState {
    /// The primary keys of the rows with an index key: `get` reads a key, `scan` those with the stem that is the start of a range.
    fn find(
        &self,
        key: &[u8],
        get: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>>,
        scan: impl FnOnce(KeyRange) -> VisibleCursor,
    ) -> Result<Vec<Vec<u8>>> {
        if self.format.unique {
            return Ok(get(&self.format.stem(key))?.into_iter().collect());
        }
        let range = self.format.equal(key);
        let stem_len = range.start.len();
        let mut found = Vec::new();
        let mut entries = scan(range);
        entries.seek_to_first()?;
        while entries.valid() {
            let primary_key = EntryFormat::primary_key(entries.key(), entries.value(), stem_len);
            found.push(primary_key.ok_or_else(|| self.no_entry())?.to_vec());
            entries.next()?;
        }
        Ok(found)
    }

    #[cold]
    fn no_entry(&self) -> Error {
        Error::new(
            ErrorKind::Corruption,
            format!(
                "index {:?} has an entry that is none; drop the index and create it again",
                self.name
            ),
        )
    }

    /// How many entries there are.
    pub(super) fn count_entries(&self, point: ReadPoint) -> Result<u64> {
        let mut count = 0;
        for entry in Iter::new(point, self.format.all()) {
            entry?;
            count += 1;
        }
        Ok(count)
    }
}

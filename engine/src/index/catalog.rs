//! Creating, dropping and listing indexes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::database::{Database, Handle};
use crate::error::{Error, ErrorKind, Result};
use crate::index::build::build;
use crate::index::definition::{IndexDefinition, IndexSource, IndexType};
use crate::index::extract::Extractor;
use crate::index::lookup::Index;
use crate::index::registry::IndexState;
use crate::key::KeyspaceId;
use crate::keyspace::Keyspace;
use crate::limits::LEVELS;
use crate::manifest::Version;

/// What there is to know about an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexInfo {
    /// Its name.
    pub name: String,
    /// The name of the keyspace whose rows it leads to.
    pub keyspace: String,
    /// How it is ordered.
    pub index_type: IndexType,
    /// Whether each index key belongs to one row only.
    pub unique: bool,
    /// Where the index keys of a row come from.
    pub source: IndexSource,
    /// Whether it can be used: every row has its entries.
    pub ready: bool,
    /// Entries, counted one by one.
    pub entries: u64,
    /// Bytes that its entries take in table files, roughly; what is only in memory is not included.
    pub table_bytes: u64,
}

impl Database {
    /// Creates an index on the rows of a keyspace, and builds it from those that are there. Others can write meanwhile. Returns when the
    /// index can be used.
    ///
    /// From then on every write to the keyspace changes the index in the same commit. What that costs, and what it means for
    /// concurrent writers, is told in `docs/INDEXES.md`. If the process dies during the build, the next open goes on with it, in the
    /// background.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use rustlite_engine::{Database, IndexSource, IndexType};
    /// let db = Database::in_memory()?;
    /// let orders = db.keyspace("orders")?;
    /// orders.put("o1", "2026-03-01 12 apples")?;
    /// let source = IndexSource::value_bytes(0..10);
    /// let by_day = db.create_index("by day", &orders, IndexType::BTree, source)?;
    /// orders.put("o2", "2026-03-01 3 pears")?;
    /// assert_eq!(by_day.find("2026-03-01")?, [b"o1", b"o2"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`IndexExists`](ErrorKind::IndexExists); [`ExtractorMissing`](ErrorKind::ExtractorMissing); if the name or the byte range is bad,
    /// the keyspace was dropped or belongs to another database, the extractor panics or gives a key that is too long: then there is no
    /// index. After any other error the index may be there and incomplete: the next open goes on building it.
    pub fn create_index(
        &self,
        name: &str,
        keyspace: &Keyspace,
        index_type: IndexType,
        source: IndexSource,
    ) -> Result<Index> {
        self.add_index(name, keyspace, index_type, source, false)
    }

    /// As [`create_index`](Self::create_index), for an index in which no two rows have the same key: a commit that would make it so fails
    /// with [`UniqueViolation`](ErrorKind::UniqueViolation). Within one batch or transaction, rows can hand keys to each other in any order.
    ///
    /// # Errors
    /// Those of `create_index`, and `UniqueViolation` if there are such rows already: then there is no index.
    pub fn create_unique_index(
        &self,
        name: &str,
        keyspace: &Keyspace,
        index_type: IndexType,
        source: IndexSource,
    ) -> Result<Index> {
        self.add_index(name, keyspace, index_type, source, true)
    }

    fn add_index(
        &self,
        name: &str,
        keyspace: &Keyspace,
        index_type: IndexType,
        source: IndexSource,
        unique: bool,
    ) -> Result<Index> {
        let handle = self.handle();
        handle.check_open()?;
        if !Arc::ptr_eq(&keyspace.handle, handle) {
            return Err(Error::invalid("the keyspace belongs to another open database"));
        }
        keyspace.check_exists()?;
        Extractor::new(&source, &handle.core.indexes.extractors).check_registered(name)?;
        let definition = IndexDefinition { keyspace: keyspace.id(), index_type, unique, source };
        if definition.source != IndexSource::Manual {
            handle.core.rules.check_indexable(definition.keyspace)?;
        }
        let index = handle.define_index(name, definition)?;
        build(handle, &index)?;
        Ok(Index::new(handle, index))
    }

    /// An index by its name.
    ///
    /// # Errors
    /// [`IndexNotFound`](ErrorKind::IndexNotFound); if the database is closed.
    pub fn index(&self, name: &str) -> Result<Index> {
        self.handle().check_open()?;
        Ok(Index::new(self.handle(), self.handle().index_named(name)?))
    }

    /// Removes an index and its entries. Rows stay as they are.
    ///
    /// # Errors
    /// [`IndexNotFound`](ErrorKind::IndexNotFound); if the database is closed, read-only or poisoned.
    pub fn drop_index(&self, name: &str) -> Result<()> {
        self.handle().check_open()?;
        let index = self.handle().index_named(name)?;
        self.handle().drop_index(&index)
    }

    /// The names of all indexes, in their order, those that are being built included.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn list_indexes(&self) -> Result<Vec<String>> {
        self.handle().check_open()?;
        Ok(self.handle().core.indexes.registry().all().map(|index| index.name.clone()).collect())
    }

    /// What there is to know about an index. Counts its entries, which takes as long as reading all of them.
    ///
    /// # Errors
    /// [`IndexNotFound`](ErrorKind::IndexNotFound); if the database is closed, or a table cannot be read.
    pub fn index_info(&self, name: &str) -> Result<IndexInfo> {
        self.handle().check_open()?;
        let index = self.handle().index_named(name)?;
        let core = &self.handle().core;
        let rows = core.versions.keyspace(index.definition.keyspace);
        Ok(IndexInfo {
            name: index.name.clone(),
            keyspace: rows.map(|rows| rows.name).unwrap_or_default(),
            index_type: index.definition.index_type,
            unique: index.definition.unique,
            source: index.definition.source.clone(),
            ready: index.is_ready(),
            entries: index.count_entries(core.read_point())?,
            table_bytes: table_bytes(self.handle(), index.id()),
        })
    }
}

fn table_bytes(handle: &Handle, hidden: KeyspaceId) -> u64 {
    let version = handle.core.versions.current();
    let all = (0..LEVELS).flat_map(|level| version.overlapping(level, None, None));
    all.filter(|table| table.meta.keyspace() == hidden).map(|table| table.meta.file_bytes).sum()
}

impl Handle {
    pub(super) fn index_named(&self, name: &str) -> Result<Arc<IndexState>> {
        let found = self.core.indexes.registry().named(name).map(Arc::clone);
        found.ok_or_else(|| {
            Error::new(ErrorKind::IndexNotFound, format!("there is no index {name:?}"))
        })
    }

    /// Makes an index known, so that writers begin to keep its entries.
    fn define_index(&self, name: &str, definition: IndexDefinition) -> Result<Arc<IndexState>> {
        let indexes = &self.core.indexes;
        let _definitions = indexes.lock_definitions();
        // Rows that are on their way without entries must be noticed by whoever reads the rows before them.
        self.core.pipeline.keep_footprints();
        let created = self.core.recorded(self.core.versions.create_index(name, definition))?;
        self.core.pipeline.memtables().learn(&created);
        let index = IndexState::new(&created, &indexes.extractors).map(Arc::new);
        let index = index.ok_or_else(|| Error::internal("a new index is none"))?;
        self.core.pipeline.change_indexes(|| indexes.replace(|all| all.push(Arc::clone(&index))));
        Ok(index)
    }

    pub(super) fn drop_index(&self, index: &Arc<IndexState>) -> Result<()> {
        let _definitions = self.core.indexes.lock_definitions();
        if index.is_dropped() {
            return Err(Error::new(
                ErrorKind::IndexNotFound,
                format!("index {:?} was dropped", index.name),
            ));
        }
        self.drop_with_indexes(index.id())?;
        self.dropped();
        Ok(())
    }

    /// Drops a keyspace, hidden or not, with its indexes. The caller holds the lock of definitions.
    pub(crate) fn drop_with_indexes(&self, id: KeyspaceId) -> Result<()> {
        let core = &self.core;
        let publish = |version: &Arc<Version>| core.publish(version, None);
        core.recorded(core.versions.drop_keyspace(id, publish))?;
        let goes = |index: &IndexState| index.id() == id || index.definition.keyspace == id;
        let registry = core.indexes.registry();
        let mut gone = registry.all().filter(|index| goes(index)).peekable();
        if gone.peek().is_none() {
            return Ok(());
        }
        core.pipeline
            .change_indexes(|| core.indexes.replace(|all| all.retain(|index| !goes(index))));
        gone.for_each(|index| index.dropped.store(true, Ordering::Release));
        Ok(())
    }
}

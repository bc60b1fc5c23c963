//! Keeping indexes: a transaction that writes a row writes the row's entries as well.
//!
//! Entries are written at the moment of the row, into the same write set. So look-ups in the transaction see them, savepoints take them
//! back, and they go into the same batch. They are the difference between the entries of the row as the transaction saw it before and
//! those of the new one. That is right if the row is what it was: it is a key that the transaction writes, so the check at commit sees
//! to it.
//!
//! **Unique indexes.** One key, one owner. A row that takes a key from another is noted; at commit the loser must not have the index
//! key any more. So a batch may hand keys around among its rows, in any order.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLockReadGuard};

use crate::batch::{Records, WriteBatch};
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::index::extract::RowKeys;
use crate::index::registry::{IndexList, IndexState, Registry};
use crate::key::{KeyspaceId, Trailer, ValueKind};
use crate::kinds::expiry::{Millis, split};
use crate::kinds::unknown_kind;
use crate::limits::KEYSPACE_PREFIX_BYTES;
use crate::read::iter::{Iter, keyspace_range};
use crate::read::overlay::OwnWrite;
use crate::read::visible::KeyRange;
use crate::txn::Transaction;

/// What a transaction knows of indexes.
pub(crate) struct Indexing {
    /// The indexes when it began.
    registry: Arc<Registry>,
    /// Entries of unique indexes that changed hands, by full key.
    taken: HashMap<Vec<u8>, Taken>,
    /// Entries of unique indexes that were left alone because of their owner.
    relied_on: Vec<Vec<u8>>,
    /// The transaction has the turn of all writers of entries for itself.
    pub(super) alone: bool,
}

struct Taken {
    index: Arc<IndexState>,
    index_key: Vec<u8>,
    /// Primary keys of the owners before.
    losers: Vec<Vec<u8>>,
}

/// A change of an entry, by full key.
pub(super) enum Change {
    Set(Vec<u8>),
    Clear(Vec<u8>),
    /// The row becomes the owner.
    Take {
        entry: Vec<u8>,
        index: Arc<IndexState>,
        index_key: Vec<u8>,
        primary_key: Vec<u8>,
    },
    /// The row stops to be the owner, if it is.
    Release {
        entry: Vec<u8>,
        primary_key: Vec<u8>,
    },
}

impl Indexing {
    /// `None` if there are no indexes.
    pub(crate) fn begin(core: &Core) -> Option<Self> {
        (core.indexes.generation() > 0).then(|| Self {
            registry: core.indexes.registry(),
            taken: HashMap::new(),
            relied_on: Vec::new(),
            alone: false,
        })
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn knows(&self, index: &IndexState) -> bool {
        self.registry.named(&index.name).is_some_and(|known| known.id() == index.id())
    }

    /// Keys that must not have been written since the snapshot.
    pub(crate) fn relied_on(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.relied_on.iter()
    }
}

pub(super) fn user_part(full_key: &[u8]) -> &[u8] {
    full_key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default()
}

/// What a write does to the entry of an index key of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The index key leads to the row no longer.
    Gone,
    /// The index key leads to the row from now on.
    Fresh,
}

/// The index keys that are among these and not among the others.
pub(super) fn only_in<'k>(
    keys: &'k RowKeys<'_>,
    others: &RowKeys<'_>,
) -> impl Iterator<Item = &'k [u8]> {
    keys.iter().filter(|key| !others.contains(key))
}

/// Calls `turn` with each index key that leads to a row no longer, and then with each that does from now on.
pub(super) fn difference(
    old: &RowKeys<'_>,
    new: &RowKeys<'_>,
    mut turn: impl FnMut(Turn, &[u8]) -> Result<()>,
) -> Result<()> {
    only_in(old, new).try_for_each(|key| turn(Turn::Gone, key))?;
    only_in(new, old).try_for_each(|key| turn(Turn::Fresh, key))
}

/// Adds what leads from the old index keys of a row to the new ones.
pub(super) fn add_changes(
    index: &Arc<IndexState>,
    primary_key: &[u8],
    old: &RowKeys<'_>,
    new: &RowKeys<'_>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    difference(old, new, |turn, index_key| {
        let entry = index.format.entry_key(index_key, primary_key)?;
        changes.push(match (turn, index.format.unique) {
            (Turn::Gone, false) => Change::Clear(entry),
            (Turn::Gone, true) => Change::Release { entry, primary_key: primary_key.to_vec() },
            (Turn::Fresh, false) => Change::Set(entry),
            (Turn::Fresh, true) => {
                let (index, index_key) = (Arc::clone(index), index_key.to_vec());
                Change::Take { entry, index, index_key, primary_key: primary_key.to_vec() }
            }
        });
        Ok(())
    })
}

impl Transaction {
    /// The indexes that a row with this full key must be in, if it may be written.
    fn indexes_of(&self, full_key: &[u8]) -> Result<Option<IndexList>> {
        let Some(indexing) = &self.indexing else { return Ok(None) };
        Ok(indexing.registry.of_written(full_key)?.map(Arc::clone))
    }

    /// Sets or deletes a row, and its entries with it. The key is a full one, and checked.
    pub(crate) fn write_row(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let Some(indexes) = self.indexes_of(key)? else { return self.writes.set(key, value) };
        let primary_key = user_part(key);
        let changes_from = |old: Option<&[u8]>| -> Result<Vec<Change>> {
            let mut changes = Vec::new();
            for index in indexes.iter() {
                let old = index.keys_if(primary_key, old)?;
                let new = index.keys_if(primary_key, value)?;
                add_changes(index, primary_key, &old, &new, &mut changes)?;
            }
            Ok(changes)
        };
        // A snapshot that is taken later would not show the row that the entries follow from.
        self.has_read.store(true, Ordering::Relaxed);
        let find = |view: &_, visible| self.find(view, visible, key, |old| changes_from(Some(old)));
        let changes = self.core().with_view(|view, visible| find(view, visible))?;
        let changes = changes.unwrap_or_else(|| changes_from(None))?;
        // The row first: who may have a unique key is asked of rows.
        self.writes.set(key, value)?;
        self.change_entries(changes)
    }

    /// Sets a row that expires, from the commit on, if no index must know of it. The key is a full one, and checked.
    pub(crate) fn write_expiring_row(
        &mut self,
        key: &[u8],
        lifetime: Millis,
        value: &[u8],
    ) -> Result<()> {
        if self.indexes_of(key)?.is_some() {
            return Err(Error::invalid(
                "a value of a keyspace with indexes cannot expire: nothing would remove its entries",
            ));
        }
        self.writes.write(key, OwnWrite::PutExpiring(lifetime, Arc::from(value)))
    }

    /// Gives a row an operand, if no index must know what becomes of it. The key is a full one, and checked.
    pub(crate) fn merge_row(&mut self, key: &[u8], operand: &[u8]) -> Result<()> {
        if self.indexes_of(key)?.is_some() {
            return Err(Error::invalid(
                "a keyspace with indexes takes no operands: the entries of a row that nobody has \
                 read are not known",
            ));
        }
        self.writes.merge(key, operand)
    }

    /// Deletes the rows of a range of one keyspace, and their entries.
    pub(crate) fn delete_rows(&mut self, range: &KeyRange) -> Result<()> {
        let Some(indexes) = self.indexes_of(&range.start)? else {
            return self.writes.delete_range(range);
        };
        let all = KeyspaceId::of(&range.start).map(keyspace_range);
        let mut changes = Vec::new();
        if all.is_some_and(|all| range.start <= all.start && range.end >= all.end) {
            for index in indexes.iter() {
                let deleted = self.writes.delete_range(&index.format.all());
                deleted.map_err(|error| self.fail(error))?;
            }
        } else {
            for row in Iter::new(self.read_point()?, range.clone()) {
                let (key, value) = row?;
                for index in indexes.iter() {
                    let old = index.keys(&key, &value)?;
                    add_changes(index, &key, &old, &RowKeys::NONE, &mut changes)?;
                }
            }
        }
        self.writes.delete_range(range).map_err(|error| self.fail(error))?;
        self.change_entries(changes)
    }

    /// Writes what a batch says. The caller has seen to it that it is for this database.
    pub(super) fn replay(&mut self, batch: &WriteBatch) -> Result<()> {
        for record in Records::new(batch.bytes()) {
            let record = record.map_err(|_| Error::internal("a batch does not decode"))?;
            match record.kind {
                ValueKind::Put => self.write_row(record.key, Some(record.value))?,
                ValueKind::Delete => self.write_row(record.key, None)?,
                ValueKind::PutExpiring => {
                    let (lifetime, value) = split(record.value)?;
                    self.write_expiring_row(record.key, lifetime, value)?;
                }
                ValueKind::Merge => self.merge_row(record.key, record.value)?,
                ValueKind::ValuePointer => return Err(unknown_kind(Trailer::new(0, record.kind))),
                ValueKind::RangeDelete => self.delete_rows(&KeyRange {
                    start: record.key.to_vec(),
                    end: record.value.to_vec(),
                })?,
            }
        }
        Ok(())
    }

    /// Writes entries. After an error the transaction has failed: some of them may be missing.
    pub(super) fn change_entries(&mut self, changes: Vec<Change>) -> Result<()> {
        for change in changes {
            self.change_entry(change).map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    fn change_entry(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Set(entry) => self.writes.set(&entry, Some(&[])),
            Change::Clear(entry) => self.writes.set(&entry, None),
            Change::Take { entry, index, index_key, primary_key } => {
                let owner = self.peek(&entry)?.filter(|owner| *owner != primary_key);
                self.writes.set(&entry, Some(&primary_key))?;
                if let (Some(loser), Some(indexing)) = (owner, &mut self.indexing) {
                    let fresh = || Taken { index, index_key, losers: Vec::new() };
                    indexing.taken.entry(entry).or_insert_with(fresh).losers.push(loser);
                }
                Ok(())
            }
            Change::Release { entry, primary_key } => match self.peek(&entry)? {
                Some(owner) if owner != primary_key => {
                    self.indexing.iter_mut().for_each(|all| all.relied_on.push(entry.clone()));
                    Ok(())
                }
                // Deleted even if nobody has it: an index that is being built may get it meanwhile.
                _ => {
                    let heir = self.loser_with_claim(&entry, None)?;
                    self.writes.set(&entry, heir.as_deref())
                }
            },
        }
    }

    /// What the transaction sees at a full key.
    fn peek(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.core().with_view(|view, visible| self.find(view, visible, key, <[u8]>::to_vec))
    }

    /// Of those rows that an entry was taken from, one that still has the index key and is not the owner.
    fn loser_with_claim(&self, entry: &[u8], owner: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let Some(taken) = self.indexing.as_ref().and_then(|all| all.taken.get(entry)) else {
            return Ok(None);
        };
        let keyspace = taken.index.definition.keyspace;
        for loser in taken.losers.iter().rev().filter(|loser| Some(loser.as_slice()) != owner) {
            let Some(row) = self.peek(&[&keyspace.prefix()[..], loser].concat())? else { continue };
            if taken.index.keys(loser, &row)?.contains(&taken.index_key) {
                return Ok(Some(loser.clone()));
            }
        }
        Ok(None)
    }

    /// Keeps writers of entries that want to be alone waiting, if this is one of many.
    pub(crate) fn share_turn(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.indexing.as_ref().filter(|indexing| !indexing.alone)?;
        Some(self.core().indexes.share_turn())
    }

    /// The last step before the commit: unique keys have one owner, and the indexes of all that was written are still the same. Gives the
    /// generation of indexes that the commit is made for.
    pub(crate) fn settle_indexes(&self) -> Result<u64> {
        for (entry, taken) in self.indexing.iter().flat_map(|indexing| &indexing.taken) {
            let Some(owner) = self.peek(entry)? else { continue };
            if self.loser_with_claim(entry, Some(&owner))?.is_some() {
                return Err(violation(&taken.index, &taken.index_key));
            }
        }
        let generation = self.indexing.as_ref().map_or(0, |all| all.registry.generation);
        if generation == self.core().indexes.generation() {
            return Ok(generation);
        }
        let now = self.core().indexes.registry();
        let none = Registry::default();
        let before = self.indexing.as_ref().map_or(&none, Indexing::registry);
        let writes = self.writes.overlay();
        let in_points = writes.points.keys().filter_map(|key| KeyspaceId::of(key));
        let everywhere = || before.keyspaces().chain(now.keyspaces());
        let in_ranges = (!writes.ranges.is_empty()).then(everywhere).into_iter().flatten();
        if in_points.chain(in_ranges).any(|id| !before.agrees_on(&now, id)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "an index was created or dropped since the transaction began; run it again",
            ));
        }
        Ok(now.generation)
    }
}

/// Two rows have the same key in a unique index.
pub(super) fn violation(index: &IndexState, index_key: &[u8]) -> Error {
    let shown = index_key.get(..64).unwrap_or(index_key).escape_ascii();
    let more = if index_key.len() > 64 { "..." } else { "" };
    Error::new(
        ErrorKind::UniqueViolation,
        format!("index {:?} is unique, and another row has the key \"{shown}\"{more}", index.name),
    )
}

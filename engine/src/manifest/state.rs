//! What a sequence of edits amounts to: the keyspaces, the counters and, for recovery, the tables by number.
//!
//! Edits that contradict what is there (a table removed twice, a keyspace created twice, a table of an unknown keyspace) are refused
//! with the reason: from a file that means corruption, from the running engine a bug.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::file_name::FileNumber;
use crate::key::{KeyspaceId, Sequence};
use crate::limits::{KEYSPACES_MAX, NAMED_SNAPSHOTS_MAX};
use crate::manifest::edit::{FILE_NUMBER_MAX, KeyspaceDescriptor, VersionEdit};
use crate::read::snapshot::NamedSnapshot;
use crate::sstable::meta::TableMeta;
use crate::wal::Lsn;

/// Bytes of an edit in a snapshot, roughly: a snapshot of many tables is cut into several edits, so that no record is very large.
const SNAPSHOT_EDIT_BYTES: usize = 1 << 20;

/// Everything that edits change, except tables. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) database_id: u64,
    pub(crate) log_start: Lsn,
    pub(crate) last_sequence: Sequence,
    pub(crate) next_file: FileNumber,
    pub(crate) next_keyspace: u32,
    /// The log segments that may hold commits.
    pub(crate) logs: BTreeSet<FileNumber>,
    keyspaces: Arc<Keyspaces>,
    /// By name.
    snapshots: Arc<BTreeMap<String, NamedSnapshot>>,
}

#[derive(Debug, Clone, Default)]
struct Keyspaces {
    by_id: BTreeMap<KeyspaceId, KeyspaceDescriptor>,
    /// Ordinary keyspaces.
    by_name: HashMap<String, KeyspaceId>,
    /// The hidden keyspaces of indexes, by the names of the indexes.
    indexes: HashMap<String, KeyspaceId>,
}

impl Keyspaces {
    fn names(&mut self, of_index: bool) -> &mut HashMap<String, KeyspaceId> {
        if of_index { &mut self.indexes } else { &mut self.by_name }
    }
}

impl Facts {
    /// Takes over what the edit says; tables are the caller's.
    pub(crate) fn apply(&mut self, edit: &VersionEdit) -> Result<(), String> {
        if let Some(id) = edit.database_id {
            if self.database_id != 0 && self.database_id != id {
                return Err("the database id changes".into());
            }
            self.database_id = id;
        }
        self.log_start = self.log_start.max(edit.log_start.unwrap_or(0));
        self.last_sequence = self.last_sequence.max(edit.last_sequence.unwrap_or(0));
        self.next_file = self.next_file.max(edit.next_file.unwrap_or(0));
        self.next_keyspace = self.next_keyspace.max(edit.next_keyspace.unwrap_or(0));
        for number in &edit.logs_removed {
            self.logs.remove(number);
        }
        self.logs.extend(&edit.logs_added);
        for id in &edit.keyspaces_dropped {
            let keyspaces = Arc::make_mut(&mut self.keyspaces);
            let dropped = keyspaces.by_id.remove(id);
            let dropped = dropped.ok_or_else(|| format!("keyspace {} does not exist", id.0))?;
            keyspaces.names(dropped.index.is_some()).remove(&dropped.name);
        }
        self.check_indexes(edit)?;
        for keyspace in &edit.keyspaces_created {
            self.create(keyspace)?;
        }
        for name in &edit.snapshots_dropped {
            let dropped = Arc::make_mut(&mut self.snapshots).remove(name);
            dropped.ok_or("a snapshot is dropped that does not exist")?;
        }
        for snapshot in &edit.snapshots_named {
            let snapshots = Arc::make_mut(&mut self.snapshots);
            if snapshots.len() >= NAMED_SNAPSHOTS_MAX {
                return Err(format!("more than {NAMED_SNAPSHOTS_MAX} named snapshots"));
            }
            if snapshots.insert(snapshot.name.clone(), snapshot.clone()).is_some() {
                return Err("a snapshot of that name exists already".into());
            }
        }
        Ok(())
    }

    /// An index goes with its keyspace.
    fn check_indexes(&self, edit: &VersionEdit) -> Result<(), String> {
        if edit.keyspaces_dropped.is_empty() {
            return Ok(());
        }
        let left = self.keyspaces.indexes.values().filter_map(|id| self.keyspaces.by_id.get(id));
        for index in left {
            let keyspace = index.index.as_ref().map(|index| index.keyspace);
            if keyspace.is_some_and(|keyspace| edit.keyspaces_dropped.contains(&keyspace)) {
                return Err(format!("keyspace {} still has index {}", index.id.0, index.name));
            }
        }
        Ok(())
    }

    fn create(&mut self, keyspace: &KeyspaceDescriptor) -> Result<(), String> {
        let id = keyspace.id;
        let keyspaces = Arc::make_mut(&mut self.keyspaces);
        if keyspaces.by_id.len() >= KEYSPACES_MAX {
            return Err(format!("more than {KEYSPACES_MAX} keyspaces"));
        }
        let next = id.0.checked_add(1).ok_or("keyspace ids are used up")?;
        let of_index = keyspace.index.is_some();
        if keyspaces.by_id.contains_key(&id)
            || keyspaces.names(of_index).contains_key(&keyspace.name)
        {
            return Err(format!("keyspace {} or its name exists already", id.0));
        }
        if let Some(index) = &keyspace.index {
            let rows = keyspaces.by_id.get(&index.keyspace).filter(|rows| rows.index.is_none());
            rows.ok_or_else(|| format!("index {} is of no keyspace", id.0))?;
        }
        self.next_keyspace = self.next_keyspace.max(next);
        keyspaces.names(of_index).insert(keyspace.name.clone(), id);
        keyspaces.by_id.insert(id, keyspace.clone());
        Ok(())
    }

    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Option<&KeyspaceDescriptor> {
        self.keyspaces.by_id.get(&id)
    }

    pub(crate) fn keyspace_named(&self, name: &str) -> Option<&KeyspaceDescriptor> {
        let id = self.keyspaces.by_name.get(name)?;
        self.keyspaces.by_id.get(id)
    }

    /// The hidden keyspace of an index.
    pub(crate) fn index_named(&self, name: &str) -> Option<&KeyspaceDescriptor> {
        let id = self.keyspaces.indexes.get(name)?;
        self.keyspaces.by_id.get(id)
    }

    /// The hidden keyspaces of the indexes of a keyspace.
    pub(crate) fn indexes_of(&self, keyspace: KeyspaceId) -> Vec<KeyspaceId> {
        let is_of = |id: &&KeyspaceId| {
            let index = self.keyspace(**id).and_then(|found| found.index.as_ref());
            index.is_some_and(|index| index.keyspace == keyspace)
        };
        self.keyspaces.indexes.values().filter(is_of).copied().collect()
    }

    /// The keyspaces, hidden ones included, by id.
    pub(crate) fn keyspaces(&self) -> impl ExactSizeIterator<Item = &KeyspaceDescriptor> {
        self.keyspaces.by_id.values()
    }

    /// The named snapshots, by name.
    pub(crate) fn snapshots(&self) -> &BTreeMap<String, NamedSnapshot> {
        &self.snapshots
    }

    /// Everything, with `tables`, as edits that say it again from nothing.
    pub(crate) fn snapshot<'a>(
        &self,
        tables: impl Iterator<Item = (usize, &'a TableMeta)>,
    ) -> Vec<VersionEdit> {
        let mut edits = vec![VersionEdit {
            log_start: Some(self.log_start),
            last_sequence: Some(self.last_sequence),
            next_file: Some(self.next_file),
            next_keyspace: Some(self.next_keyspace),
            database_id: Some(self.database_id),
            logs_added: self.logs.iter().copied().collect(),
            keyspaces_created: self.keyspaces.by_id.values().cloned().collect(),
            snapshots_named: self.snapshots.values().cloned().collect(),
            ..VersionEdit::default()
        }];
        let mut bytes = 0;
        for (level, meta) in tables {
            if bytes > SNAPSHOT_EDIT_BYTES {
                edits.push(VersionEdit::default());
                bytes = 0;
            }
            bytes += 64 + meta.smallest.len() + meta.largest.len();
            if let Some(edit) = edits.last_mut() {
                edit.added.push((level, meta.clone()));
            }
        }
        edits
    }
}

/// What the manifest in force says.
#[derive(Debug, Clone, Default)]
pub(crate) struct ManifestState {
    pub(crate) manifest_number: FileNumber,
    pub(crate) facts: Facts,
    /// Level and facts of each table.
    pub(crate) tables: BTreeMap<FileNumber, (usize, TableMeta)>,
    /// The last record was incomplete, as a crash while it was written leaves it: its offset, and the bytes from there on.
    pub(crate) torn_tail: Option<(u64, u64)>,
}

impl ManifestState {
    /// Takes over what the edit says.
    pub(crate) fn apply(&mut self, edit: VersionEdit) -> Result<(), String> {
        self.facts.apply(&edit)?;
        for (level, number) in &edit.removed {
            match self.tables.remove(number) {
                Some((found, _)) if found == *level => {}
                _ => return Err(format!("table {number:06} is not in level {level}")),
            }
        }
        if !edit.keyspaces_dropped.is_empty() {
            let dropped = &edit.keyspaces_dropped;
            self.tables.retain(|_, (_, meta)| !dropped.contains(&meta.keyspace()));
        }
        for (level, meta) in edit.added {
            let number = meta.number;
            if number >= self.facts.next_file || number >= FILE_NUMBER_MAX {
                return Err(format!("table {number:06} is beyond the next file number"));
            }
            if self.facts.keyspace(meta.keyspace()).is_none() {
                return Err(format!("table {number:06} belongs to no keyspace"));
            }
            if self.tables.insert(number, (level, meta)).is_some() {
                return Err(format!("table {number:06} is added twice"));
            }
        }
        Ok(())
    }
}

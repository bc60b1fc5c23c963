//! An edit checked against the version that it changes, before a byte of it is written.
//!
//! Between the start of a job and its edit its keyspace may have been dropped. Then its tables are not there any more, and what it
//! wrote must not come back: both are left out of the edit. Anything else that does not fit is a bug, and refused.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_name::FileNumber;
use crate::manifest::edit::VersionEdit;
use crate::manifest::obsolete::LiveFiles;
use crate::manifest::run::TableHandle;
use crate::manifest::state::Facts;
use crate::manifest::version::Version;

/// What an edit does to a version.
pub(super) struct Change<T> {
    /// What to write.
    pub(super) edit: VersionEdit,
    /// Removals, with those that follow from dropped keyspaces.
    pub(super) removed: Vec<(usize, FileNumber)>,
    pub(super) added: Vec<(usize, Arc<TableHandle<T>>)>,
    /// Tables that no later version has.
    pub(super) gone: Vec<Arc<TableHandle<T>>>,
}

impl<T> Change<T> {
    /// `facts` are those after the edit; `new_tables` the readers of the added tables, without those that only change their level.
    pub(super) fn new(
        version: &Version<T>,
        facts: &Facts,
        mut edit: VersionEdit,
        new_tables: Vec<Arc<T>>,
        files: &Arc<LiveFiles>,
    ) -> Result<Self> {
        let named: HashSet<FileNumber> = edit.removed.iter().map(|&(_, number)| number).collect();
        let mut leaving: HashMap<FileNumber, Arc<TableHandle<T>>> = HashMap::new();
        let mut removed = Vec::new();
        for (level, table) in version.tables() {
            let dropped = edit.keyspaces_dropped.contains(&table.meta.keyspace());
            if dropped {
                removed.push((level, table.number()));
            }
            if dropped || named.contains(&table.number()) {
                leaving.insert(table.number(), Arc::clone(table));
            }
        }
        let mut added = Vec::new();
        let mut new_tables = new_tables.into_iter();
        let mut stillborn = Vec::new();
        edit.added.retain(|(level, meta)| {
            let alive = facts.keyspace(meta.keyspace()).is_some();
            let handle = if named.contains(&meta.number) {
                leaving.get(&meta.number).cloned()
            } else {
                new_tables.next().map(|table| TableHandle::new(meta.clone(), table, files))
            };
            match handle {
                Some(handle) if alive => added.push((*level, handle)),
                // The manifest will never name it, so its file can go.
                Some(handle) if !named.contains(&meta.number) => stillborn.push(handle),
                _ => {}
            }
            alive
        });
        if added.len() != edit.added.len() || new_tables.next().is_some() {
            return Err(Error::internal("an edit and the tables opened for it do not match"));
        }
        if edit.removed.iter().any(|(_, number)| !leaving.contains_key(number)) {
            if !added.is_empty() {
                return Err(Error::internal("an edit removes a table that is not there"));
            }
            edit.removed.retain(|(_, number)| leaving.contains_key(number));
        }
        for &(level, number) in &edit.removed {
            if !removed.contains(&(level, number)) {
                removed.push((level, number));
            }
        }
        for (_, handle) in &added {
            leaving.remove(&handle.number());
        }
        let gone = leaving.into_values().chain(stillborn).collect();
        Ok(Self { edit, removed, added, gone })
    }
}

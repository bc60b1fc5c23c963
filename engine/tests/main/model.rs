//! A database in the plainest form: ordered maps, and copies of them for snapshots.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::support::Table;

/// Keyspaces by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    tables: BTreeMap<String, Table>,
}

impl Model {
    pub(crate) fn table(&self, name: &str) -> &Table {
        static NOTHING: Table = Table::new();
        self.tables.get(name).unwrap_or(&NOTHING)
    }

    fn table_mut(&mut self, name: &str) -> &mut Table {
        self.tables.entry(name.to_owned()).or_default()
    }

    pub(crate) fn put(&mut self, name: &str, key: &[u8], value: &[u8]) {
        self.table_mut(name).insert(key.to_vec(), value.to_vec());
    }

    pub(crate) fn delete(&mut self, name: &str, key: &[u8]) {
        self.table_mut(name).remove(key);
    }

    pub(crate) fn delete_range(&mut self, name: &str, start: &[u8], end: &[u8]) {
        self.table_mut(name).retain(|key, _| key.as_slice() < start || key.as_slice() >= end);
    }

    pub(crate) fn clear(&mut self, name: &str) {
        self.table_mut(name).clear();
    }
}

/// The records between two bounds, in order.
pub(crate) fn range(
    table: &Table,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = |key: &[u8]| {
        let after_start = match start {
            Bound::Unbounded => true,
            Bound::Included(start) => key >= start,
            Bound::Excluded(start) => key > start,
        };
        let before_end = match end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        };
        after_start && before_end
    };
    let records = table.iter().filter(|(key, _)| inside(key));
    records.map(|(key, value)| (key.clone(), value.clone())).collect()
}

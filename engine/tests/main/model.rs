//! A database in the plainest form: ordered maps, and copies of them for snapshots.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::support::Table;

/// Keyspaces by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    tables: BTreeMap<String, Table>,
    /// The hour at which keys expire.
    expiring: BTreeMap<(String, Vec<u8>), u64>,
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
        self.expiring.remove(&(name.to_owned(), key.to_vec()));
    }

    /// Appends to a value.
    pub(crate) fn append(&mut self, name: &str, key: &[u8], operand: &[u8]) {
        self.table_mut(name).entry(key.to_vec()).or_default().extend_from_slice(operand);
    }

    /// A value that is there until hour `until`.
    pub(crate) fn put_until(&mut self, name: &str, key: &[u8], value: &[u8], until: u64) {
        self.put(name, key, value);
        self.expiring.insert((name.to_owned(), key.to_vec()), until);
    }

    /// The hour at which the key's value expires.
    pub(crate) fn expiry(&self, name: &str, key: &[u8]) -> u64 {
        *self.expiring.get(&(name.to_owned(), key.to_vec())).unwrap_or(&u64::MAX)
    }

    /// It has become hour `now`.
    pub(crate) fn expire(&mut self, now: u64) {
        let (gone, rest) =
            std::mem::take(&mut self.expiring).into_iter().partition(|(_, until)| *until <= now);
        self.expiring = rest;
        let gone: BTreeMap<_, _> = gone;
        for (name, key) in gone.into_keys() {
            self.table_mut(&name).remove(&key);
        }
    }

    pub(crate) fn delete(&mut self, name: &str, key: &[u8]) {
        self.table_mut(name).remove(key);
        self.expiring.remove(&(name.to_owned(), key.to_vec()));
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

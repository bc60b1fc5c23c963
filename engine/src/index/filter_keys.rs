//! What the filter of a table knows of the table's keys.
//!
//! Mostly whole keys. But of an index that is not unique, all entries of an index key are wanted together, and whoever asks does not
//! know their ends. So the filters of its tables know *stems*, each once, however many entries have it:
//!
//! ```text
//! full key of an entry = keyspace id | 1 | [hash] | escaped index key | 0 1 | primary key
//!                        \_____________________ stem _____________________/
//! ```
//!
//! Any other key of such a keyspace is its own stem. This is the one place that says which part of a key a filter is asked for; each
//! table states in its properties which kind of parts its filter knows. The filters of memtables know stems beside whole keys
//! (`memtable::stems`).

use crate::index::definition::IndexType;
use crate::index::entry::stem_len;
use crate::limits::KEYSPACE_PREFIX_BYTES;
use crate::manifest::KeyspaceDescriptor;

/// Which part of each key a filter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterKeys {
    Whole,
    /// The stems of entries of such an index.
    Stems(IndexType),
}

impl FilterKeys {
    /// What the tables of a keyspace need.
    pub(crate) fn of_keyspace(keyspace: &KeyspaceDescriptor) -> Self {
        match &keyspace.index {
            Some(index) if !index.unique => Self::Stems(index.index_type),
            _ => Self::Whole,
        }
    }

    /// The part of a full key that the filter knows.
    pub(crate) fn part_of(self, full_key: &[u8]) -> &[u8] {
        let Self::Stems(index_type) = self else { return full_key };
        let len = full_key.get(KEYSPACE_PREFIX_BYTES..).and_then(|key| stem_len(index_type, key));
        len.and_then(|len| full_key.get(..KEYSPACE_PREFIX_BYTES + len)).unwrap_or(full_key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustlite_io::{CrashPlan, FileSystem, SimFileSystem};

    use super::*;
    use crate::index::IndexSource;
    use crate::index::entry::EntryFormat;
    use crate::key::{KeyspaceId, hash_key};
    use crate::{Database, Options};

    #[test]
    fn the_stem_of_an_entry_is_what_is_before_its_primary_key() {
        for index_type in [IndexType::BTree, IndexType::Hash] {
            let format = EntryFormat { keyspace: KeyspaceId(7), index_type, unique: false };
            let keys = FilterKeys::Stems(index_type);
            for index_key in [&b""[..], b"\0", b"\0\x01", b"a\0\xff\0", b"plain", &[0xff; 9]] {
                let stem = format.stem(index_key);
                assert_eq!(keys.part_of(&stem), stem);
                for row in [&b"r"[..], b"\0\x01", b"\0\xff\0\x01", b"\xff"] {
                    let entry = format.entry_key(index_key, row).unwrap();
                    assert_eq!(keys.part_of(&entry), stem, "{index_key:?} {row:?}");
                    assert_eq!(FilterKeys::Whole.part_of(&entry), entry);
                }
                for cut in 0..stem.len() {
                    assert_eq!(keys.part_of(&stem[..cut]), &stem[..cut], "no entry");
                }
            }
            let state = format.state_key();
            assert_eq!(keys.part_of(&state), state);
        }
    }

    /// Of 256 rows in each memtable, how many the filters take for rows with other index keys; fails if a row that is there is denied.
    fn wrongly_expected(db: &Database) -> usize {
        let index = db.handle().core.indexes.registry().named("index").cloned().unwrap();
        let stem = |key: u32| index.format.stem(&key.to_be_bytes());
        db.handle().core.with_view(|view, _visible| {
            let expects = |key| {
                let stem = stem(key);
                view.memtables().any(|memtable| memtable.may_contain_stem(&stem, hash_key(&stem)))
            };
            assert!((0..256).all(expects));
            (256..512).filter(|&key| expects(key)).count()
        })
    }

    #[test]
    fn memtables_know_the_stems_of_a_new_index_and_after_recovery() {
        let sim = SimFileSystem::new(1);
        let open = |sim: &Arc<SimFileSystem>| {
            let file_system: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(sim);
            Database::open_on(file_system, "/db", Options::new()).unwrap()
        };
        let db = open(&sim);
        let index_key = IndexSource::value_bytes(0..4);
        db.create_index("index", &db, IndexType::BTree, index_key).unwrap();
        for row in 0..256_u32 {
            db.put(row.to_le_bytes(), row.to_be_bytes()).unwrap();
        }
        assert!(wrongly_expected(&db) < 32);
        let db = open(&sim.crash(&CrashPlan::ProcessKill));
        assert!(wrongly_expected(&db) < 32, "in recovery");
    }
}

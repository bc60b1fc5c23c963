//! Which keyspaces have keys whose stems the presence filter knows as well.
//!
//! Equality in an index asks for all entries with one stem (see [`FilterKeys`]). A memtable that has none need not be searched, if its
//! filter was told the stems of the entries that it took. To tell them, an insert must know which keyspaces are those of indexes; here they
//! are, for all memtables of a database. Few keyspaces are, so the common answer is one load.
//!
//! Guarantees: while a keyspace is found here, the stems of all its keys went into the filters. Each keyspace has one place, which it
//! shares with others; the newest of them holds it, and a keyspace that lost its place never comes back. So whoever sees a keyspace in
//! its place knows that no writer of what it reads had seen another there: loads of one place never go back in time, and the visible
//! sequence number orders the writer's load before the reader's. Relaxed accesses are enough for that.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::index::FilterKeys;
use crate::index::definition::IndexType;
use crate::key::KeyspaceId;
use crate::manifest::KeyspaceDescriptor;

/// Places. Of indexes whose keyspaces share one, all but the newest are searched for in every memtable.
const PLACES: usize = 64;

const BTREE: u64 = 1;
const HASH: u64 = 2;

/// The keyspaces of one database whose filters know stems.
pub(crate) struct StemKeyspaces {
    /// The number of a keyspace above the kind of its stems, or zero.
    places: [AtomicU64; PLACES],
}

impl StemKeyspaces {
    pub(super) fn new() -> Self {
        Self { places: [const { AtomicU64::new(0) }; PLACES] }
    }

    /// Takes note of a keyspace before anything is written to it.
    pub(super) fn learn(&self, keyspace: &KeyspaceDescriptor) {
        let kind = match FilterKeys::of_keyspace(keyspace) {
            FilterKeys::Whole => return,
            FilterKeys::Stems(IndexType::BTree) => BTREE,
            FilterKeys::Stems(IndexType::Hash) => HASH,
        };
        // Max, so that the newest holds the place in whatever order they are learnt.
        self.place(keyspace.id).fetch_max(u64::from(keyspace.id.0) << 8 | kind, Ordering::Relaxed);
    }

    fn place(&self, keyspace: KeyspaceId) -> &AtomicU64 {
        &self.places[keyspace.0 as usize % PLACES]
    }

    /// The stem of a full key, if the filters know it.
    #[inline]
    pub(super) fn stem_of<'k>(&self, full_key: &'k [u8]) -> Option<&'k [u8]> {
        let keyspace = KeyspaceId::of(full_key)?;
        let place = self.place(keyspace).load(Ordering::Relaxed);
        if place >> 8 != u64::from(keyspace.0) {
            return None;
        }
        let index_type = match place & 0xff {
            BTREE => IndexType::BTree,
            HASH => IndexType::Hash,
            _ => return None,
        };
        Some(FilterKeys::Stems(index_type).part_of(full_key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyspaceOptions;
    use crate::index::definition::{IndexDefinition, IndexSource};

    fn keyspace(id: u32, index_type: IndexType, unique: bool) -> KeyspaceDescriptor {
        KeyspaceDescriptor {
            id: KeyspaceId(id),
            name: id.to_string(),
            options: KeyspaceOptions::default(),
            index: Some(IndexDefinition {
                keyspace: KeyspaceId::DEFAULT,
                index_type,
                unique,
                source: IndexSource::Manual,
            }),
        }
    }

    fn entry(id: u32) -> Vec<u8> {
        [&id.to_be_bytes()[..], b"\x01index key\0\x01row"].concat()
    }

    #[test]
    fn the_newest_keyspace_of_a_place_holds_it_for_good() {
        let stems = StemKeyspaces::new();
        assert_eq!(stems.stem_of(&entry(0)), None);
        assert_eq!(stems.stem_of(b"\0\0"), None, "not a full key");
        let later = 7 + PLACES as u32;
        for (learnt, holds) in [(7, 7), (later, later), (7, later)] {
            stems.learn(&keyspace(learnt, IndexType::BTree, false));
            for asked in [0, 6, 7, 8, later, later + PLACES as u32] {
                let entry = entry(asked);
                let stem = &entry[..entry.len() - b"row".len()];
                assert_eq!(stems.stem_of(&entry), (asked == holds).then_some(stem), "{asked}");
            }
        }
    }

    #[test]
    fn unique_indexes_and_ordinary_keyspaces_have_none() {
        let stems = StemKeyspaces::new();
        stems.learn(&keyspace(3, IndexType::Hash, true));
        stems.learn(&KeyspaceDescriptor { index: None, ..keyspace(4, IndexType::BTree, false) });
        assert_eq!((stems.stem_of(&entry(3)), stems.stem_of(&entry(4))), (None, None));
    }
}

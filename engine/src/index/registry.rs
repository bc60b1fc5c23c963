//! The indexes of an open database.
//!
//! Writers must never miss an index that exists. So every change of the set of indexes gets a new *generation*, which is published
//! under the commit lock; and a batch that was made for another generation than the one in force when it would get its place is refused,
//! and made again. See `CommitTerms::index_generation`.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::batch::{Records, WriteBatch};
use crate::error::Result;
use crate::index::definition::{IndexDefinition, IndexSource};
use crate::index::entry::EntryFormat;
use crate::index::extract::{Extractor, Extractors, RowKeys};
use crate::key::{KeyspaceId, Sequence};
use crate::manifest::KeyspaceDescriptor;

/// Not ready for anybody.
const NEVER: Sequence = Sequence::MAX;

/// One index of an open database.
pub(crate) struct IndexState {
    pub(super) name: String,
    pub(super) definition: IndexDefinition,
    pub(super) format: EntryFormat,
    pub(super) extractor: Extractor,
    /// Readers from this sequence number on find every row in it.
    ready_since: AtomicU64,
    pub(super) dropped: AtomicBool,
}

impl IndexState {
    /// Of a hidden keyspace; `None` if it is an ordinary one.
    pub(super) fn new(descriptor: &KeyspaceDescriptor, registered: &Extractors) -> Option<Self> {
        let definition = descriptor.index.clone()?;
        Some(Self {
            name: descriptor.name.clone(),
            format: EntryFormat::new(descriptor.id, &definition),
            extractor: Extractor::new(&definition.source, registered),
            ready_since: AtomicU64::new(NEVER),
            dropped: AtomicBool::new(false),
            definition,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The hidden keyspace.
    pub(super) fn id(&self) -> KeyspaceId {
        self.format.keyspace
    }

    pub(super) fn is_manual(&self) -> bool {
        self.definition.source == IndexSource::Manual
    }

    pub(super) fn is_ready_at(&self, sequence: Sequence) -> bool {
        sequence >= self.ready_since.load(Ordering::Acquire)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready_since.load(Ordering::Acquire) != NEVER
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(super) fn set_ready(&self, since: Sequence) {
        self.ready_since.store(since, Ordering::Release);
    }

    /// The index keys of a row.
    pub(super) fn keys<'r>(&self, key: &'r [u8], value: &'r [u8]) -> Result<RowKeys<'r>> {
        self.extractor.keys(&self.name, key, value)
    }

    /// The index keys of a row that may not be there.
    pub(super) fn keys_if<'r>(
        &self,
        key: &'r [u8],
        value: Option<&'r [u8]>,
    ) -> Result<RowKeys<'r>> {
        value.map_or(Ok(RowKeys::NONE), |value| self.keys(key, value))
    }
}

/// The indexes that a keyspace's rows must be in.
pub(crate) type IndexList = Arc<[Arc<IndexState>]>;

/// All indexes at one generation.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) generation: u64,
    by_keyspace: BTreeMap<KeyspaceId, IndexList>,
    by_name: BTreeMap<String, Arc<IndexState>>,
    /// The hidden keyspaces whose entries follow from rows.
    maintained: HashSet<KeyspaceId>,
}

impl Registry {
    fn new(generation: u64, indexes: impl Iterator<Item = Arc<IndexState>>) -> Self {
        let by_name: BTreeMap<_, _> = indexes.map(|index| (index.name.clone(), index)).collect();
        let mut lists: BTreeMap<KeyspaceId, Vec<Arc<IndexState>>> = BTreeMap::new();
        let mut maintained = HashSet::new();
        for index in by_name.values().filter(|index| !index.is_manual()) {
            maintained.insert(index.id());
            lists.entry(index.definition.keyspace).or_default().push(Arc::clone(index));
        }
        let by_keyspace = lists.into_iter().map(|(id, list)| (id, list.into())).collect();
        Self { generation, by_keyspace, by_name, maintained }
    }

    /// The indexes that rows of the keyspace must be in; `None` if there are none.
    pub(crate) fn of(&self, keyspace: KeyspaceId) -> Option<&IndexList> {
        self.by_keyspace.get(&keyspace)
    }

    /// The indexes that a row with this full key must be in, if it may be written: even a row without entries must not be written
    /// without the extractor.
    ///
    /// # Errors
    /// If an extractor is not registered.
    pub(super) fn of_written(&self, full_key: &[u8]) -> Result<Option<&IndexList>> {
        let list = KeyspaceId::of(full_key).and_then(|id| self.of(id));
        for index in list.into_iter().flat_map(|list| list.iter()) {
            index.extractor.check_registered(&index.name)?;
        }
        Ok(list)
    }

    /// Whether the entries of this hidden keyspace follow from rows.
    pub(crate) fn maintains(&self, hidden: KeyspaceId) -> bool {
        self.maintained.contains(&hidden)
    }

    /// Whether the batch writes rows of which some index must know.
    pub(crate) fn concerns(&self, batch: &WriteBatch) -> bool {
        !self.by_keyspace.is_empty()
            && Records::new(batch.bytes()).flatten().any(|record| {
                KeyspaceId::of(record.key).is_some_and(|id| self.by_keyspace.contains_key(&id))
            })
    }

    /// Whether both know the same indexes of a keyspace.
    pub(crate) fn agrees_on(&self, other: &Self, keyspace: KeyspaceId) -> bool {
        let ids = |registry: &Self| -> Vec<KeyspaceId> {
            registry
                .of(keyspace)
                .iter()
                .flat_map(|list| list.iter())
                .map(|index| index.id())
                .collect()
        };
        self.maintains(keyspace) == other.maintains(keyspace) && ids(self) == ids(other)
    }

    /// The keyspaces whose rows must be in an index.
    pub(crate) fn keyspaces(&self) -> impl Iterator<Item = KeyspaceId> {
        self.by_keyspace.keys().copied()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<IndexState>> {
        self.by_name.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<IndexState>> {
        self.by_name.values()
    }
}

/// The indexes of an open database, as they are now.
#[derive(Default)]
pub(crate) struct Indexes {
    /// That of the registry; 0 as long as there has been no index.
    generation: AtomicU64,
    registry: RwLock<Arc<Registry>>,
    /// Shared by commits that change entries; held alone by one that has lost too often.
    pub(super) turn: RwLock<()>,
    /// Held while indexes are created or dropped.
    pub(super) definitions: Mutex<()>,
    pub(super) extractors: Extractors,
}

impl Indexes {
    /// The indexes among `keyspaces`.
    pub(crate) fn new(keyspaces: &[KeyspaceDescriptor], extractors: Extractors) -> Self {
        let states = keyspaces.iter().filter_map(|found| IndexState::new(found, &extractors));
        let states: Vec<_> = states.map(Arc::new).collect();
        let generation = u64::from(!states.is_empty());
        Self {
            generation: AtomicU64::new(generation),
            registry: RwLock::new(Arc::new(Registry::new(generation, states.into_iter()))),
            extractors,
            ..Self::default()
        }
    }

    /// The generation in force, or one that was a moment ago: the check under the commit lock decides.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a changed set of indexes in force; gives its generation. Called under the commit lock.
    pub(super) fn replace(&self, change: impl FnOnce(&mut Vec<Arc<IndexState>>)) -> u64 {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let mut states: Vec<_> = registry.by_name.values().cloned().collect();
        change(&mut states);
        let generation = registry.generation + 1;
        *registry = Arc::new(Registry::new(generation, states.into_iter()));
        self.generation.store(generation, Ordering::Release);
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::definition::IndexType;
    use crate::key::ValueKind;
    use crate::options::KeyspaceOptions;

    fn descriptor(id: u32, of: u32, source: IndexSource) -> KeyspaceDescriptor {
        KeyspaceDescriptor {
            id: KeyspaceId(id),
            name: format!("index {id}"),
            options: KeyspaceOptions::default(),
            index: Some(IndexDefinition {
                keyspace: KeyspaceId(of),
                index_type: IndexType::BTree,
                unique: false,
                source,
            }),
        }
    }

    #[test]
    fn a_registry_knows_which_rows_concern_an_index() {
        let all = [
            descriptor(5, 0, IndexSource::value_bytes(0..4)),
            descriptor(6, 2, IndexSource::Manual),
        ];
        let indexes = Indexes::new(&all, Extractors::default());
        assert_eq!(indexes.generation(), 1);
        let before = indexes.registry();
        assert!(before.maintains(KeyspaceId(5)) && !before.maintains(KeyspaceId(6)));
        let mut batch = WriteBatch::new();
        batch.add(ValueKind::Put, KeyspaceId(2), b"k", b"v");
        assert!(
            !indexes.registry().concerns(&batch),
            "the only index of that keyspace is kept by hand"
        );
        batch.put("k", "v");
        assert!(indexes.registry().concerns(&batch));
        assert_eq!(indexes.replace(|all| all.retain(|index| index.is_manual())), 2);
        assert!(!indexes.registry().concerns(&batch));
        let after = indexes.registry();
        assert!(before.agrees_on(&after, KeyspaceId(2)));
        assert!(!before.agrees_on(&after, KeyspaceId::DEFAULT));
        assert_eq!(Indexes::new(&[], Extractors::default()).generation(), 0);
    }
}

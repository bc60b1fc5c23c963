//! Lookups of many keys at once, so that their cache misses overlap.
//!
//! A lookup waits for memory a few times in a row: for a filter's line, for a block's arrays, for the record. Of many keys, these
//! waits can be had together: each step of the lookup is done for a group of keys, and asks for what the next step will read, before the next
//! step is done for any. Reads from the medium overlap in the same way, when blocks are not in memory. (Chen et al., "Improving hash join performance
//! through prefetching", ICDE 2004, call it group prefetching.)

use std::sync::Arc;

use crate::error::Result;
use crate::key::{KeyspaceId, Sequence, hash_key};
use crate::keyspace::FullKey;
use crate::manifest::TableHandle;
use crate::read::get::{Found, Verdict, lookup_in_memtables, lookup_in_table};
use crate::read::view::View;
use crate::sstable::BlockHint;

/// Keys whose misses overlap: about as many as a processor has outstanding, a few times over.
const GROUP: usize = 16;

/// The values of several keys of a keyspace, in the order of the keys, each as what `take` makes of it.
pub(crate) fn multi_get<'v, K: AsRef<[u8]>, V>(
    view: &'v View,
    snapshot: Sequence,
    keyspace: KeyspaceId,
    keys: &[K],
    take: impl Fn(Found<'v>) -> V,
) -> Result<Vec<Option<V>>> {
    let mut values = Vec::with_capacity(keys.len());
    let mut group = Group {
        view,
        snapshot,
        asked: Vec::with_capacity(GROUP.min(keys.len())),
        candidates: Vec::with_capacity(2 * GROUP.min(keys.len())),
    };
    for keys in keys.chunks(GROUP) {
        for key in keys {
            group.ask_memtables(FullKey::new(keyspace, key.as_ref())?)?;
        }
        group.ask_filters();
        group.find_blocks();
        group.find_records();
        group.answer(|found| values.push(found.map(&take)))?;
    }
    Ok(values)
}

/// Some keys on their way through the sources.
struct Group<'v> {
    view: &'v View,
    snapshot: Sequence,
    asked: Vec<Asked<'v>>,
    /// By key, and for each key newest first.
    candidates: Vec<Candidate<'v>>,
}

/// A key, and what was found.
struct Asked<'v> {
    key: FullKey,
    hash: u64,
    verdict: Option<Verdict<'v>>,
}

/// A table that may say something about a key.
struct Candidate<'v> {
    /// Which of the keys.
    asked: usize,
    handle: &'v Arc<TableHandle>,
    /// False if its filter says no.
    may_contain: bool,
    /// Where a search in it begins, once that was looked for.
    begin: Option<Result<usize>>,
    block: Option<BlockHint>,
}

impl<'v> Group<'v> {
    /// Takes in a key. Brings in the filters of the tables that come into question, if the memtables don't decide.
    fn ask_memtables(&mut self, key: FullKey) -> Result<()> {
        let hash = hash_key(key.as_slice());
        let verdict = lookup_in_memtables(self.view, key.as_slice(), hash, self.snapshot)?;
        if verdict.is_none() {
            let version = &self.view.version;
            self.view.read_cost.looked_up(hash, version.l0().len());
            let asked = self.asked.len();
            for handle in version.sources().filter_map(|run| run.find(key.as_slice())) {
                handle.table.prefetch_filter(hash);
                self.candidates.push(Candidate {
                    asked,
                    handle,
                    may_contain: false,
                    begin: None,
                    block: None,
                });
            }
        }
        self.asked.push(Asked { key, hash, verdict });
        Ok(())
    }

    /// Leaves tables out that certainly lack their key. Brings in the indexes of the others.
    fn ask_filters(&mut self) {
        let asked = &self.asked;
        self.candidates.retain_mut(|candidate| {
            let Asked { key, hash, .. } = &asked[candidate.asked];
            let table = &candidate.handle.table;
            candidate.may_contain = table.may_contain(key.as_slice(), *hash);
            if candidate.may_contain {
                table.prefetch_index(key.as_slice());
            }
            candidate.may_contain || candidate.handle.meta.range_tombstones > 0
        });
    }

    /// Searches the indexes, and brings in blocks. All that must come from the medium are requested before the first is waited for.
    fn find_blocks(&mut self) {
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.may_contain) {
            let Asked { key, hash, .. } = &self.asked[candidate.asked];
            let table = &candidate.handle.table;
            let begin = table.find_block(key.as_slice());
            candidate.block = begin.as_ref().ok().and_then(|&it| table.prefetch_block(it, *hash));
            candidate.begin = Some(begin);
        }
    }

    /// Searches the blocks for what may be the records, and brings these in.
    fn find_records(&self) {
        for Candidate { asked, handle, block, .. } in &self.candidates {
            if let Some(block) = block {
                handle.table.prefetch_record(block, self.asked[*asked].hash);
            }
        }
    }

    /// Reads the records, and hands over what the keys have, in their order. Then the group is empty.
    fn answer(&mut self, mut take: impl FnMut(Verdict<'v>)) -> Result<()> {
        let mut candidates = self.candidates.drain(..).peekable();
        for (index, Asked { key, hash, mut verdict }) in self.asked.drain(..).enumerate() {
            while let Some(candidate) = candidates.next_if(|candidate| candidate.asked == index) {
                if verdict.is_none() {
                    let begin = candidate.begin.transpose()?;
                    let table = (candidate.handle, begin);
                    let key = (key.as_slice(), hash);
                    verdict = lookup_in_table(self.view, table, key, self.snapshot)?;
                }
            }
            take(verdict.flatten());
        }
        Ok(())
    }
}

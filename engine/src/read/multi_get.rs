//! Lookups of many keys at once, so that their cache misses overlap.
//!
//! A lookup waits for memory a few times in a row: for a filter's line, for a block's arrays, for the record. Of many keys, these
//! waits can be had together: passes over a group of keys bring in what the next pass will touch, and the lookups proper, which
//! are the ordinary ones, find everything at hand. The same passes let reads from the medium overlap, when blocks are not in
//! memory. The passes are hints and decide nothing. (Chen et al., "Improving hash join performance
//! through prefetching", ICDE 2004, call it group prefetching.)

use crate::error::Result;
use crate::key::{KeyspaceId, Sequence, hash_key};
use crate::keyspace::FullKey;
use crate::read::get::{Found, lookup_hashed};
use crate::read::view::View;
use crate::sstable::{BlockHint, Table};

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
    for group in keys.chunks(GROUP) {
        let full = |key: &K| FullKey::new(keyspace, key.as_ref());
        let group: Vec<FullKey> = group.iter().map(full).collect::<Result<_>>()?;
        let hashes: Vec<u64> = group.iter().map(|key| hash_key(key.as_slice())).collect();
        if group.len() > 1 {
            bring_in(view, &group, &hashes);
        }
        for (key, &hash) in group.iter().zip(&hashes) {
            let found = lookup_hashed(view, key.as_slice(), hash, snapshot)?;
            values.push(found.map(&take));
        }
    }
    Ok(values)
}

/// A table that may hold a key.
struct Candidate<'a> {
    table: &'a Table,
    key: &'a [u8],
    hash: u64,
}

/// Brings in what lookups of these keys will touch in tables.
fn bring_in(view: &View, keys: &[FullKey], hashes: &[u64]) {
    let mut candidates = Vec::with_capacity(keys.len() * 2);
    for (key, &hash) in keys.iter().zip(hashes) {
        let key = key.as_slice();
        for handle in view.version.sources().filter_map(|run| run.find(key)) {
            let table = &*handle.table;
            table.prefetch_filter(hash);
            candidates.push(Candidate { table, key, hash });
        }
    }
    candidates.retain(|candidate| candidate.table.may_contain(candidate.key, candidate.hash));
    for candidate in &candidates {
        candidate.table.prefetch_index(candidate.key);
    }
    let hint =
        |candidate: &Candidate<'_>| candidate.table.prefetch_block(candidate.key, candidate.hash);
    // All blocks that must come from the medium are requested before the first is waited for.
    let blocks: Vec<Option<BlockHint>> = candidates.iter().map(hint).collect();
    for (candidate, block) in candidates.iter().zip(blocks) {
        if let Some(block) = block {
            candidate.table.prefetch_record(&block, candidate.hash);
        }
    }
}

//! A lookup that has met an operand of a merge: walks the versions of the key down to what the operands apply to.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::key::{Sequence, Trailer, hash_key};
use crate::kinds::operator::Chain;
use crate::read::view::View;

/// The value of a full key whose newest visible version is an operand.
pub(crate) fn merged_value(view: &View, key: &[u8], snapshot: Sequence) -> Result<Vec<u8>> {
    let mut walk = Walk { view, chain: Chain::default() };
    let base = walk.down(key, snapshot)?;
    view.rules.merge(key, base.as_deref(), &walk.chain)
}

struct Walk<'v> {
    view: &'v View,
    chain: Chain,
}

impl Walk<'_> {
    /// Collects operands, newest first, until it finds what they apply to.
    fn down(&mut self, key: &[u8], snapshot: Sequence) -> Result<Option<Vec<u8>>> {
        let hash = hash_key(key);
        for memtable in self.view.memtables() {
            let tombstone = memtable.newest_covering(key, snapshot);
            let mut limit = Some(snapshot);
            while let Some(at) = limit
                && let Some((trailer, span)) = memtable.get(key, hash, at)
            {
                match self.step(trailer, memtable.value(span), tombstone)? {
                    ControlFlow::Break(base) => return Ok(base),
                    ControlFlow::Continue(()) => limit = trailer.sequence().checked_sub(1),
                }
            }
            if tombstone.is_some() {
                return Ok(None);
            }
        }
        for handle in self.view.version.sources().filter_map(|run| run.find(key)) {
            let table = &handle.table;
            let tombstone = table.range_tombstones().newest_covering(key, snapshot);
            let mut limit = Some(snapshot).filter(|_| table.may_contain(key, hash));
            while let Some(at) = limit
                && let Some((trailer, value)) = table.get(key, hash, at)?
            {
                match self.step(trailer, table.value(&value), tombstone)? {
                    ControlFlow::Break(base) => return Ok(base),
                    ControlFlow::Continue(()) => limit = trailer.sequence().checked_sub(1),
                }
            }
            if tombstone.is_some() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Takes a version of a source whose newest range tombstone over the key is `tombstone`.
    fn step(
        &mut self,
        trailer: Trailer,
        value: &[u8],
        tombstone: Option<Sequence>,
    ) -> Result<ControlFlow<Option<Vec<u8>>>> {
        if tombstone.is_some_and(|tombstone| tombstone > trailer.sequence()) {
            return Ok(ControlFlow::Break(None));
        }
        self.chain.take(trailer, value, &self.view.rules)
    }
}

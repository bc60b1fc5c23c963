//! Plain puts and deletes of rows, completed by what follows for their entries without a transaction around them.
//!
//! A single put needs little of what a transaction can: the old row, read once; a few records more in the batch; and a check at commit that
//! nobody has written any of its keys since the old row was read. No snapshot is registered for that, because a moment later the footprints
//! of the commits in between are all still there. If they are not, or somebody was quicker, or it is not so simple after all (ranges, a row
//! twice, a unique index key that belongs to another row), the answer is "not this way", and a transaction does it.

use std::cell::Cell;

use crate::batch::{Record, Records, WriteBatch};
use crate::commit::pipeline::CommitTerms;
use crate::commit::recent::CommitCheck;
use crate::database::Handle;
use crate::error::{Error, ErrorKind, Result};
use crate::index::extract::RowKeys;
use crate::index::maintain::{Turn, difference, user_part};
use crate::index::registry::{IndexList, IndexState, Registry};
use crate::key::{Sequence, ValueKind};
use crate::read::get::{Found, lookup};
use crate::read::view::View;
use crate::txn::validate::{Claims, Validation};

/// A scratch batch that has grown beyond this is given back to the system.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// New entries of a row that are brought in together, at most.
const ENTRIES_AHEAD: usize = 4;

thread_local! {
    /// What the thread's writes are completed in. Taken while in use: an extractor that writes itself finds an empty one.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

#[derive(Default)]
struct Scratch {
    /// The rows and their entries.
    all: WriteBatch,
    /// The full key of the entry at hand.
    entry: Vec<u8>,
    /// Those of entries that are brought in.
    entries: [Vec<u8>; ENTRIES_AHEAD],
}

impl Handle {
    /// Commits a batch with the entries that follow from its rows. `None` if that takes a transaction; then nothing was written.
    pub(super) fn commit_complete<R>(
        &self,
        batch: &WriteBatch,
        registry: &Registry,
        commit: impl Fn(&WriteBatch, CommitTerms<'_>) -> Result<R>,
    ) -> Option<Result<R>> {
        let mut scratch = SCRATCH.take();
        let result = self.complete(batch, registry, &mut scratch).and_then(|since| {
            self.commit_unchanged(&scratch.all, since, registry.generation, commit)
        });
        if scratch.all.size_bytes() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(scratch);
        }
        match result {
            Ok(done) => Some(Ok(done)),
            Err(NotDone::TakesTransaction) => None,
            Err(NotDone::Failed(error)) => Some(Err(error)),
        }
    }

    /// Fills in the batch that is to be written. Gives the sequence number from which on nobody may have written any of its keys.
    fn complete(
        &self,
        batch: &WriteBatch,
        registry: &Registry,
        scratch: &mut Scratch,
    ) -> std::result::Result<Sequence, NotDone> {
        scratch.all.begin_for(self.origin());
        self.core.pipeline.keep_footprints();
        self.core.with_view(|view, visible| {
            let mut completion = Completion { view, visible, registry, scratch };
            for record in Records::new(batch.bytes()) {
                completion.add(&record.map_err(|_| Error::internal("a batch does not decode"))?)?;
            }
            Ok(visible)
        })
    }

    /// Commits a batch if none of its keys was written after `since`.
    fn commit_unchanged<R>(
        &self,
        batch: &WriteBatch,
        since: Sequence,
        index_generation: u64,
        commit: impl Fn(&WriteBatch, CommitTerms<'_>) -> Result<R>,
    ) -> std::result::Result<R, NotDone> {
        let mut keys: Vec<&[u8]> = Vec::with_capacity(batch.len());
        keys.extend(Records::new(batch.bytes()).flatten().map(|record| record.key));
        keys.sort_unstable();
        // A row twice, or two rows that want the same unique index key.
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NotDone::TakesTransaction);
        }
        let mut unchanged = Validation::new(&self.core, Claims::Keys(&keys), since);
        let condition: Option<&mut dyn CommitCheck> = Some(&mut unchanged);
        let _turn = self.core.indexes.share_turn();
        let terms = CommitTerms { condition, index_generation, ..CommitTerms::default() };
        match commit(batch, terms) {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                unchanged.await_disturber();
                Err(NotDone::TakesTransaction)
            }
            done => Ok(done?),
        }
    }
}

/// Why a batch was not written here.
enum NotDone {
    TakesTransaction,
    Failed(Error),
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A batch that gets its entries.
struct Completion<'c> {
    view: &'c View,
    visible: Sequence,
    registry: &'c Registry,
    scratch: &'c mut Scratch,
}

impl Completion<'_> {
    /// Adds a record, and the changes of entries that follow from it.
    fn add(&mut self, record: &Record<'_>) -> std::result::Result<(), NotDone> {
        let value = match record.kind {
            ValueKind::Put => Some(record.value),
            ValueKind::Delete => None,
            _ => return Err(NotDone::TakesTransaction),
        };
        self.scratch.all.add_checked(record.kind, record.key, record.value);
        let Some(indexes) = self.registry.of_written(record.key)? else { return Ok(()) };
        let primary_key = user_part(record.key);
        let mut new = Vec::with_capacity(indexes.len());
        for index in indexes.iter() {
            new.push(index.keys_if(primary_key, value)?);
        }
        self.bring_in(record.key, indexes, &new)?;
        let found = lookup(self.view, record.key, self.visible)?;
        let old = found.as_ref().map(Found::as_slice);
        for (index, new) in indexes.iter().zip(&new) {
            let old = index.keys_if(primary_key, old)?;
            let mut simple = true;
            difference(&old, new, |turn, index_key| {
                simple &= self.change(index, turn, index_key, primary_key)?;
                Ok(())
            })?;
            if !simple {
                return Err(NotDone::TakesTransaction);
            }
        }
        Ok(())
    }

    /// Brings in what writing a row and its new entries will touch in memory: waiting for all of them together is cheaper than for one
    /// after the other.
    fn bring_in(&mut self, row: &[u8], indexes: &IndexList, new: &[RowKeys<'_>]) -> Result<()> {
        let entries = &mut self.scratch.entries;
        let mut count = 0;
        for (index, key) in indexes
            .iter()
            .zip(new)
            .flat_map(|(index, keys)| keys.iter().map(move |key| (index, key)))
            .take(ENTRIES_AHEAD)
        {
            index.format.write_entry_key(key, user_part(row), &mut entries[count])?;
            count += 1;
        }
        let entries = entries.iter().take(count).map(Vec::as_slice);
        self.view.active.bring_in(std::iter::once(row).chain(entries));
        Ok(())
    }

    /// Adds the change of one entry; false if it belongs to another row.
    fn change(
        &mut self,
        index: &IndexState,
        turn: Turn,
        index_key: &[u8],
        primary_key: &[u8],
    ) -> Result<bool> {
        let Scratch { all, entry, .. } = &mut *self.scratch;
        index.format.write_entry_key(index_key, primary_key, entry)?;
        // The entries of a complete index belong to the rows that have their keys.
        let is_own = turn == Turn::Gone && index.is_ready_at(self.visible);
        if index.format.unique && !is_own {
            let owner = lookup(self.view, entry, self.visible)?;
            if owner.is_some_and(|owner| owner.as_slice() != primary_key) {
                return Ok(false);
            }
        }
        match turn {
            Turn::Gone => all.add_checked(ValueKind::Delete, entry, &[]),
            Turn::Fresh => {
                all.add_checked(ValueKind::Put, entry, index.format.entry_value(primary_key));
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::recent::{Admission, RecentWrites};
    use crate::database::Database;
    use crate::index::definition::{IndexSource, IndexType};
    use crate::options::WriteOptions;

    fn indexed() -> Database {
        let db = Database::in_memory().unwrap();
        let first_byte = || IndexSource::value_bytes(0..1);
        db.create_index("tree", &db, IndexType::BTree, first_byte()).unwrap();
        db.create_unique_index("unique", &db, IndexType::Hash, first_byte()).unwrap();
        db
    }

    /// Whether the batch was written without a transaction, while `meanwhile` happened before its commit.
    fn completes(db: &Database, batch: &WriteBatch, meanwhile: impl Fn()) -> bool {
        let handle = db.handle();
        let registry = handle.core.indexes.registry();
        let done = handle.commit_complete(batch, &registry, |all, terms| {
            meanwhile();
            handle.commit_batch(all, &WriteOptions::new(), terms)
        });
        done.transpose().unwrap().is_some()
    }

    #[test]
    fn simple_batches_need_no_transaction_and_others_write_nothing() {
        let db = indexed();
        let mut batch = WriteBatch::new();
        batch.put("row", "a").put("other", "b").delete("third");
        assert!(completes(&db, &batch, || ()));
        assert_eq!(db.verify_indexes().unwrap(), 4);
        let mut not_simple: [WriteBatch; 4] = std::array::from_fn(|_| WriteBatch::new());
        not_simple[0].put("row", "c").put("row", "d");
        not_simple[1].put("one", "e").put("two", "e");
        not_simple[2].put("one", "a");
        not_simple[3].delete_range("a", "z");
        for batch in &not_simple {
            assert!(!completes(&db, batch, || ()));
            assert_eq!(db.iter().unwrap().count(), 2);
        }
    }

    #[test]
    fn a_batch_whose_rows_are_written_meanwhile_takes_a_transaction() {
        let db = indexed();
        db.put("row", "a").unwrap();
        let mut batch = WriteBatch::new();
        batch.put("row", "b").put("more", "c");
        let disturbances: [&dyn Fn(); 4] = [
            &|| db.put("row", "d").unwrap(),
            &|| db.delete("more").unwrap(),
            &|| db.delete_range("r", "s").unwrap(),
            // Not the row, but the unique index key.
            &|| db.put("quick", "c").unwrap(),
        ];
        for disturbance in disturbances {
            assert!(!completes(&db, &batch, disturbance));
            db.verify_indexes().unwrap();
        }
        assert_eq!(db.get("more").unwrap(), None);
        db.delete("quick").unwrap();
        assert!(completes(&db, &batch, || db.put("elsewhere", "e").unwrap()));
        assert_eq!(db.index("unique").unwrap().find("c").unwrap(), [b"more"]);
    }

    #[test]
    fn without_the_footprints_nothing_is_taken_for_unchanged() {
        let db = indexed();
        let keys: [&[u8]; 1] = [b"\0\0\0\0row"];
        let mut check = Validation::new(&db.handle().core, Claims::Keys(&keys), 3);
        let mut forgetful = RecentWrites::new(5, 0);
        assert_eq!(check.admit(&mut forgetful, 5).unwrap(), Admission::CatchUpFirst);
        assert_eq!(check.catch_up().unwrap_err().kind(), ErrorKind::Conflict);
    }
}

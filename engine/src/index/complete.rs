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
use crate::index::maintain::{Turn, only_in, user_part};
use crate::index::registry::{IndexState, Registry};
use crate::key::{Sequence, Trailer, ValueKind};
use crate::memtable::approaches::Approaches;
use crate::read::get::{Found, lookup};
use crate::read::view::View;
use crate::txn::validate::{Claims, Validation};

/// A scratch batch that has grown beyond this is given back to the system.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

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
    /// Where they belong in the memtable.
    ahead: Approaches,
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
            self.commit_unchanged(&mut scratch, since, registry.generation, commit)
        });
        scratch.ahead.end();
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
            scratch.ahead.begin(&view.active);
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
        scratch: &mut Scratch,
        since: Sequence,
        index_generation: u64,
        commit: impl Fn(&WriteBatch, CommitTerms<'_>) -> Result<R>,
    ) -> std::result::Result<R, NotDone> {
        let Scratch { all: batch, ahead, .. } = scratch;
        let mut keys: Vec<&[u8]> = Vec::with_capacity(batch.len());
        keys.extend(Records::new(batch.bytes()).flatten().map(|record| record.key));
        keys.sort_unstable();
        ahead.go_on();
        // A row twice, or two rows that want the same unique index key.
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NotDone::TakesTransaction);
        }
        let mut unchanged = Validation::new(&self.core, Claims::Keys(&keys), since);
        let condition: Option<&mut dyn CommitCheck> = Some(&mut unchanged);
        let _turn = self.core.indexes.share_turn();
        let terms = CommitTerms {
            condition,
            index_generation,
            ahead: Some(ahead),
            ..CommitTerms::default()
        };
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
        let Some(indexes) = self.registry.of_written(record.key)? else {
            self.scratch.all.add_checked(record.kind, record.key, record.value);
            return Ok(());
        };
        let primary_key = user_part(record.key);
        let Scratch { all, ahead, .. } = &mut *self.scratch;
        ahead.make_room(1 + 2 * indexes.len());
        ahead.set_out(Trailer::NEWEST, |key| {
            key.extend_from_slice(record.key);
            Ok(())
        })?;
        all.add_checked(record.kind, record.key, record.value);
        let mut new = Vec::with_capacity(indexes.len());
        for index in indexes.iter() {
            let keys = index.keys_if(primary_key, value)?;
            for index_key in keys.iter() {
                ahead.set_out(Trailer::NEWEST, |key| {
                    index.format.write_entry_key(index_key, primary_key, key)
                })?;
                ahead.go_on();
            }
            new.push(keys);
        }
        ahead.await_lookup(record.key);
        let found = lookup(self.view, record.key, self.visible)?;
        let row = found.as_ref().map(Found::as_slice);
        let mut old = Vec::with_capacity(indexes.len());
        for (index, new) in indexes.iter().zip(&new) {
            let keys = index.keys_if(primary_key, row)?;
            for index_key in only_in(&keys, new) {
                ahead.set_out(Trailer::NEWEST, |key| {
                    index.format.write_entry_key(index_key, primary_key, key)
                })?;
            }
            old.push(keys);
        }
        // The entries that go come last, because the searches for their places begin last.
        for turn in [Turn::Fresh, Turn::Gone] {
            for (index, (old, new)) in indexes.iter().zip(old.iter().zip(&new)) {
                let (keys, others) = if turn == Turn::Fresh { (new, old) } else { (old, new) };
                for index_key in only_in(keys, others) {
                    if !self.change(index, turn, index_key, primary_key)? {
                        return Err(NotDone::TakesTransaction);
                    }
                }
            }
        }
        self.scratch.ahead.go_on();
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

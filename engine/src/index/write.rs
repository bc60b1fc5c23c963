//! Plain writes: how a batch finds out that it concerns indexes, and what becomes of it then.
//!
//! A batch that no index cares about goes straight to the commit pipeline. One of plain puts and deletes gets its entries added first
//! (see [`complete`](super::complete)). What does not succeed that way is replayed in a transaction of its own, which knows what to do in
//! every case, and which is run again as long as others get in first.

use std::sync::{Arc, MutexGuard, PoisonError, RwLockReadGuard};

use crate::batch::WriteBatch;
use crate::commit::future::CommitFuture;
use crate::commit::pipeline::CommitTerms;
use crate::database::Handle;
use crate::error::{ErrorKind, Result};
use crate::index::registry::Indexes;
use crate::key::Sequence;
use crate::options::WriteOptions;
use crate::stripes::Share;
use crate::txn::{IsolationLevel, Transaction, TransactionOptions};

/// A write that has lost so often against others waits until it can have its way alone.
const ATTEMPTS_TOGETHER: u32 = 8;

impl Indexes {
    /// Held while indexes are created or dropped.
    pub(crate) fn lock_definitions(&self) -> MutexGuard<'_, ()> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps writers of entries that want to be alone waiting.
    pub(crate) fn share_turn(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one attempt to change entries. From a certain number of attempts on it has the turn for itself; before, its commit shares it
    /// with others.
    pub(super) fn attempt<R>(&self, number: u32, run: impl FnOnce(bool) -> R) -> R {
        let alone = number >= ATTEMPTS_TOGETHER;
        let turn = alone.then(|| self.turn.write().unwrap_or_else(PoisonError::into_inner));
        let result = run(alone);
        drop(turn);
        result
    }
}

impl Handle {
    /// Writes a batch, and what follows from it for indexes. Gives the sequence number of its last record; 0 for an empty batch.
    pub(crate) fn write(
        self: &Arc<Self>,
        batch: &WriteBatch,
        options: &WriteOptions,
    ) -> Result<Sequence> {
        let commit = |batch: &_, terms: CommitTerms<'_>| self.commit_batch(batch, options, terms);
        self.write_by(batch, options, commit, Transaction::commit)
    }

    /// Starts to write a batch, and what follows from it for indexes.
    pub(crate) fn write_later(
        self: &Arc<Self>,
        batch: &WriteBatch,
        options: &WriteOptions,
    ) -> Result<CommitFuture> {
        let commit =
            |batch: &_, terms: CommitTerms<'_>| self.commit_batch_later(batch, options, terms);
        self.write_by(batch, options, commit, |mut txn| Ok(txn.start_commit()?.1))
    }

    fn write_by<R>(
        self: &Arc<Self>,
        batch: &WriteBatch,
        options: &WriteOptions,
        commit: impl Fn(&WriteBatch, CommitTerms<'_>) -> Result<R>,
        in_transaction: impl Fn(Transaction) -> Result<R>,
    ) -> Result<R> {
        let indexes = &self.core.indexes;
        let mut attempt = 0;
        loop {
            // If the set of indexes changes after this, the commit is refused.
            let registry = (indexes.generation() > 0).then(|| indexes.registry());
            let generation = registry.as_ref().map_or(0, |registry| registry.generation);
            let concerned = registry.filter(|registry| registry.concerns(batch));
            let result = if let Some(registry) = concerned {
                self.check_open()?;
                self.check_origin(batch)?;
                attempt += 1;
                let complete = || self.commit_complete(batch, &registry, &commit);
                (attempt == 1).then(complete).flatten().unwrap_or_else(|| {
                    indexes.attempt(attempt, |alone| {
                        let mut txn = Transaction::begin(Share::new(self), row_options(options))?;
                        txn.indexing.iter_mut().for_each(|indexing| indexing.alone = alone);
                        txn.replay(batch)?;
                        in_transaction(txn)
                    })
                })
            } else {
                commit(
                    batch,
                    CommitTerms { index_generation: generation, ..CommitTerms::default() },
                )
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                // The hidden keyspace of an index that was dropped while the batch was made.
                Err(error)
                    if error.kind() == ErrorKind::KeyspaceNotFound
                        && indexes.generation() != generation => {}
                done => return done,
            }
        }
    }
}

fn row_options(options: &WriteOptions) -> TransactionOptions {
    let all = TransactionOptions::new().isolation(IsolationLevel::RepeatableRead);
    options.durability.map_or(all, |durability| all.durability(durability))
}

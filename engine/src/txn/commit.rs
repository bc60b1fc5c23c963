//! How a transaction ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::batch::WriteBatch;
use crate::commit::future::CommitFuture;
use crate::commit::pipeline::CommitTerms;
use crate::commit::recent::CommitCheck;
use crate::error::{Error, Result};
use crate::index::Indexing;
use crate::key::Sequence;
use crate::options::WriteOptions;
use crate::read::observed::Reads;
use crate::txn::locks::HeldLocks;
use crate::txn::transaction::Transaction;
use crate::txn::validate::{Claims, Validation};

impl Transaction {
    /// Makes all writes visible at once, and as durable as the transaction's durability says. Gives the sequence number of the last of them:
    /// snapshots from that number on see them. For a transaction that wrote nothing it is the newest one visible to it.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict), naming the key, if the isolation level forbids the commit: nothing was written then, and
    /// the transaction should be run again from its beginning. Otherwise as [`Database::write`](crate::Database::write), and
    /// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded).
    pub fn commit(mut self) -> Result<u64> {
        self.check_usable()?;
        let result = self.commit_now();
        self.ends_with(result)
    }

    fn commit_now(&self) -> Result<Sequence> {
        if self.writes.is_empty() {
            return Ok(self.own_place());
        }
        let batch = self.final_batch();
        let options = self.write_options();
        if self.snapshot.is_none() {
            return self.handle.write(&batch, &options);
        }
        self.validated(|terms| self.handle.commit_batch(&batch, &options, terms))
    }

    /// As [`commit`](Self::commit), without waiting for the device: gives a future. So one thread can have thousands of durable commits in
    /// flight.
    ///
    /// Whether the isolation level allows the commit is decided before this returns, and transactions that begin later come later in
    /// the order; but nobody sees the writes before the future is ready. Locks are kept until it is ready or dropped.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// let mut commits = Vec::new();
    /// for number in 0..100 {
    ///     let mut txn = db.begin()?;
    ///     txn.put(format!("key {number}"), "value")?;
    ///     commits.push(txn.commit_async());
    /// }
    /// for commit in commits {
    ///     commit.wait()?; // or `.await`
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future gives those of [`commit`](Self::commit).
    pub fn commit_async(mut self) -> TransactionCommit {
        let (sequence, commit) = match self.start_commit() {
            Ok((sequence, commit)) => (sequence, commit),
            Err(error) => (0, CommitFuture::settled(Err(error))),
        };
        TransactionCommit { commit, sequence, locks: self.locks.take() }
    }

    /// The commit without its end, and the last sequence number of it.
    pub(crate) fn start_commit(&mut self) -> Result<(Sequence, CommitFuture)> {
        self.check_usable()?;
        let result = self.commit_later();
        self.ends_with(result)
    }

    fn commit_later(&self) -> Result<(Sequence, CommitFuture)> {
        if self.writes.is_empty() {
            return Ok((self.own_place(), CommitFuture::settled(Ok(()))));
        }
        let batch = self.final_batch();
        let options = self.write_options();
        let commit = if self.snapshot.is_none() {
            self.handle.write_later(&batch, &options)?
        } else {
            self.validated(|terms| self.handle.commit_batch_later(&batch, &options, terms))?
        };
        Ok((commit.last_sequence(), commit))
    }

    /// Remembers how the commit went.
    fn ends_with<R>(&mut self, result: Result<R>) -> Result<R> {
        self.committed = result.is_ok();
        result.inspect_err(|error| self.core().transactions.failed(error.kind()))
    }

    /// Where in the order a transaction stands that has written nothing: its reads are those of that moment.
    fn own_place(&self) -> Sequence {
        self.snapshot_sequence().unwrap_or_else(|| self.core().pipeline.visible())
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions { durability: self.options.durability }
    }

    /// All writes. Without a snapshot, index entries were only for the transaction's own eyes: the rows that they followed from may have
    /// changed since, so the commit makes them anew.
    fn final_batch(&self) -> WriteBatch {
        let hidden =
            self.indexing.as_ref().filter(|_| self.snapshot.is_none()).map(Indexing::registry);
        self.writes.to_batch(self.origin, |id| !hidden.is_some_and(|hidden| hidden.maintains(id)))
    }

    /// Commits with the check that the isolation level asks for.
    fn validated<R>(&self, commit: impl FnOnce(CommitTerms<'_>) -> Result<R>) -> Result<R> {
        let Some(snapshot) = self.snapshot_sequence() else {
            return Err(Error::internal("a transaction without a snapshot has nothing to check"));
        };
        let _turn = self.share_turn();
        let index_generation = self.settle_indexes()?;
        let reads = self.take_reads();
        let claims = Claims::Transaction { writes: self.writes.overlay(), reads: &reads };
        let mut validation = Validation::new(self.core(), claims, snapshot);
        let condition: Option<&mut dyn CommitCheck> = Some(&mut validation);
        let result = commit(CommitTerms { condition, index_generation, ..CommitTerms::default() });
        validation.await_disturber();
        result
    }

    /// What was read and locked. Cursors that are still alive add to nothing from now on.
    fn take_reads(&self) -> Reads {
        let mut reads = match &self.observed {
            Some(observed) => std::mem::take(&mut *observed.lock()),
            None => Reads::default(),
        };
        let relied = self.indexing.iter().flat_map(Indexing::relied_on);
        reads.keys.extend(relied.map(|key| Box::from(&**key)));
        reads.keys.extend(self.locks.keys().map(|key| Box::from(&**key)));
        reads
    }

    /// Forgets all writes, as dropping the transaction does.
    pub fn rollback(self) {
        drop(self);
    }
}

/// A transaction's commit on its way; see [`Transaction::commit_async`]. Resolves to what [`Transaction::commit`] gives.
///
/// The commit goes on whether or not anybody polls or drops this.
#[must_use = "the future says whether the transaction was committed, and when it is durable"]
pub struct TransactionCommit {
    commit: CommitFuture,
    sequence: Sequence,
    /// Kept until the writes are visible: who gets the lock next must read them.
    locks: Option<HeldLocks>,
}

impl TransactionCommit {
    /// Blocks the calling thread until the commit is done.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn wait(self) -> Result<u64> {
        let Self { commit, sequence, locks } = self;
        let result = commit.wait();
        drop(locks);
        result.map(|()| sequence)
    }
}

impl Future for TransactionCommit {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<u64>> {
        Pin::new(&mut self.commit).poll(context).map(|result| {
            self.locks = None;
            result.map(|()| self.sequence)
        })
    }
}

impl fmt::Debug for TransactionCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransactionCommit").field(&self.commit).finish()
    }
}

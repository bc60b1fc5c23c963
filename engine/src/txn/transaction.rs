//! `Transaction`: how it begins, what it is made of, and savepoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::batch::Origin;
use crate::core::Core;
use crate::database::{Database, Handle};
use crate::error::{Error, ErrorKind, Result};
use crate::index::Indexing;
use crate::key::{KeyspaceId, Sequence};
use crate::keyspace::Keyspace;
use crate::limits::BATCH_BYTES_MAX;
use crate::read::observed::Observed;
use crate::read::snapshot::SnapshotGuard;
use crate::stripes::Share;
use crate::txn::locks::{HeldLocks, TransactionId};
use crate::txn::options::{IsolationLevel, TransactionOptions};
use crate::txn::write_set::WriteSet;

/// Several reads and writes, over any number of keyspaces, that happen together or not at all.
///
/// Begun by [`Database::begin`] or [`Database::begin_with`]. Its reads see its own writes; nobody else sees them until
/// [`commit`](Self::commit), and dropping it forgets them. What it may notice of others is decided by its [`IsolationLevel`]. It owns
/// what it needs: keep it, send it to another thread. It keeps the database open.
///
/// Methods without a suffix work on the default keyspace, those with `_in` on the one given.
///
/// Transactions are optimistic: they don't wait for each other, and one that cannot be brought into an order with those that committed
/// before it fails with [`ErrorKind::Conflict`] at commit. [`Database::transact`] runs it again then. To wait instead, take locks with
/// [`get_for_update`](Self::get_for_update).
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::Database;
/// let db = Database::in_memory()?;
/// db.put("alice", "100")?;
/// let mut txn = db.begin()?;
/// txn.put("alice", "70")?;
/// txn.put("bob", "30")?;
/// assert_eq!(txn.get("bob")?.as_deref(), Some(&b"30"[..]));
/// assert_eq!(db.get("bob")?, None);
/// txn.commit()?;
/// assert_eq!(db.get("bob")?.as_deref(), Some(&b"30"[..]));
/// # Ok(())
/// # }
/// ```
///
/// A transaction cannot be used after its end:
///
/// ```compile_fail
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// # let db = rustlite_engine::Database::in_memory()?;
/// let mut txn = db.begin()?;
/// txn.commit()?;
/// txn.put("k", "v")?;
/// # Ok(())
/// # }
/// ```
pub struct Transaction {
    pub(crate) handle: Share<Handle>,
    /// See [`id`](Self::id); 0 before somebody has asked.
    id: TransactionId,
    pub(crate) options: TransactionOptions,
    /// The database, and how many keyspaces had been dropped at the beginning.
    pub(super) origin: Origin,
    /// The monotonic moment from which on it can do nothing any more.
    pub(super) deadline: Option<Duration>,
    /// What it reads at; `None` to read what is newest.
    pub(super) snapshot: Option<Arc<SnapshotGuard>>,
    /// Set, relaxed, by reads: nothing hangs on when, since `&mut self` methods ask.
    pub(crate) has_read: AtomicBool,
    /// The record of what it reads, if that is validated.
    pub(super) observed: Option<Arc<Observed>>,
    pub(crate) writes: WriteSet,
    /// The full keys that it has locked; dropping them releases them.
    pub(super) locks: HeldLocks,
    /// Why it can only be rolled back.
    pub(super) failure: Option<Error>,
    /// Whether it ends by having been committed.
    pub(super) committed: bool,
    /// Indexes: what there were when the transaction began, and what its commit owes them. `None` if there were none.
    pub(crate) indexing: Option<Indexing>,
}

/// A moment in a transaction to which it can be rolled back. See [`Transaction::set_savepoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Savepoint {
    transaction: TransactionId,
    number: u64,
}

impl Database {
    /// Begins a transaction: `RepeatableRead`, with the database's durability.
    ///
    /// # Errors
    /// If the database is closed.
    pub fn begin(&self) -> Result<Transaction> {
        self.begin_with(TransactionOptions::default())
    }

    /// Begins a transaction of an isolation level, or with other options.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// use rustlite_engine::{Database, IsolationLevel, TransactionOptions};
    /// let db = Database::in_memory()?;
    /// let strict = db.begin_with(IsolationLevel::Serializable)?;
    /// let looking = db.begin_with(TransactionOptions::new().read_only(true))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the database is closed.
    pub fn begin_with(&self, options: impl Into<TransactionOptions>) -> Result<Transaction> {
        Transaction::begin(self.share(), options.into())
    }
}

impl Transaction {
    pub(crate) fn begin(handle: Share<Handle>, options: TransactionOptions) -> Result<Self> {
        handle.check_open()?;
        let core = &handle.core;
        let level = options.isolation;
        let validates = !options.read_only && level >= IsolationLevel::RepeatableRead;
        if validates {
            core.pipeline.keep_footprints();
        }
        let repeatable = level >= IsolationLevel::RepeatableRead;
        let observes = validates && level == IsolationLevel::Serializable;
        core.transactions.began();
        Ok(Self {
            id: 0,
            options,
            origin: handle.origin(),
            deadline: options.timeout.map(|timeout| core.clock.monotonic().saturating_add(timeout)),
            snapshot: repeatable.then(|| Arc::new(core.snapshot())),
            has_read: AtomicBool::new(false),
            observed: observes.then(Arc::default),
            writes: WriteSet::new(BATCH_BYTES_MAX),
            locks: HeldLocks::default(),
            failure: None,
            committed: false,
            indexing: Indexing::begin(core),
            handle,
        })
    }

    /// What tells it apart from all others of the process. Given when it is first needed, because most transactions never are.
    pub(super) fn id(&mut self) -> TransactionId {
        static GIVEN: AtomicU64 = AtomicU64::new(0);
        if self.id == 0 {
            // Relaxed: only has to be unique.
            self.id = GIVEN.fetch_add(1, Ordering::Relaxed) + 1;
        }
        self.id
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }

    /// The isolation level that it was begun with.
    #[must_use]
    pub fn isolation(&self) -> IsolationLevel {
        self.options.isolation
    }

    /// The sequence number of the last write of others that its reads see; `None` if each read sees what is newest.
    #[must_use]
    pub fn snapshot_sequence(&self) -> Option<u64> {
        self.snapshot.as_ref().map(|guard| guard.sequence())
    }

    /// An error if the transaction can do nothing any more.
    pub(crate) fn check_usable(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure
                .clone()
                .context("the transaction has failed and can only be rolled back"));
        }
        self.handle.check_open()?;
        match self.deadline {
            Some(deadline) if self.core().clock.monotonic() >= deadline => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                format!(
                    "the transaction has taken longer than its timeout of {:?}",
                    self.timeout()
                ),
            )),
            _ => Ok(()),
        }
    }

    fn timeout(&self) -> Duration {
        self.options.timeout.unwrap_or(Duration::MAX)
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_usable()?;
        if self.options.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the transaction was begun as read-only"));
        }
        Ok(())
    }

    /// The number of a keyspace, if it is one of this database and alive.
    pub(super) fn resolve(&self, keyspace: &Keyspace) -> Result<KeyspaceId> {
        if !Arc::ptr_eq(&keyspace.handle, &self.handle) {
            return Err(Error::invalid(
                "the keyspace belongs to another open database than the transaction",
            ));
        }
        keyspace.check_exists()?;
        Ok(keyspace.id())
    }

    /// Remembers this moment, so that later writes can be taken back without giving up the transaction. Savepoints nest.
    ///
    /// ```
    /// # fn main() -> Result<(), rustlite_engine::Error> {
    /// # let db = rustlite_engine::Database::in_memory()?;
    /// let mut txn = db.begin()?;
    /// txn.put("kept", "1")?;
    /// let savepoint = txn.set_savepoint()?;
    /// txn.put("taken back", "2")?;
    /// txn.rollback_to(&savepoint)?;
    /// assert_eq!(txn.get("taken back")?, None);
    /// txn.commit()?;
    /// assert!(db.contains_key("kept")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the transaction is read-only, has failed or used up its time.
    pub fn set_savepoint(&mut self) -> Result<Savepoint> {
        self.check_writable()?;
        Ok(Savepoint { transaction: self.id(), number: self.writes.set_savepoint() })
    }

    fn number_of(&self, savepoint: &Savepoint) -> Result<u64> {
        self.check_writable()?;
        if savepoint.transaction != self.id {
            return Err(Error::invalid("the savepoint belongs to another transaction"));
        }
        Ok(savepoint.number)
    }

    /// Takes back every write since the savepoint, which stays; later savepoints are gone. What was read since then still counts, locks are
    /// kept, and iterators go on seeing what they saw.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the savepoint is another transaction's, or gone; else as
    /// [`set_savepoint`](Self::set_savepoint).
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let number = self.number_of(savepoint)?;
        self.writes.rollback_to(number)
    }

    /// Forgets a savepoint and later ones, and keeps the writes.
    ///
    /// # Errors
    /// As [`rollback_to`](Self::rollback_to).
    pub fn release_savepoint(&mut self, savepoint: &Savepoint) -> Result<()> {
        let number = self.number_of(savepoint)?;
        self.writes.release(number)
    }

    /// What reads see, given what is visible now.
    pub(super) fn sequence(&self, visible: Sequence) -> Sequence {
        self.snapshot.as_ref().map_or(visible, |guard| guard.sequence())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.core().transactions.ended(self.committed);
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("isolation", &self.options.isolation)
            .field("snapshot", &self.snapshot_sequence())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

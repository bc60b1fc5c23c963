//! Isolation levels, and the options of a transaction.

use std::time::Duration;

use crate::options::Durability;

/// What a transaction may notice of others that run at the same time.
///
/// The table in the documentation of the source folder `txn` lists every anomaly of Adya's and the Hermitage tests for each level. In
/// short:
///
/// | level | reads see | a commit fails if, since the transaction began, |
/// |---|---|---|
/// | `ReadUncommitted` | as `ReadCommitted` | never |
/// | `ReadCommitted` | what is committed when each read begins | never |
/// | `RepeatableRead` | what was committed when the transaction began | somebody wrote a key that it writes |
/// | `Serializable` | the same | somebody wrote a key that it writes or has read, or into a range that it has read |
///
/// At every level a transaction sees its own writes, nobody sees them before it commits, and they appear all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum IsolationLevel {
    /// The same as `ReadCommitted`: uncommitted writes live in the transaction that made them, where nobody else could read them.
    ReadUncommitted,
    /// Each read sees the newest committed state. Two reads may see different ones, and an update of what was read earlier may overwrite
    /// another's: lock what you are going to update with `get_for_update`.
    ReadCommitted,
    /// Snapshot isolation: all reads see one state, and of two transactions that write the same key only the first to commit succeeds. Two
    /// transactions that read each other's keys and write different ones both succeed (write skew). The default.
    #[default]
    RepeatableRead,
    /// As if transactions ran one after the other, in the order of their commits. What was read counts as well, keys that were not there
    /// and ranges included.
    Serializable,
}

/// How long [`get_for_update`](crate::Transaction::get_for_update) waits for a lock by default.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often `transact` runs a transaction again by default.
const RETRIES_MAX: u32 = 64;

/// Options of a transaction, for [`Database::begin_with`](crate::Database::begin_with). An [`IsolationLevel`] converts into options.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use std::time::Duration;
/// use rustlite_engine::{Database, Durability, IsolationLevel, TransactionOptions};
/// let db = Database::in_memory()?;
/// let options = TransactionOptions::new()
///     .isolation(IsolationLevel::Serializable)
///     .durability(Durability::Buffered)
///     .timeout(Duration::from_secs(10));
/// let mut txn = db.begin_with(options)?;
/// txn.put("k", "v")?;
/// txn.commit()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionOptions {
    pub(crate) isolation: IsolationLevel,
    pub(crate) read_only: bool,
    pub(crate) durability: Option<Durability>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) lock_timeout: Duration,
    pub(crate) retries_max: u32,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            isolation: IsolationLevel::default(),
            read_only: false,
            durability: None,
            timeout: None,
            lock_timeout: LOCK_TIMEOUT,
            retries_max: RETRIES_MAX,
        }
    }
}

impl From<IsolationLevel> for TransactionOptions {
    fn from(isolation: IsolationLevel) -> Self {
        Self { isolation, ..Self::default() }
    }
}

impl TransactionOptions {
    /// `RepeatableRead`, reading and writing, with the database's durability, without a time limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The isolation level. Default: `RepeatableRead`.
    #[must_use]
    pub fn isolation(mut self, isolation: IsolationLevel) -> Self {
        self.isolation = isolation;
        self
    }

    /// Whether writes are refused. Such a transaction never fails to commit. Default: false.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The durability of its commit. `Periodic` means `Buffered` here. Default: the database's.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How long it may take from `begin` to the call of `commit`: every use after that fails with
    /// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded). For `transact`, each attempt has so long. Default: no limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long `get_for_update` waits for a lock before it fails with [`LockTimeout`](crate::ErrorKind::LockTimeout).
    /// Default: 1 second.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How often `transact` runs the transaction again after an error that says so, before it gives that error back. Default: 64.
    #[must_use]
    pub fn retries_max(mut self, retries: u32) -> Self {
        self.retries_max = retries;
        self
    }
}

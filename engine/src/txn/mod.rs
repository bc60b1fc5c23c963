//! Transactions: optimistic, over snapshots, validated in the commit pipeline.
//!
//! A transaction reads at a registered snapshot and collects its writes in memory. At commit its writes become one batch, which goes the
//! way of every batch; but in the moment when the batch would get its place in the order of all commits, under the commit lock, it is
//! checked that nobody has written, since the snapshot, what the transaction relies on. So the order of the log is the order in which
//! serializable transactions seem to have run.
//!
//! ```text
//! account a = 50, account b = 50; each transaction takes 80 from one of them if both together have 100
//!
//! sequence   T1 (Serializable)                 T2 (Serializable)
//!    7       begin: snapshot 7
//!    7       get a, b: 50, 50                  begin: snapshot 7
//!    7       put a = -30                       get a, b: 50, 50
//!    7                                         put b = -30
//!    8       commit: a, b unchanged since 7 -> 8
//!    8                                         commit: a was written at 8 > 7 -> Conflict("a"), run again
//!    8                                         begin: snapshot 8; get a, b: -30, 50; does nothing
//! ```
//!
//! At `RepeatableRead` T2 would have committed (write skew), because the two write different keys. Had both written `a`, T2 would have
//! failed there too: of two writers of a key, the first to commit wins.
//!
//! | anomaly (Adya, Hermitage) | `ReadUncommitted`, `ReadCommitted` | `RepeatableRead` | `Serializable` |
//! |---|---|---|---|
//! | G0 dirty write | prevented | prevented | prevented |
//! | G1a aborted read | prevented | prevented | prevented |
//! | G1b intermediate read | prevented | prevented | prevented |
//! | G1c circular information flow | prevented | prevented | prevented |
//! | OTV observed transaction vanishes | prevented | prevented | prevented |
//! | PMP predicate-many-preceders | possible | prevented | prevented |
//! | P4 lost update | possible | prevented | prevented |
//! | G-single read skew | possible | prevented | prevented |
//! | G2-item write skew | possible | possible | prevented |
//! | G2 anti-dependency cycle over predicates | possible | possible | prevented |
//! | G2 with two edges (Fekete's read-only anomaly) | possible | possible | prevented |
//!
//! `engine/tests/main/hermitage.rs` has a test for each cell.
//!
//! The parts: [`options`]; [`transaction`] — begin, savepoints; [`commit`] — how it ends; [`read`] and [`write`] — what it can do meanwhile;
//! [`write_set`] — its writes; [`validate`] — the check at commit; [`locks`] — for `get_for_update`; [`transact`] — running it again;
//! [`counters`] — how many ended how.
//! Elsewhere: `read/overlay.rs` merges the writes into iterators, `read/observed.rs` records what serializable transactions read,
//! `read/changes.rs` asks memtables and tables what was written since a snapshot, `commit/recent.rs` remembers what the newest commits
//! wrote.
//!
//! A database in which no transaction was ever begun pays one relaxed load per commit for all this.

mod commit;
pub(crate) mod counters;
pub(crate) mod locks;
mod options;
mod read;
mod transact;
mod transaction;
pub(crate) mod validate;
mod write;
mod write_set;

pub use commit::TransactionCommit;
pub use options::{IsolationLevel, TransactionOptions};
pub use transaction::{Savepoint, Transaction};

//! The compaction filter: code that decides what of a keyspace is still wanted.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::limits::{KEYSPACE_PREFIX_BYTES, VALUE_BYTES_MAX};

/// What a [`CompactionFilter`] wants done with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterDecision {
    /// It stays as it is.
    Keep,
    /// The key is deleted.
    Remove,
    /// The key has this value from now on. If it expires, it does so when the old one would have.
    Change(Vec<u8>),
}

/// Looks at values while compactions rewrite them anyway, and removes or changes what is no longer wanted: data of users that are gone,
/// values in an outdated form.
///
/// Given to [`Options::compaction_filter`](crate::Options::compaction_filter) for a keyspace, each time the database is opened. It is not
/// stored: without it, everything is kept.
///
/// It is asked about the current value of a key (operands of merges that could be applied included), while a compaction copies it, unless
/// a snapshot sees that value: snapshots that exist when a compaction starts never see what a filter does. It is not asked about
/// deletes, expired values, or what is only in memory or in the log. When a value is met is up to the compactions: perhaps soon,
/// perhaps never, perhaps several times. [`Keyspace::compact`](crate::Keyspace::compact) makes it meet all of them.
///
/// What it decides is no write: it is in no batch and gets no sequence number, and readers see it as soon as the compaction is done.
/// It is called on background threads, several at once, must not use the database, and should be quick. A panic keeps the value
/// and is logged, and so does a changed value that is longer than values may be.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::{CompactionFilter, Database, FilterDecision, Options};
///
/// /// Drops what belongs to users that are gone.
/// struct OfUsers(Vec<u8>);
///
/// impl CompactionFilter for OfUsers {
///     fn filter(&self, key: &[u8], _value: &[u8]) -> FilterDecision {
///         if self.0.contains(&key[0]) { FilterDecision::Keep } else { FilterDecision::Remove }
///     }
/// }
///
/// let options = Options::new().compaction_filter("default", OfUsers(b"ac".into()));
/// let db = Database::in_memory_with(options)?;
/// for key in ["a1", "b1", "b2", "c1"] {
///     db.put(key, "")?;
/// }
/// db.compact()?;
/// assert_eq!(db.iter()?.count(), 2);
/// # Ok(())
/// # }
/// ```
pub trait CompactionFilter: Send + Sync + 'static {
    /// What to do with `value`, the current value of `key`.
    fn filter(&self, key: &[u8], value: &[u8]) -> FilterDecision;
}

/// What the filter decides, as far as it can be obeyed.
pub(crate) fn decide(
    filter: &dyn CompactionFilter,
    full_key: &[u8],
    value: &[u8],
) -> FilterDecision {
    let key = full_key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default();
    match catch_unwind(AssertUnwindSafe(|| filter.filter(key, value))) {
        Ok(FilterDecision::Change(value)) if value.len() > VALUE_BYTES_MAX => {
            tracing::error!(bytes = value.len(), "a compaction filter made a value too large");
            FilterDecision::Keep
        }
        Ok(decision) => decision,
        Err(_) => {
            tracing::error!("a compaction filter panicked; the value stays");
            FilterDecision::Keep
        }
    }
}

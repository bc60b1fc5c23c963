//! The merge operator: how a change that was written without reading is applied later.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Trailer, ValueKind};
use crate::kinds::{Rules, expiry, unknown_kind};
use crate::limits::{KEYSPACE_PREFIX_BYTES, VALUE_BYTES_MAX};

/// Why an operator cannot apply an operand.
pub type OperatorError = Box<dyn std::error::Error + Send + Sync>;

/// Combines a value with changes to it (*operands*) that were written by [`Keyspace::merge`](crate::Keyspace::merge) without reading
/// the value.
///
/// Given to [`Options::merge_operator`](crate::Options::merge_operator) each time the database is opened, and named by
/// [`KeyspaceOptions::merge_operator`](crate::KeyspaceOptions::merge_operator) when a keyspace is created. [`U64Add`](crate::U64Add),
/// [`Append`](crate::Append) and [`Max`](crate::Max) are there without registration.
///
/// Operands are applied in the order in which they were written, at some time between the write and the read, perhaps in several steps
/// and on any thread. So an operator's result may depend on nothing but its arguments, must not use the database, and applying operands
/// in one step or in several must give the same.
///
/// An error (or a panic) reaches whoever reads the key, as [`ErrorKind::OperatorFailed`]. The operands stay as they are until the key
/// is set or deleted; flushes and compactions are not held up.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::{Database, KeyspaceOptions, MergeOperator, OperatorError, Options};
///
/// /// A set of bytes.
/// struct Union;
///
/// impl MergeOperator for Union {
///     fn name(&self) -> &str {
///         "union"
///     }
///
///     fn full_merge(
///         &self,
///         _key: &[u8],
///         base: Option<&[u8]>,
///         operands: &[&[u8]],
///     ) -> Result<Vec<u8>, OperatorError> {
///         let mut all = [base.unwrap_or_default(), &operands.concat()].concat();
///         all.sort_unstable();
///         all.dedup();
///         Ok(all)
///     }
/// }
///
/// let db = Database::in_memory_with(Options::new().merge_operator(Union))?;
/// let tags = db.create_keyspace("tags", KeyspaceOptions::new().merge_operator("union"))?;
/// tags.merge("page", "b")?;
/// tags.merge("page", "ab")?;
/// assert_eq!(tags.get("page")?.as_deref(), Some(&b"ab"[..]));
/// # Ok(())
/// # }
/// ```
pub trait MergeOperator: Send + Sync + 'static {
    /// The name that keyspaces remember it by. Change it when the meaning of operands changes. 1 to 256 bytes.
    fn name(&self) -> &str;

    /// The value of `key` after `operands`, oldest first, were applied to `base`; `None` if the key had no value.
    ///
    /// # Errors
    /// If an operand or the base is not what the operator understands.
    fn full_merge(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> std::result::Result<Vec<u8>, OperatorError>;

    /// One operand that does what `older` and then `newer` do, if there is one. It saves space and time while the value that they
    /// apply to is out of reach. The default knows none.
    fn partial_merge(&self, key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        let _ = (key, older, newer);
        None
    }
}

/// Operands of one key that wait for what they apply to, newest first.
#[derive(Debug, Default)]
pub(crate) struct Chain(Vec<(Trailer, Vec<u8>)>);

impl Chain {
    /// Adds the next older operand.
    pub(crate) fn push(&mut self, trailer: Trailer, operand: &[u8]) {
        self.0.push((trailer, operand.to_vec()));
    }

    /// Takes the next older version that a reader sees: it goes on below an operand, and breaks with what the operands apply to.
    pub(crate) fn take(
        &mut self,
        trailer: Trailer,
        value: &[u8],
        rules: &Rules,
    ) -> Result<ControlFlow<Option<Vec<u8>>>> {
        Ok(match trailer.kind() {
            Some(ValueKind::Merge) => {
                self.push(trailer, value);
                ControlFlow::Continue(())
            }
            Some(ValueKind::Put) => ControlFlow::Break(Some(value.to_vec())),
            Some(ValueKind::Delete) => ControlFlow::Break(None),
            Some(ValueKind::PutExpiring) => {
                ControlFlow::Break(expiry::alive(value, rules.now())?.map(<[u8]>::to_vec))
            }
            Some(ValueKind::ValuePointer) => {
                ControlFlow::Break(Some(rules.values.read(value)?.as_slice().to_vec()))
            }
            _ => return Err(unknown_kind(trailer)),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn newest(&self) -> Option<Trailer> {
        self.0.first().map(|(trailer, _)| *trailer)
    }

    pub(crate) fn oldest(&self) -> Option<Trailer> {
        self.0.last().map(|(trailer, _)| *trailer)
    }

    /// The operands, newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Trailer, &[u8])> {
        self.0.iter().map(|(trailer, operand)| (*trailer, operand.as_slice()))
    }

    /// What the operands make of `base`.
    pub(crate) fn applied_to(
        &self,
        full_key: &[u8],
        base: Option<&[u8]>,
        operator: &dyn MergeOperator,
    ) -> Result<Vec<u8>> {
        let operands: Vec<&[u8]> = self.0.iter().rev().map(|(_, operand)| &**operand).collect();
        let key = full_key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default();
        let merge = || operator.full_merge(key, base, &operands);
        let failed = |detail: &str| {
            let message = format!("merge operator {:?} {detail}", operator.name());
            Error::new(ErrorKind::OperatorFailed, message)
        };
        match catch_unwind(AssertUnwindSafe(merge)) {
            Ok(Ok(value)) if value.len() <= VALUE_BYTES_MAX => Ok(value),
            Ok(Ok(value)) => Err(failed(&format!(
                "made a value of {} bytes; the most is {VALUE_BYTES_MAX}",
                value.len()
            ))),
            Ok(Err(error)) => Err(failed(&format!("failed: {error}"))),
            Err(_) => Err(failed("panicked")),
        }
    }

    /// The same operands in as few as the operator can make of them.
    pub(crate) fn combined(self, full_key: &[u8], operator: &dyn MergeOperator) -> Self {
        let key = full_key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default();
        let combine = |older: &[u8], newer: &[u8]| {
            let merge = || operator.partial_merge(key, older, newer);
            let combined = catch_unwind(AssertUnwindSafe(merge)).ok().flatten();
            combined.filter(|operand| operand.len() <= VALUE_BYTES_MAX)
        };
        let mut oldest_first: Vec<(Trailer, Vec<u8>)> = Vec::new();
        for (trailer, newer) in self.0.into_iter().rev() {
            if let Some(last) = oldest_first.last_mut()
                && let Some(both) = combine(&last.1, &newer)
            {
                *last = (trailer, both);
            } else {
                oldest_first.push((trailer, newer));
            }
        }
        oldest_first.reverse();
        Self(oldest_first)
    }
}

//! Merge operators that many applications want. They need no registration.

use std::sync::Arc;

use crate::kinds::operator::{MergeOperator, OperatorError};

/// The operators that every database knows.
pub(crate) fn ready_made() -> [Arc<dyn MergeOperator>; 3] {
    [Arc::new(U64Add), Arc::new(Append), Arc::new(Max)]
}

/// Adds numbers: values and operands are 8 bytes, little-endian (`u64::to_le_bytes`). A key without a value counts as 0; sums wrap
/// around, so that adding `u64::MAX` subtracts 1.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::{Database, KeyspaceOptions, U64Add};
/// let db = Database::in_memory()?;
/// let hits = db.create_keyspace("hits", KeyspaceOptions::new().merge_operator(U64Add::NAME))?;
/// hits.merge("/", 1_u64.to_le_bytes())?;
/// hits.merge("/", 2_u64.to_le_bytes())?;
/// assert_eq!(hits.get("/")?.as_deref(), Some(&3_u64.to_le_bytes()[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct U64Add;

impl U64Add {
    /// The name to give to [`KeyspaceOptions::merge_operator`](crate::KeyspaceOptions::merge_operator).
    pub const NAME: &str = "rustlite.u64_add";
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

impl MergeOperator for U64Add {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn full_merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Vec<u8>, OperatorError> {
        let mut sum = 0_u64;
        for bytes in base.iter().chain(operands) {
            let number = number(bytes)
                .ok_or_else(|| format!("a number to add has {} bytes instead of 8", bytes.len()))?;
            sum = sum.wrapping_add(number);
        }
        Ok(sum.to_le_bytes().to_vec())
    }

    fn partial_merge(&self, _key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        Some(number(older)?.wrapping_add(number(newer)?).to_le_bytes().to_vec())
    }
}

/// Appends bytes to a value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Append;

impl Append {
    /// The name to give to [`KeyspaceOptions::merge_operator`](crate::KeyspaceOptions::merge_operator).
    pub const NAME: &str = "rustlite.append";
}

impl MergeOperator for Append {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn full_merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Vec<u8>, OperatorError> {
        let len =
            base.map_or(0, <[u8]>::len) + operands.iter().map(|more| more.len()).sum::<usize>();
        let mut all = Vec::with_capacity(len);
        base.iter().chain(operands).for_each(|bytes| all.extend_from_slice(bytes));
        Ok(all)
    }

    fn partial_merge(&self, _key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        Some([older, newer].concat())
    }
}

/// Keeps the largest of a value and its operands, compared as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Max;

impl Max {
    /// The name to give to [`KeyspaceOptions::merge_operator`](crate::KeyspaceOptions::merge_operator).
    pub const NAME: &str = "rustlite.max";
}

impl MergeOperator for Max {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn full_merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Vec<u8>, OperatorError> {
        Ok(base.iter().chain(operands).max().map(|bytes| bytes.to_vec()).unwrap_or_default())
    }

    fn partial_merge(&self, _key: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        Some(older.max(newer).to_vec())
    }
}

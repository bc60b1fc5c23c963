//! Values that expire.
//!
//! ```text
//! value of a put that expires = when (8 bytes, little-endian, Unix time in milliseconds) | the user's value
//! ```
//!
//! In a batch that is not committed yet the first eight bytes are how long the value lives; the pipeline adds the time of the
//! commit (see [`Rules::complete`](super::Rules::complete)).

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Bytes in front of the user's value.
pub(crate) const EXPIRY_BYTES: usize = 8;

/// A lifetime or a Unix time, in milliseconds.
pub(crate) type Millis = u64;

/// A lifetime in whole milliseconds, rounded up, so that nothing expires before its time.
pub(crate) fn lifetime(ttl: Duration) -> Millis {
    Millis::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(Millis::MAX)
}

/// When a stored value expires, and the user's part of it.
pub(crate) fn split(stored: &[u8]) -> Result<(Millis, &[u8])> {
    match stored.split_first_chunk::<EXPIRY_BYTES>() {
        Some((when, value)) => Ok((Millis::from_le_bytes(*when), value)),
        None => Err(malformed()),
    }
}

/// The user's part of a stored value, unless it has expired at `now`.
pub(crate) fn alive(stored: &[u8], now: Millis) -> Result<Option<&[u8]>> {
    let (when, value) = split(stored)?;
    Ok((when > now).then_some(value))
}

#[cold]
fn malformed() -> Error {
    Error::new(ErrorKind::Corruption, "a record that expires is shorter than its time of expiry")
}

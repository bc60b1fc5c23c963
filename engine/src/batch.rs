//! `WriteBatch`: several writes that happen together or not at all.
//!
//! ```text
//! batch  = record*
//! record = kind (1 byte) | key length (varint) | full key | value length (varint) | value
//! ```
//!
//! A delete has an empty value; a range delete's value is its exclusive end, a full key. The value of a put that expires begins with
//! eight bytes that say when (`kinds/expiry.rs`). The bytes are the same in memory, in the
//! log and when they are applied, so nothing is encoded twice. Record *i* of a batch gets the batch's first sequence number plus *i*.

use std::time::Duration;

use crate::coding::{Decoder, put_varint};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, ValueKind};
use crate::keyspace::Keyspace;
use crate::kinds::expiry::{EXPIRY_BYTES, Millis, lifetime};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FULL_KEY_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};

/// Several writes, to any number of keyspaces, that become visible and durable together or not at all.
///
/// Later writes to the same key win. A write outside the limits is remembered and makes `Database::write` fail, so the methods need
/// no error handling of their own.
///
/// ```
/// # fn main() -> Result<(), rustlite_engine::Error> {
/// use rustlite_engine::{Database, WriteBatch};
/// let db = Database::in_memory()?;
/// let mut batch = WriteBatch::new();
/// batch.put("alice", "90").put("bob", "110").delete("carol");
/// db.write(batch)?;
/// assert_eq!(db.get("bob")?.as_deref(), Some(&b"110"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u32,
    error: Option<Error>,
    origin: Option<Origin>,
    /// True if a record needs the rules of its keyspace to be complete.
    special: bool,
}

/// The open database whose keyspaces a batch uses. Keyspaces are numbers in the batch, and mean something in that database only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Tells databases that are or were open in this process apart.
    pub(crate) database: u64,
    /// How many keyspaces had been dropped when the batch first used one.
    pub(crate) drops: u64,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` bytes of keys and values.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Sets a key of the default keyspace.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.add(ValueKind::Put, KeyspaceId::DEFAULT, key.as_ref(), value.as_ref());
        self
    }

    /// Sets a key of the default keyspace to a value that expires `ttl` after the batch is written. See
    /// [`Keyspace::put_expiring`].
    pub fn put_expiring(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> &mut Self {
        self.add_expiring(KeyspaceId::DEFAULT, key.as_ref(), value.as_ref(), ttl);
        self
    }

    /// Gives a key of the default keyspace an operand for its merge operator. See [`Keyspace::merge`].
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> &mut Self {
        self.special = true;
        self.add(ValueKind::Merge, KeyspaceId::DEFAULT, key.as_ref(), operand.as_ref());
        self
    }

    /// Removes a key of the default keyspace; it need not exist.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.add(ValueKind::Delete, KeyspaceId::DEFAULT, key.as_ref(), &[]);
        self
    }

    /// Removes all keys of the default keyspace from `start` (inclusive) to `end` (exclusive). Nothing if `start >= end`.
    pub fn delete_range(&mut self, start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> &mut Self {
        self.add_range(KeyspaceId::DEFAULT, start.as_ref(), end.as_ref());
        self
    }

    /// Sets a key of a keyspace.
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        if self.accepts(keyspace) {
            self.add(ValueKind::Put, keyspace.id(), key.as_ref(), value.as_ref());
        }
        self
    }

    /// Sets a key of a keyspace to a value that expires `ttl` after the batch is written. See [`Keyspace::put_expiring`].
    pub fn put_expiring_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> &mut Self {
        if self.accepts(keyspace) {
            self.add_expiring(keyspace.id(), key.as_ref(), value.as_ref(), ttl);
        }
        self
    }

    /// Gives a key of a keyspace an operand for its merge operator. See [`Keyspace::merge`].
    pub fn merge_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> &mut Self {
        if self.accepts(keyspace) {
            self.special = true;
            self.add(ValueKind::Merge, keyspace.id(), key.as_ref(), operand.as_ref());
        }
        self
    }

    /// Removes a key of a keyspace; it need not exist.
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        if self.accepts(keyspace) {
            self.add(ValueKind::Delete, keyspace.id(), key.as_ref(), &[]);
        }
        self
    }

    /// Removes all keys of a keyspace from `start` (inclusive) to `end` (exclusive). Nothing if `start >= end`.
    pub fn delete_range_in(
        &mut self,
        keyspace: &Keyspace,
        start: impl AsRef<[u8]>,
        end: impl AsRef<[u8]>,
    ) -> &mut Self {
        if self.accepts(keyspace) {
            self.add_range(keyspace.id(), start.as_ref(), end.as_ref());
        }
        self
    }

    /// Number of writes in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if the batch holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch as it will stand in the log.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets everything, keeps the memory for the next batch.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.error = None;
        self.origin = None;
        self.special = false;
    }

    /// False, and the batch refused, if the keyspace was dropped or belongs to another database than those before.
    pub(crate) fn accepts(&mut self, keyspace: &Keyspace) -> bool {
        // Read before the check: a drop that the check does not see yet is counted later.
        let origin = keyspace.handle.origin();
        if let Err(error) = keyspace.check_exists() {
            self.refuse(error);
            return false;
        }
        let same = self.origin.get_or_insert(origin).database == origin.database;
        if !same {
            self.refuse(Error::invalid("the batch uses keyspaces of two different open databases"));
        }
        same
    }

    /// The database that the batch can be written to; any, if it names no keyspace.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    pub(crate) fn add(&mut self, kind: ValueKind, keyspace: KeyspaceId, key: &[u8], value: &[u8]) {
        if let Err(error) = check_key(key).and_then(|()| check_value(value)) {
            self.refuse(error);
            return;
        }
        self.push(kind, keyspace, key, value.len(), |bytes| bytes.extend_from_slice(value));
    }

    fn add_expiring(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8], ttl: Duration) {
        if let Err(error) = check_key(key).and_then(|()| check_value(value)) {
            self.refuse(error);
            return;
        }
        self.special = true;
        self.push_expiring(keyspace, key, lifetime(ttl), value);
    }

    /// Adds a value that expires. The key and the value were checked.
    pub(crate) fn push_expiring(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        when: Millis,
        value: &[u8],
    ) {
        let len = EXPIRY_BYTES + value.len();
        self.push(ValueKind::PutExpiring, keyspace, key, len, |bytes| {
            bytes.extend_from_slice(&when.to_le_bytes());
            bytes.extend_from_slice(value);
        });
    }

    /// True if records need the rules of their keyspaces to be complete.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.special
    }

    fn add_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: &[u8]) {
        // An empty start means "from the first key", so only the length is bounded.
        if start.len() > KEY_BYTES_MAX || end.len() > KEY_BYTES_MAX {
            self.refuse(Error::invalid(format!(
                "a bound of delete_range is longer than {KEY_BYTES_MAX} bytes"
            )));
        } else if start < end {
            let prefix = keyspace.prefix();
            self.push(ValueKind::RangeDelete, keyspace, start, prefix.len() + end.len(), |bytes| {
                bytes.extend_from_slice(&prefix);
                bytes.extend_from_slice(end);
            });
        }
    }

    /// An empty batch for one open database.
    pub(crate) fn of(origin: Origin, bytes: usize) -> Self {
        Self { origin: Some(origin), ..Self::with_capacity(bytes) }
    }

    /// Forgets everything, for another batch of one open database in the same memory.
    pub(crate) fn begin_for(&mut self, origin: Origin) {
        self.clear();
        self.origin = Some(origin);
    }

    /// Adds a record that was checked before: full key and value, or the full keys of a range of one keyspace.
    pub(crate) fn add_checked(&mut self, kind: ValueKind, full_key: &[u8], value: &[u8]) {
        let Some((prefix, key)) = full_key.split_first_chunk() else { return };
        let keyspace = KeyspaceId(u32::from_be_bytes(*prefix));
        self.special |= kind == ValueKind::Merge;
        self.push(kind, keyspace, key, value.len(), |bytes| bytes.extend_from_slice(value));
    }

    /// Adds a value that lives so long from the commit on. The full key and the value were checked before.
    pub(crate) fn add_expiring_checked(&mut self, full_key: &[u8], lifetime: Millis, value: &[u8]) {
        let Some((prefix, key)) = full_key.split_first_chunk() else { return };
        self.special = true;
        self.push_expiring(KeyspaceId(u32::from_be_bytes(*prefix)), key, lifetime, value);
    }

    /// Removes every key of a keyspace.
    pub(crate) fn delete_all(&mut self, keyspace: KeyspaceId) {
        let end = KeyspaceId(keyspace.0.saturating_add(1)).prefix();
        self.push(ValueKind::RangeDelete, keyspace, &[], end.len(), |bytes| {
            bytes.extend_from_slice(&end);
        });
    }

    fn push(
        &mut self,
        kind: ValueKind,
        keyspace: KeyspaceId,
        key: &[u8],
        value_len: usize,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let prefix = keyspace.prefix();
        let needed = self.bytes.len() + key.len() + value_len + 32;
        if needed > BATCH_BYTES_MAX || self.count >= BATCH_RECORDS_MAX {
            self.refuse(Error::invalid(format!(
                "the batch is larger than {BATCH_BYTES_MAX} bytes or {BATCH_RECORDS_MAX} writes; \
                 split it"
            )));
            return;
        }
        self.bytes.push(kind as u8);
        put_varint(&mut self.bytes, (prefix.len() + key.len()) as u64);
        self.bytes.extend_from_slice(&prefix);
        self.bytes.extend_from_slice(key);
        put_varint(&mut self.bytes, value_len as u64);
        value(&mut self.bytes);
        self.count += 1;
    }

    fn refuse(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// The first write that was outside the limits, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        self.error.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

/// Checks a user key that is written.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        Err(Error::invalid("the key is empty; keys have 1 to 65536 bytes"))
    } else if key.len() > KEY_BYTES_MAX {
        Err(Error::invalid(format!("the key has {} bytes; the most is {KEY_BYTES_MAX}", key.len())))
    } else {
        Ok(())
    }
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the value has {} bytes; the most is {VALUE_BYTES_MAX}",
            value.len()
        )));
    }
    Ok(())
}

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: ValueKind,
    /// Full key; the inclusive start of a range delete.
    pub(crate) key: &'a [u8],
    /// The value; the exclusive end of a range delete.
    pub(crate) value: &'a [u8],
}

/// Walks the records of a batch's bytes. Gives `Err(())` once, then ends, where the bytes are not a batch.
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    decoder: Decoder<'a>,
}

/// The bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedBatch;

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { decoder: Decoder::new(bytes) }
    }

    #[inline]
    fn decode(&mut self) -> Option<Record<'a>> {
        let kind = ValueKind::from_u8(self.decoder.u8()?)?;
        let key_len = self.decoder.varint_max(FULL_KEY_BYTES_MAX)?;
        let key = self.decoder.take(key_len)?;
        let value = self.decoder.bytes()?;
        KeyspaceId::of(key)?;
        let sound = match kind {
            ValueKind::RangeDelete => key < value,
            ValueKind::Delete => value.is_empty(),
            // Values are separated when they leave the log.
            ValueKind::ValuePointer => false,
            ValueKind::PutExpiring => {
                (EXPIRY_BYTES..=EXPIRY_BYTES + VALUE_BYTES_MAX).contains(&value.len())
            }
            _ => value.len() <= VALUE_BYTES_MAX,
        };
        sound.then_some(Record { kind, key, value })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = std::result::Result<Record<'a>, MalformedBatch>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_empty() {
            return None;
        }
        let record = self.decode();
        if record.is_none() {
            self.decoder = Decoder::new(&[]);
        }
        Some(record.ok_or(MalformedBatch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order() {
        let mut batch = WriteBatch::new();
        batch.put("a", "1").delete("b").delete_range("c", "d").delete_range("z", "y");
        assert_eq!(batch.len(), 3);
        let records: Vec<_> = Records::new(batch.bytes()).map(|record| record.unwrap()).collect();
        assert_eq!(records[0].kind, ValueKind::Put);
        assert_eq!((records[0].key, records[0].value), (&b"\0\0\0\0a"[..], &b"1"[..]));
        assert_eq!(records[1].kind, ValueKind::Delete);
        assert_eq!((records[2].key, records[2].value), (&b"\0\0\0\0c"[..], &b"\0\0\0\0d"[..]));
    }

    #[test]
    fn limits_are_reported_and_nothing_is_added() {
        let mut batch = WriteBatch::new();
        batch.put("", "x").put(vec![1; KEY_BYTES_MAX + 1], "x");
        assert!(batch.is_empty());
        assert!(batch.check().unwrap_err().to_string().contains("key is empty"));
        batch.clear();
        batch.put(vec![1; KEY_BYTES_MAX], "x");
        batch.check().unwrap();
    }

    #[test]
    fn any_truncation_or_flip_gives_records_or_an_error_but_never_a_panic() {
        let mut batch = WriteBatch::new();
        batch.put("key", vec![7; 300]).delete("other").delete_range("a", "b");
        let bytes = batch.bytes().to_vec();
        for cut in 0..bytes.len() {
            let _ = Records::new(&bytes[..cut]).count();
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[cut] ^= 1 << bit;
                let errors = Records::new(&flipped).filter(|record| record.is_err()).count();
                assert!(errors <= 1);
            }
        }
    }
}

//! The rules of all keyspaces.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustlite_io::Clock;

use crate::batch::{Record, Records, WriteBatch};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, ValueKind};
use crate::kinds::expiry::{Millis, split};
use crate::limits::KEYSPACE_PREFIX_BYTES;
use crate::manifest::edit::KeyspaceDescriptor;

/// What it takes to understand records that are more than a value. Shared by everything that reads or writes one database.
pub(crate) struct Rules {
    clock: Arc<dyn Clock>,
    /// Keyspaces whose options say something that matters here. Dropped ones stay: iterators may still read them, and no id is
    /// ever used again.
    keyspaces: RwLock<HashMap<KeyspaceId, KeyspaceRules>>,
    /// True once a keyspace gives its values a lifetime. Relaxed: a writer to that keyspace got its handle from a lock that was
    /// taken after the store.
    stamps_values: AtomicBool,
}

/// What one keyspace's options say.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyspaceRules {
    /// How long a plain put lives; 0 for ever.
    default_ttl_ms: Millis,
}

impl Rules {
    /// No keyspace yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            keyspaces: RwLock::default(),
            stamps_values: AtomicBool::new(false),
        })
    }

    /// Takes over what a keyspace's options say, before anybody can use the keyspace.
    pub(crate) fn learn(&self, keyspace: &KeyspaceDescriptor) {
        let rules = KeyspaceRules { default_ttl_ms: keyspace.options.default_ttl_ms };
        if rules.default_ttl_ms > 0 {
            self.stamps_values.store(true, Ordering::Relaxed);
            let mut keyspaces = self.keyspaces.write().unwrap_or_else(PoisonError::into_inner);
            keyspaces.insert(keyspace.id, rules);
        }
    }

    /// The rules of a keyspace.
    pub(crate) fn of(&self, keyspace: KeyspaceId) -> KeyspaceRules {
        let keyspaces = self.keyspaces.read().unwrap_or_else(PoisonError::into_inner);
        keyspaces.get(&keyspace).cloned().unwrap_or_default()
    }

    /// Unix time, in milliseconds.
    pub(crate) fn now(&self) -> Millis {
        Millis::try_from(self.clock.wall().as_millis()).unwrap_or(Millis::MAX)
    }

    /// The batch as it goes into the log: with times of expiry instead of lifetimes.
    #[inline]
    pub(crate) fn complete<'b>(&self, batch: &'b WriteBatch) -> Result<Cow<'b, WriteBatch>> {
        if !batch.is_special() && !self.stamps_values.load(Ordering::Relaxed) {
            return Ok(Cow::Borrowed(batch));
        }
        self.completed(batch)
    }

    #[cold]
    fn completed<'b>(&self, batch: &'b WriteBatch) -> Result<Cow<'b, WriteBatch>> {
        let mut records = Vec::with_capacity(batch.len());
        let mut changes = false;
        let mut last = None;
        for record in Records::new(batch.bytes()) {
            let record = record.map_err(|_| Error::internal("a batch does not decode"))?;
            let id = KeyspaceId::of(record.key).unwrap_or(KeyspaceId::DEFAULT);
            let rules = match last.take() {
                Some((known, rules)) if known == id => rules,
                _ => self.of(id),
            };
            let lifetime = lifetime_of(&record, &rules)?;
            changes |= lifetime.is_some();
            records.push((record, lifetime));
            last = Some((id, rules));
        }
        if !changes {
            return Ok(Cow::Borrowed(batch));
        }
        let now = self.now();
        let mut out = WriteBatch::with_capacity(batch.size_bytes() + 8 * batch.len());
        for (record, lifetime) in records {
            let id = KeyspaceId::of(record.key).unwrap_or(KeyspaceId::DEFAULT);
            let key = record.key.get(KEYSPACE_PREFIX_BYTES..).unwrap_or_default();
            match lifetime {
                Some((lifetime, value)) => {
                    out.push_expiring(id, key, now.saturating_add(lifetime), value);
                }
                None => out.push_as_is(record.kind, id, key, record.value),
            }
        }
        out.check()?;
        Ok(Cow::Owned(out))
    }
}

/// How long the value of a record lives, if not for ever, and the user's part of it.
fn lifetime_of<'r>(
    record: &Record<'r>,
    rules: &KeyspaceRules,
) -> Result<Option<(Millis, &'r [u8])>> {
    Ok(match record.kind {
        ValueKind::PutExpiring => Some(split(record.value)?),
        ValueKind::Put if rules.default_ttl_ms > 0 => Some((rules.default_ttl_ms, record.value)),
        _ => None,
    })
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keyspaces = self.keyspaces.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Rules").field("keyspaces", &keyspaces.len()).finish_non_exhaustive()
    }
}

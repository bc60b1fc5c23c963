//! The rules of all keyspaces.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustlite_io::Clock;

use crate::batch::{Record, Records, WriteBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyspaceId, ValueKind};
use crate::kinds::expiry::{Millis, split};
use crate::kinds::filter::CompactionFilter;
use crate::kinds::operator::{Chain, MergeOperator};
use crate::kinds::ready_made::ready_made;
use crate::limits::KEYSPACE_PREFIX_BYTES;
use crate::manifest::edit::KeyspaceDescriptor;
use crate::options::{Filter, KeyspaceOptions, Operator, Options, check_operator_name};
use crate::values::ValueFiles;

/// What it takes to understand records that are more than a value. Shared by everything that reads or writes one database.
pub(crate) struct Rules {
    clock: Arc<dyn Clock>,
    /// Where values lie that are not in tables.
    pub(crate) values: Arc<ValueFiles>,
    /// What keyspaces can name.
    operators: Vec<Arc<dyn MergeOperator>>,
    filters: Vec<Filter>,
    /// Keyspaces whose options say something that matters here. Dropped ones stay: iterators may still read them, and no id is
    /// ever used again.
    keyspaces: RwLock<HashMap<KeyspaceId, KeyspaceRules>>,
    /// True once a keyspace gives its values a lifetime. Relaxed: a writer to that keyspace got its handle from a lock that was
    /// taken after the store.
    stamps_values: AtomicBool,
}

/// What one keyspace's options say.
#[derive(Clone, Default)]
pub(crate) struct KeyspaceRules {
    /// How long a plain put lives; 0 for ever.
    default_ttl_ms: Millis,
    /// What combines operands; an unknown one only in a database that is open read-only.
    pub(crate) operator: Option<Arc<dyn MergeOperator>>,
    pub(crate) filter: Option<Arc<dyn CompactionFilter>>,
}

impl KeyspaceRules {
    /// Refuses a kind of record that the keyspace cannot hold.
    ///
    /// # Errors
    /// An operand without an operator, or a value that expires beside one.
    pub(crate) fn admit(&self, kind: ValueKind) -> Result<()> {
        match kind {
            ValueKind::Merge if self.operator.is_none() => Err(Error::invalid(
                "the keyspace was created without a merge operator; see \
                 KeyspaceOptions::merge_operator",
            )),
            ValueKind::PutExpiring if self.operator.is_some() => {
                Err(Error::invalid("values of a keyspace with a merge operator cannot expire"))
            }
            _ => Ok(()),
        }
    }
}

impl Rules {
    /// No keyspace yet.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        values: &Arc<ValueFiles>,
        options: &Options,
    ) -> Arc<Self> {
        let registered = options.merge_operators.iter().map(|Operator(code)| Arc::clone(code));
        Arc::new(Self {
            clock,
            values: Arc::clone(values),
            operators: registered.chain(ready_made()).collect(),
            filters: options.compaction_filters.clone(),
            keyspaces: RwLock::default(),
            stamps_values: AtomicBool::new(false),
        })
    }

    /// Takes over what a keyspace's options say, before anybody can use the keyspace.
    pub(crate) fn learn(&self, keyspace: &KeyspaceDescriptor) {
        let options = &keyspace.options;
        let named = |filter: &&Filter| filter.keyspace == keyspace.name;
        let filter = self.filters.iter().find(named).filter(|_| keyspace.index.is_none());
        let rules = KeyspaceRules {
            default_ttl_ms: options.default_ttl_ms,
            operator: self.operator_of(options).unwrap_or_default(),
            filter: filter.map(|filter| Arc::clone(&filter.code)),
        };
        if rules.default_ttl_ms > 0 {
            self.stamps_values.store(true, Ordering::Relaxed);
        }
        let special = rules.operator.is_some() || rules.filter.is_some();
        if rules.default_ttl_ms > 0 || special {
            let mut keyspaces = self.keyspaces.write().unwrap_or_else(PoisonError::into_inner);
            keyspaces.insert(keyspace.id, rules);
        }
    }

    /// The operator that a keyspace's options name.
    ///
    /// # Errors
    /// If this program has not registered it.
    pub(crate) fn operator_of(
        &self,
        options: &KeyspaceOptions,
    ) -> Result<Option<Arc<dyn MergeOperator>>> {
        let Some(name) = &options.merge_operator else { return Ok(None) };
        check_operator_name(name)?;
        let found = self.operators.iter().find(|operator| operator.name() == name);
        found.cloned().map(Some).ok_or_else(|| {
            Error::new(
                ErrorKind::OperatorNotRegistered,
                format!(
                    "merge operator {name:?} is not registered; give it to Options::merge_operator"
                ),
            )
        })
    }

    /// Refuses an index on a keyspace whose rows go by themselves: their entries would stay.
    ///
    /// # Errors
    /// If the keyspace has a default lifetime or a compaction filter.
    pub(crate) fn check_indexable(&self, keyspace: KeyspaceId) -> Result<()> {
        let rules = self.of(keyspace);
        if rules.default_ttl_ms > 0 || rules.filter.is_some() {
            return Err(Error::invalid(
                "a keyspace with a default lifetime or a compaction filter cannot have an index: \
                 its rows go without a write that could remove their entries",
            ));
        }
        Ok(())
    }

    /// True if some keyspace has a compaction filter.
    pub(crate) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// What the operands of a key amount to.
    pub(crate) fn merge(
        &self,
        full_key: &[u8],
        base: Option<&[u8]>,
        operands: &Chain,
    ) -> Result<Vec<u8>> {
        let keyspace = KeyspaceId::of(full_key).unwrap_or(KeyspaceId::DEFAULT);
        match self.of(keyspace).operator {
            Some(operator) => operands.applied_to(full_key, base, &*operator),
            None => Err(Error::new(
                ErrorKind::OperatorNotRegistered,
                "the value is made by a merge operator that is not registered; give it to \
                 Options::merge_operator",
            )),
        }
    }

    /// The operands of a key in as few as possible.
    pub(crate) fn combine(&self, full_key: &[u8], operands: Chain) -> Chain {
        let keyspace = KeyspaceId::of(full_key).unwrap_or(KeyspaceId::DEFAULT);
        match self.of(keyspace).operator {
            Some(operator) => operands.combined(full_key, &*operator),
            None => operands,
        }
    }

    /// How long a plain put of the keyspace lives; 0 for ever.
    pub(crate) fn lifetime(&self, keyspace: KeyspaceId) -> Millis {
        self.of(keyspace).default_ttl_ms
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
                None => out.add_checked(record.kind, record.key, record.value),
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
    rules.admit(record.kind)?;
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

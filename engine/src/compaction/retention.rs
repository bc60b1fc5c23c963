//! Which versions and tombstones a flush or compaction may drop.
//!
//! The live snapshots and the visible end cut the sequence numbers into *stripes*: two versions in one stripe look the same to every
//! reader that there is or will be. So of each key only the newest version of each stripe is kept, and a version that a range
//! tombstone of its own stripe covers is dropped. In the oldest stripe at the bottom of the tree, tombstones have nothing left to
//! hide and are dropped themselves, and sequence numbers become 0, which tables store in one byte.
//!
//! Operands of merges are held back until it is clear what they apply to: a version of their own stripe, or nothing at all. Then
//! one value stays of all of them. Where what they apply to is out of reach, they are combined as far as the operator can.
//!
//! A value that has expired is as good as deleted to every reader, snapshots included, so it is treated as a tombstone.

use std::sync::Arc;

use crate::error::Result;
use crate::key::{KeyspaceId, Sequence, Trailer, ValueKind};
use crate::kinds::Rules;
use crate::kinds::expiry::{self, EXPIRY_BYTES, Millis};
use crate::kinds::filter::{CompactionFilter, FilterDecision, decide};
use crate::kinds::operator::Chain;
use crate::range_tombstones::RangeTombstones;

/// The fixed facts of one flush or compaction.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// Ascending: every live snapshot, and the newest visible sequence number.
    boundaries: Vec<Sequence>,
    /// Nothing below the output holds older versions of its keys.
    bottommost: bool,
    /// What has expired by now is dropped.
    now: Millis,
    rules: Arc<Rules>,
    /// Values from this sequence number on are shown to compaction filters: no snapshot sees them.
    filtered_from: Sequence,
}

impl Retention {
    pub(crate) fn new(boundaries: Vec<Sequence>, bottommost: bool, rules: &Arc<Rules>) -> Self {
        debug_assert!(boundaries.is_sorted() && !boundaries.is_empty());
        Self {
            boundaries,
            bottommost,
            now: rules.now(),
            rules: Arc::clone(rules),
            filtered_from: Sequence::MAX,
        }
    }

    /// Lets compaction filters decide about what the snapshots don't see. `newest_snapshot` is to be asked for after the boundaries, so
    /// that one that was taken in between counts.
    pub(crate) fn with_filters(mut self, newest_snapshot: Option<Sequence>) -> Self {
        if self.rules.has_filters() {
            self.filtered_from = newest_snapshot.map_or(0, |newest| newest + 1);
        }
        self
    }

    fn stripe(&self, sequence: Sequence) -> usize {
        self.boundaries.partition_point(|&boundary| boundary < sequence)
    }

    /// The newest sequence number of a stripe.
    fn stripe_end(&self, stripe: usize) -> Sequence {
        self.boundaries.get(stripe).copied().unwrap_or(Sequence::MAX)
    }

    /// The tombstones that must stay.
    pub(crate) fn tombstones(&self, inputs: &RangeTombstones) -> RangeTombstones {
        inputs.filtered(|sequence, newer| {
            let stripe = self.stripe(sequence);
            let hidden = newer.is_some_and(|newer| self.stripe(newer) == stripe);
            let hides_nothing = self.bottommost && stripe == 0;
            !hidden && !hides_nothing
        })
    }

    /// Starts on a sequence of records.
    pub(crate) fn filter<'a>(&'a self, tombstones: &'a RangeTombstones) -> RecordFilter<'a> {
        RecordFilter {
            retention: self,
            tombstones,
            key: Vec::new(),
            stripe: None,
            chain: Chain::default(),
            filter: None,
        }
    }
}

/// Takes a record that stays.
pub(crate) trait Emit: FnMut(&[u8], Trailer, &[u8]) -> Result<()> {}

impl<F: FnMut(&[u8], Trailer, &[u8]) -> Result<()>> Emit for F {}

/// Decides record by record, in internal-key order.
pub(crate) struct RecordFilter<'a> {
    retention: &'a Retention,
    tombstones: &'a RangeTombstones,
    /// The key of the last record, and the stripe of its last version seen.
    key: Vec<u8>,
    stripe: Option<usize>,
    /// Operands of that stripe that have not met what they apply to yet.
    chain: Chain,
    /// The compaction filter of the last keyspace that was asked about.
    filter: Option<(KeyspaceId, Option<Arc<dyn CompactionFilter>>)>,
}

/// What the operands of a stripe apply to.
enum Base<'r> {
    /// A version of their own stripe.
    Version(Trailer, &'r [u8]),
    /// Certainly no value.
    Nothing,
    /// Something out of reach: in another stripe or further down.
    Unknown,
}

impl RecordFilter<'_> {
    /// Takes the next record and gives what stays of it to `emit`.
    #[inline]
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        emit: &mut impl Emit,
    ) -> Result<()> {
        let stripe = self.retention.stripe(trailer.sequence());
        if self.stripe.is_some() && key == self.key.as_slice() {
            if self.stripe == Some(stripe) {
                if self.chain.is_empty() {
                    return Ok(());
                }
                return self.push_below_operands(trailer, value, stripe, emit);
            }
            if !self.chain.is_empty() {
                self.end_stripe(trailer.sequence(), emit)?;
            }
        } else {
            if !self.chain.is_empty() {
                self.end_key(emit)?;
            }
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.stripe = Some(stripe);
        if self.is_covered(key, trailer, stripe) {
            return Ok(());
        }
        match trailer.kind() {
            Some(ValueKind::Put | ValueKind::ValuePointer) => {
                self.emit_value(key, trailer, value, stripe, emit)
            }
            Some(ValueKind::Delete) if self.hides_nothing(stripe) => Ok(()),
            Some(ValueKind::PutExpiring) => self.push_expiring(key, trailer, value, stripe, emit),
            Some(ValueKind::Merge) => {
                self.chain.push(trailer, value);
                Ok(())
            }
            _ => emit(key, trailer, value),
        }
    }

    /// After the last record: gives what was held back to `emit`.
    pub(crate) fn finish(mut self, emit: &mut impl Emit) -> Result<()> {
        if self.chain.is_empty() { Ok(()) } else { self.end_key(emit) }
    }

    /// The next older version in the stripe of operands.
    #[inline(never)]
    fn push_below_operands(
        &mut self,
        trailer: Trailer,
        value: &[u8],
        stripe: usize,
        emit: &mut impl Emit,
    ) -> Result<()> {
        if self.is_covered(&self.key, trailer, stripe) {
            return self.end_chain(Base::Nothing, stripe, emit);
        }
        match trailer.kind() {
            Some(ValueKind::Merge) => {
                self.chain.push(trailer, value);
                Ok(())
            }
            Some(ValueKind::PutExpiring) if expiry::alive(value, self.retention.now)?.is_none() => {
                let gone = Trailer::new(trailer.sequence(), ValueKind::Delete);
                self.end_chain(Base::Version(gone, &[]), stripe, emit)
            }
            _ => self.end_chain(Base::Version(trailer, value), stripe, emit),
        }
    }

    /// The next version, number `older`, belongs to another stripe than the operands.
    fn end_stripe(&mut self, older: Sequence, emit: &mut impl Emit) -> Result<()> {
        let deleted = self.tombstone_below_operands().is_some_and(|tombstone| tombstone > older);
        let base = if deleted { Base::Nothing } else { Base::Unknown };
        self.end_chain(base, self.stripe.unwrap_or_default(), emit)
    }

    /// There is no older version of the key among the records.
    fn end_key(&mut self, emit: &mut impl Emit) -> Result<()> {
        let deleted = self.retention.bottommost || self.tombstone_below_operands().is_some();
        let base = if deleted { Base::Nothing } else { Base::Unknown };
        self.end_chain(base, self.stripe.unwrap_or_default(), emit)
    }

    /// The newest range tombstone that is older than all of the operands.
    fn tombstone_below_operands(&self) -> Option<Sequence> {
        self.tombstones.newest_covering(&self.key, self.chain.oldest()?.sequence())
    }

    /// Gives what the operands amount to, together with what they apply to, to `emit`: a value if that can be known. If the operator
    /// fails or is not there, everything stays, and whoever reads the key is told.
    fn end_chain(&mut self, base: Base<'_>, stripe: usize, emit: &mut impl Emit) -> Result<()> {
        let chain = std::mem::take(&mut self.chain);
        let key = std::mem::take(&mut self.key);
        let newest = chain.newest().unwrap_or(Trailer::OLDEST);
        let value = match base {
            Base::Version(trailer, value) => match trailer.kind() {
                Some(ValueKind::ValuePointer) => {
                    let value = self.retention.rules.values.read(value)?;
                    let value = Some(value.as_slice());
                    Some(self.retention.rules.merge(&key, value, &chain))
                }
                Some(ValueKind::Put) => Some(self.retention.rules.merge(&key, Some(value), &chain)),
                Some(ValueKind::Delete) => Some(self.retention.rules.merge(&key, None, &chain)),
                // What is merged onto a value that expires would have no time of its own.
                _ => None,
            },
            Base::Nothing => Some(self.retention.rules.merge(&key, None, &chain)),
            Base::Unknown => None,
        };
        if let Some(Ok(value)) = value {
            let trailer = Trailer::new(newest.sequence(), ValueKind::Put);
            self.emit_value(&key, trailer, &value, stripe, emit)?;
        } else {
            let chain = self.retention.rules.combine(&key, chain);
            chain.iter().try_for_each(|(trailer, operand)| emit(&key, trailer, operand))?;
            if let Base::Version(trailer, value) = base {
                emit(&key, trailer, value)?;
            }
        }
        self.key = key;
        Ok(())
    }

    /// A value that has expired becomes a delete, so that it goes on hiding older versions, whatever the clock will say later.
    #[inline(never)]
    fn push_expiring(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        stripe: usize,
        emit: &mut impl Emit,
    ) -> Result<()> {
        if expiry::alive(value, self.retention.now)?.is_some() {
            self.emit_value(key, trailer, value, stripe, emit)
        } else if self.hides_nothing(stripe) {
            Ok(())
        } else {
            emit(key, Trailer::new(trailer.sequence(), ValueKind::Delete), &[])
        }
    }

    /// A value stays, unless the compaction filter wants something else.
    #[inline]
    fn emit_value(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        stripe: usize,
        emit: &mut impl Emit,
    ) -> Result<()> {
        if trailer.sequence() >= self.retention.filtered_from {
            return self.emit_filtered(key, trailer, value, stripe, emit);
        }
        emit(key, self.settled(trailer, stripe), value)
    }

    #[inline(never)]
    fn emit_filtered(
        &mut self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        stripe: usize,
        emit: &mut impl Emit,
    ) -> Result<()> {
        let head = if trailer.kind() == Some(ValueKind::PutExpiring) { EXPIRY_BYTES } else { 0 };
        let (when, mut own) = value.split_at_checked(head).unwrap_or_default();
        let separated = trailer.kind() == Some(ValueKind::ValuePointer);
        let read;
        if separated && self.filter_of(key).is_some() {
            read = self.retention.rules.values.read(value)?;
            own = read.as_slice();
        }
        let decision = match self.filter_of(key) {
            Some(filter) => decide(filter, key, own),
            None => FilterDecision::Keep,
        };
        match decision {
            FilterDecision::Keep => emit(key, self.settled(trailer, stripe), value),
            FilterDecision::Change(changed) if separated => {
                let trailer = Trailer::new(trailer.sequence(), ValueKind::Put);
                emit(key, self.settled(trailer, stripe), &changed)
            }
            FilterDecision::Change(changed) => {
                emit(key, self.settled(trailer, stripe), &[when, &changed].concat())
            }
            FilterDecision::Remove if self.hides_nothing(stripe) => Ok(()),
            FilterDecision::Remove => {
                emit(key, Trailer::new(trailer.sequence(), ValueKind::Delete), &[])
            }
        }
    }

    fn filter_of(&mut self, key: &[u8]) -> Option<&dyn CompactionFilter> {
        let keyspace = KeyspaceId::of(key).unwrap_or(KeyspaceId::DEFAULT);
        if self.filter.as_ref().is_none_or(|(known, _)| *known != keyspace) {
            self.filter = Some((keyspace, self.retention.rules.of(keyspace).filter));
        }
        self.filter.as_ref().and_then(|(_, filter)| filter.as_deref())
    }

    /// True if nothing older than this stripe's version is left anywhere.
    #[inline]
    fn hides_nothing(&self, stripe: usize) -> bool {
        self.retention.bottommost && stripe == 0
    }

    /// The trailer to keep a value with.
    #[inline]
    fn settled(&self, trailer: Trailer, stripe: usize) -> Trailer {
        match trailer.kind() {
            Some(kind) if self.hides_nothing(stripe) => Trailer::new(0, kind),
            _ => trailer,
        }
    }

    fn is_covered(&self, key: &[u8], trailer: Trailer, stripe: usize) -> bool {
        !self.tombstones.is_empty()
            && self
                .tombstones
                .newest_covering(key, self.retention.stripe_end(stripe))
                .is_some_and(|tombstone| tombstone > trailer.sequence())
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;

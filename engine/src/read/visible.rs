//! From all versions to what one reader sees.
//!
//! Going forward, the merge stands *on* the record shown, so key and value are slices of it. Going backward, versions of a key
//! arrive oldest first, so the newest visible one is mostly known when the merge has left the key: then key and value are copies, and the
//! merge stands before the key. Where the merge can tell that a record is the newest of its key, it stands on it as well.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::compaction::read_cost::ReadCost;
use crate::cursor::{Cursor as _, Standing};
use crate::error::Result;
use crate::key::{Sequence, Trailer, ValueKind, hash_key, head_of};
use crate::kinds::expiry::{self, EXPIRY_BYTES};
use crate::kinds::operator::Chain;
use crate::kinds::{Rules, unknown_kind};
use crate::memtable::Memtable;
use crate::range_tombstones::RangeTombstones;
use crate::read::get::is_plain;
use crate::read::merge::MergeCursor;
use crate::read::observed::Observed;
use crate::read::overlay::{Base, OWN, Overlay, OverlayCursor, OwnWrite};
use crate::read::source::{RunCursor, Source};
use crate::read::view::View;
use crate::sstable::Table;
use crate::values::PinnedRange;

/// After this many versions of one key, seek past the rest instead of stepping.
const STEPS_BEFORE_SEEK: u32 = 16;

/// Room for the sources of a short scan after compaction: a memtable and a level. They are large, and growing copies them.
const SOURCES_USUAL: usize = 2;

/// A range of full keys: inclusive start, exclusive end.
#[derive(Debug, Clone)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not positioned, or past an end.
    Invalid,
    /// The merge stands on the record.
    On,
    /// The record is in the buffers; the merge stands before it.
    Before,
    /// The record is in the buffers; the merge stands on it, or on an older version of its key, or behind the key.
    Behind,
}

/// A cursor over the visible records of a range.
pub(crate) struct VisibleCursor {
    merge: MergeCursor,
    snapshot: Sequence,
    tombstones: Arc<RangeTombstones>,
    /// What the reading transaction has written itself.
    own: Option<Arc<Overlay>>,
    /// Who wants to know what was read.
    observed: Option<Arc<Observed>>,
    rules: Arc<Rules>,
    /// Who is told what level 0 costs, if it costs anything.
    read_cost: Option<Arc<ReadCost>>,
    level0_runs: usize,
    seeks: u64,
    range: KeyRange,
    /// The first bytes of the range's bounds, as [`head_of`] puts them.
    start_head: u64,
    end_head: u64,
    state: State,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The value instead, if it is a separated one: that is not copied.
    separated: Option<PinnedRange>,
    /// Whether what was put into the buffers last is a value that expires.
    expiring: bool,
}

impl VisibleCursor {
    /// A cursor over `range` of `view` at `snapshot`. Not positioned.
    pub(crate) fn new(view: &View, snapshot: Sequence, range: KeyRange) -> Self {
        Self::over(view, snapshot, range, |_| true, |_| true)
    }

    /// A cursor over the keys with one stem, which is the start of `range`: passes over memtables and tables whose filters deny it. Not
    /// positioned.
    pub(crate) fn with_stem(view: &View, snapshot: Sequence, range: KeyRange) -> Self {
        let stem = range.start.clone();
        let hash = hash_key(&stem);
        Self::over(
            view,
            snapshot,
            range,
            |memtable| memtable.may_contain_stem(&stem, hash),
            |table| table.may_contain_stem(hash),
        )
    }

    /// A cursor that need not read memtables and tables that are not `wanted`; of them, range tombstones count all the same.
    fn over(
        view: &View,
        snapshot: Sequence,
        range: KeyRange,
        wanted_memtable: impl Fn(&Memtable) -> bool,
        wanted: impl Fn(&Table) -> bool,
    ) -> Self {
        let mut sources = Vec::with_capacity(SOURCES_USUAL);
        for memtable in view.memtables() {
            if !memtable.is_empty() && wanted_memtable(memtable) {
                sources.push(Source::Memtable(memtable.cursor()));
            }
        }
        let mut level0_runs = 0;
        for (index, run) in view.version.sources().enumerate() {
            let tables = run.overlapping(Some(&range.start), Some(&range.end));
            if tables.iter().any(|handle| wanted(&handle.table)) {
                sources.push(Source::Run(RunCursor::new(Arc::clone(run))));
                level0_runs += usize::from(index < view.version.l0().len());
            }
        }
        Self {
            read_cost: (level0_runs > 0).then(|| Arc::clone(&view.read_cost)),
            level0_runs,
            seeks: 0,
            merge: MergeCursor::new(sources),
            snapshot,
            tombstones: view.range_tombstones(),
            own: None,
            observed: None,
            rules: Arc::clone(&view.rules),
            start_head: head_of(&range.start),
            end_head: head_of(&range.end),
            range,
            state: State::Invalid,
            key: Vec::new(),
            value: Vec::new(),
            separated: None,
            expiring: false,
        }
    }

    /// The cursor with a transaction's own writes on top, which reports what it reads.
    pub(crate) fn for_transaction(
        mut self,
        own: &Arc<Overlay>,
        observed: Option<&Arc<Observed>>,
    ) -> Self {
        self.observed = observed.cloned();
        if !own.is_empty() {
            self.merge.push(Source::Overlay(OverlayCursor::new(Arc::clone(own))));
            self.own = Some(Arc::clone(own));
        }
        self
    }

    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.state != State::Invalid
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match self.state {
            State::On => self.merge.key(),
            _ => &self.key,
        }
    }

    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match self.state {
            State::On => self.merge.value(),
            _ => self.separated.as_ref().map_or(&self.value, PinnedRange::as_slice),
        }
    }

    /// Whether the record is a value that expires, for a cursor that goes forward.
    pub(crate) fn expires(&self) -> bool {
        self.state == State::Behind && self.expiring
    }

    fn begin_seek(&mut self) {
        self.state = State::Invalid;
        self.seeks += 1;
    }

    pub(crate) fn seek_to_first(&mut self) -> Result<()> {
        self.begin_seek();
        self.merge.seek(&self.range.start, Trailer::NEWEST)?;
        self.find_forward(false)?;
        self.observe_from(&self.range.start);
        Ok(())
    }

    pub(crate) fn seek_to_last(&mut self) -> Result<()> {
        self.begin_seek();
        self.merge.seek_before(&self.range.end, Trailer::NEWEST)?;
        self.find_backward()?;
        self.observe_to(&self.range.end);
        Ok(())
    }

    /// To the first record with a key at or after `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        if key <= self.range.start.as_slice() {
            return self.seek_to_first();
        }
        self.begin_seek();
        self.merge.seek(key, Trailer::NEWEST)?;
        self.find_forward(false)?;
        self.observe_from(key);
        Ok(())
    }

    /// To the last record with a key before `key`.
    pub(crate) fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        if key >= self.range.end.as_slice() {
            return self.seek_to_last();
        }
        self.begin_seek();
        self.merge.seek_before(key, Trailer::NEWEST)?;
        self.find_backward()?;
        self.observe_to(key);
        Ok(())
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<()> {
        if self.observed.is_some() && self.valid() {
            return self.observed_move(Self::next_unobserved, Self::observe_from);
        }
        self.next_unobserved()
    }

    #[inline]
    pub(crate) fn prev(&mut self) -> Result<()> {
        if self.observed.is_some() && self.valid() {
            return self.observed_move(Self::prev_unobserved, Self::observe_to);
        }
        self.prev_unobserved()
    }

    /// Moves on, and reports everything from where the cursor stood to where it stands.
    fn observed_move(
        &mut self,
        go: impl FnOnce(&mut Self) -> Result<()>,
        observe: impl FnOnce(&Self, &[u8]),
    ) -> Result<()> {
        let from = self.key().to_vec();
        go(self)?;
        observe(self, &from);
        Ok(())
    }

    /// Reports that there is nothing between `from` and where the cursor stands, behind it.
    fn observe_from(&self, from: &[u8]) {
        let Some(observed) = &self.observed else { return };
        if self.valid() {
            observed.range(from, &[self.key(), &[0]].concat());
        } else {
            observed.range(from, &self.range.end);
        }
    }

    /// Reports that there is nothing between where the cursor stands and `to`, before which it has searched.
    fn observe_to(&self, to: &[u8]) {
        let Some(observed) = &self.observed else { return };
        observed.range(if self.valid() { self.key() } else { &self.range.start }, to);
    }

    #[inline(always)]
    fn next_unobserved(&mut self) -> Result<()> {
        let left = std::mem::replace(&mut self.state, State::Invalid);
        // Mostly it is here.
        if left == State::On {
            self.merge.next()?;
            return self.find_forward(true);
        }
        if left == State::Invalid {
            return Ok(());
        }
        if left == State::Before {
            self.merge.seek(&self.key, Trailer::NEWEST)?;
        }
        self.leave_key()?;
        self.find_forward(false)
    }

    #[inline(always)]
    fn prev_unobserved(&mut self) -> Result<()> {
        match self.state {
            State::Invalid => return Ok(()),
            // Whoever came here backward stands on the newest version.
            State::On if self.merge.goes_backward() => {
                self.state = State::Invalid;
                self.merge.prev()?;
            }
            State::On => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.state = State::Invalid;
                self.merge.seek_before(&self.key, Trailer::NEWEST)?;
            }
            State::Behind => {
                self.state = State::Invalid;
                self.merge.seek_before(&self.key, Trailer::NEWEST)?;
            }
            State::Before => self.state = State::Invalid,
        }
        self.find_backward()
    }

    /// Moves the merge behind the key in the buffer, at which it stands or behind which it is.
    fn leave_key(&mut self) -> Result<()> {
        let mut steps = 0;
        while self.merge.valid() && self.merge.key() == self.key.as_slice() {
            steps += 1;
            if steps == STEPS_BEFORE_SEEK {
                // At most one more version, the one with the smallest trailer, can follow.
                self.merge.seek(&self.key, Trailer::OLDEST)?;
            } else {
                self.merge.next()?;
            }
        }
        Ok(())
    }

    /// From the merge's position on, the first visible record. `skipping`: the merge has just moved, and versions of the key that it
    /// stood on are done with.
    #[inline]
    fn find_forward(&mut self, mut skipping: bool) -> Result<()> {
        while let Some(Standing { trailer, repeats }) = self.merge.standing() {
            if skipping && repeats {
                self.key.clear();
                self.key.extend_from_slice(self.merge.key());
                self.leave_key()?;
                skipping = false;
                continue;
            }
            skipping = false;
            let key = self.merge.key();
            if !is_before(key, &self.range.end, self.end_head) {
                return Ok(());
            }
            if !self.sees(trailer) {
                self.merge.next()?;
                continue;
            }
            let live = trailer.kind() != Some(ValueKind::Delete) && !self.is_covered(key, trailer);
            if live && is_plain(trailer) {
                self.state = State::On;
                return Ok(());
            }
            if !live {
                skipping = true;
                self.merge.next()?;
                continue;
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            if self.understand_forward(trailer)? {
                self.state = State::Behind;
                return Ok(());
            }
            self.leave_key()?;
        }
        Ok(())
    }

    /// From the merge's position back, the last visible record.
    #[inline(always)]
    fn find_backward(&mut self) -> Result<()> {
        while self.merge.valid() {
            if is_before(self.merge.key(), &self.range.start, self.start_head) {
                return Ok(());
            }
            if self.stands_on_newest() {
                self.state = State::On;
                return Ok(());
            }
            if self.find_newest_backward()? {
                self.state = State::Before;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the merge, which goes backward, can tell that it stands on the newest version of a key, and that is a visible value.
    #[inline(always)]
    fn stands_on_newest(&self) -> bool {
        let trailer = self.merge.trailer();
        self.merge.is_surely_newest()
            && is_plain(trailer)
            && self.sees(trailer)
            && !self.is_covered(self.merge.key(), trailer)
    }

    /// Moves the merge before the key that it stands on, and puts key and value of its newest visible version into the buffers. False if
    /// there is no value.
    #[inline(never)]
    fn find_newest_backward(&mut self) -> Result<bool> {
        self.key.clear();
        self.key.extend_from_slice(self.merge.key());
        self.separated = None;
        let mut newest = None;
        while self.merge.valid() && self.merge.key() == self.key.as_slice() {
            let trailer = self.merge.trailer();
            if self.sees(trailer) {
                newest = Some(trailer);
                if trailer.kind() != Some(ValueKind::Delete) {
                    self.value.clear();
                    self.value.extend_from_slice(self.merge.value());
                }
            }
            self.merge.prev()?;
        }
        let Some(trailer) = newest else { return Ok(false) };
        Ok(trailer.kind() != Some(ValueKind::Delete)
            && !self.is_covered(&self.key, trailer)
            && (is_plain(trailer) || self.understand_backward(trailer)?))
    }

    /// Committed before the snapshot, or the transaction's own.
    #[inline]
    fn sees(&self, trailer: Trailer) -> bool {
        trailer.sequence() <= self.snapshot || trailer.sequence() == OWN
    }

    /// The merge stands on a record that is neither a plain put nor a delete, and its key is in the buffer: puts the value that it
    /// amounts to into the buffer. False if that is none.
    #[cold]
    fn understand_forward(&mut self, trailer: Trailer) -> Result<bool> {
        self.expiring = trailer.kind() == Some(ValueKind::PutExpiring);
        self.separated = None;
        if trailer.kind() == Some(ValueKind::Merge) {
            return self.merge_operands().map(|()| true);
        }
        self.value.clear();
        self.value.extend_from_slice(self.merge.value());
        self.understand_buffered(trailer)
    }

    /// The same, after the merge has left the key backwards; the newest visible record's value is in the buffer.
    #[cold]
    fn understand_backward(&mut self, trailer: Trailer) -> Result<bool> {
        if trailer.kind() != Some(ValueKind::Merge) {
            return self.understand_buffered(trailer);
        }
        self.merge.seek(&self.key, Trailer::seek(trailer.sequence()))?;
        self.merge_operands()?;
        self.merge.seek_before(&self.key, Trailer::NEWEST)?;
        Ok(true)
    }

    fn understand_buffered(&mut self, trailer: Trailer) -> Result<bool> {
        match trailer.kind() {
            Some(ValueKind::PutExpiring) => {
                let alive = expiry::alive(&self.value, self.rules.now())?.is_some();
                self.value.drain(..EXPIRY_BYTES);
                Ok(alive)
            }
            Some(ValueKind::ValuePointer) => {
                self.separated = Some(self.rules.values.read(&self.value)?);
                Ok(true)
            }
            _ => Err(unknown_kind(trailer)),
        }
    }

    /// From the newest visible version of the key on, which is an operand: collects operands down to what they apply to.
    fn merge_operands(&mut self) -> Result<()> {
        let mut chain = Chain::default();
        let mut base = None;
        while self.merge.valid() && self.merge.key() == self.key.as_slice() {
            let trailer = self.merge.trailer();
            if trailer.sequence() == OWN {
                if let Some(own) = self.own_operands(&mut chain) {
                    base = own;
                    break;
                }
                self.merge.next()?;
                continue;
            }
            if !self.sees(trailer) {
                self.merge.next()?;
                continue;
            }
            if self.is_covered(&self.key, trailer) {
                break;
            }
            if let ControlFlow::Break(found) =
                chain.take(trailer, self.merge.value(), &self.rules)?
            {
                base = found;
                break;
            }
            self.merge.next()?;
        }
        self.value = self.rules.merge(&self.key, base.as_deref(), &chain)?;
        Ok(())
    }

    /// Adds the operands of the transaction itself, and gives what they apply to, if that is its own too.
    fn own_operands(&self, chain: &mut Chain) -> Option<Option<Vec<u8>>> {
        let OwnWrite::Merge(operands) = self.own.as_ref()?.get(&self.key)? else { return None };
        operands.push_to(chain);
        match &operands.base {
            Base::Committed => None,
            Base::Own(base) => Some(base.as_ref().map(|base| base.to_vec())),
        }
    }

    #[inline(always)]
    fn is_covered(&self, key: &[u8], trailer: Trailer) -> bool {
        // Mostly there is nothing that could cover it.
        (self.own.is_some() || !self.tombstones.is_empty()) && self.has_cover(key, trailer)
    }

    #[inline(never)]
    fn has_cover(&self, key: &[u8], trailer: Trailer) -> bool {
        if let Some(own) = &self.own
            && trailer.sequence() != OWN
            && own.ranges.contains(key)
        {
            return true;
        }
        self.tombstones
            .newest_covering(key, self.snapshot)
            .is_some_and(|tombstone| tombstone > trailer.sequence())
    }
}

impl Drop for VisibleCursor {
    fn drop(&mut self) {
        if let Some(cost) = &self.read_cost {
            cost.walked(self.level0_runs, self.seeks, self.merge.take_switches());
        }
    }
}

/// Whether a key is before a bound with this head. Mostly a comparison of numbers decides.
#[inline]
fn is_before(key: &[u8], bound: &[u8], bound_head: u64) -> bool {
    match head_of(key).cmp(&bound_head) {
        Ordering::Less => true,
        Ordering::Equal => key < bound,
        Ordering::Greater => false,
    }
}

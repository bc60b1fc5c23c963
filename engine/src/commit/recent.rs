//! Which keys the newest commits wrote, so that a transaction can be checked before it gets its place.
//!
//! Sources answer that question for everything that is visible, but not for commits that have their place and are not applied yet. So,
//! once the first transaction has begun, each commit leaves a *footprint* here under the commit lock: its keys and deleted ranges,
//! without values. Footprints stay at least until they are visible, and usually for longer, because checking a short transaction
//! against a few footprints is cheaper than asking the sources.
//!
//! ```text
//!   sequence numbers ->   ...... begin ================= visible ======= last
//!   answered by           sources | footprints and sources | footprints only
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::batch::{Records, WriteBatch};
use crate::error::Result;
use crate::key::{Sequence, ValueKind};

/// Room for a key and its length that is mostly enough.
const KEY_BYTES_USUAL: usize = 64;

/// Room for the keys of a small commit, so that an entry of the queue takes two cache lines.
const INLINE_BYTES: usize = 110;

/// Bookkeeping of one footprint, in bytes.
const OVERHEAD_BYTES: usize = 128;

/// So many of the newest footprints are looked at one after the other before all are searched.
const NEWEST_LOOKED_AT: usize = 16;

/// Which keys a commit wrote.
#[derive(Debug, Clone)]
pub(crate) enum Footprint {
    /// Few and short ones, which the queue holds itself: memory that one thread allocates and another frees is dear for both.
    Short(Inline),
    Long(Arc<Written>),
}

/// Keys in place, each behind its length as one byte.
#[derive(Debug, Clone)]
pub(crate) struct Inline {
    len: u8,
    bytes: [u8; INLINE_BYTES],
}

/// Any number of keys, and ranges.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Each full key behind its length as four bytes.
    keys: Vec<u8>,
    /// Ranges that were deleted or ingested: inclusive start, exclusive end.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Inline {
    /// The keys of a batch that has nothing else, if they fit.
    fn of(batch: &WriteBatch) -> Option<Self> {
        let mut inline = Self { len: 0, bytes: [0; INLINE_BYTES] };
        for record in Records::new(batch.bytes()).flatten() {
            if record.kind == ValueKind::RangeDelete {
                return None;
            }
            let begin = usize::from(inline.len);
            let end = begin + 1 + record.key.len();
            let [length, key @ ..] = inline.bytes.get_mut(begin..end)? else { return None };
            // A key that fits has less than 256 bytes, and so have all of them.
            *length = record.key.len() as u8;
            key.copy_from_slice(record.key);
            inline.len = end as u8;
        }
        Some(inline)
    }
}

impl Footprint {
    /// Of a batch.
    pub(crate) fn of(batch: &WriteBatch) -> Self {
        if let Some(inline) = Inline::of(batch) {
            return Self::Short(inline);
        }
        let room = batch.size_bytes().min(batch.len() * KEY_BYTES_USUAL);
        let mut written = Written { keys: Vec::with_capacity(room), ranges: Vec::new() };
        for record in Records::new(batch.bytes()).flatten() {
            if record.kind == ValueKind::RangeDelete {
                written.ranges.push((record.key.to_vec(), record.value.to_vec()));
            } else {
                written.keys.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
                written.keys.extend_from_slice(record.key);
            }
        }
        Self::Long(Arc::new(written))
    }

    /// Of a commit that may have written any key of these ranges: inclusive start, exclusive end.
    pub(crate) fn of_ranges(ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self::Long(Arc::new(Written { keys: Vec::new(), ranges }))
    }

    /// The keys written.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (mut rest, length_bytes) = match self {
            Self::Short(inline) => (inline.bytes.get(..inline.len.into()).unwrap_or_default(), 1),
            Self::Long(written) => (written.keys.as_slice(), size_of::<u32>()),
        };
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_at_checked(length_bytes)?;
            let length =
                length.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
            let (key, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(key)
        })
    }

    /// The ranges deleted or ingested.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let ranges: &[_] = match self {
            Self::Short(_) => &[],
            Self::Long(written) => &written.ranges,
        };
        ranges.iter().map(|(start, end)| (start.as_slice(), end.as_slice()))
    }

    fn bytes(&self) -> usize {
        let Self::Long(written) = self else { return size_of::<RecentWrite>() };
        let ranges = written.ranges.iter().map(|(start, end)| start.len() + end.len());
        written.keys.len() + ranges.sum::<usize>() + OVERHEAD_BYTES
    }
}

/// A footprint and the last sequence number of its commit.
#[derive(Debug, Clone)]
pub(crate) struct RecentWrite {
    pub(crate) last: Sequence,
    pub(crate) footprint: Footprint,
    /// What it takes, known without a look at what may not be in the processor's cache any more.
    bytes: usize,
}

/// Footprints of the newest commits, oldest first. Lives under the commit lock.
#[derive(Debug)]
pub(crate) struct RecentWrites {
    /// Every write after this one is here.
    after: Sequence,
    /// The newest write.
    last: Sequence,
    writes: VecDeque<RecentWrite>,
    bytes: usize,
    /// Footprints of visible commits are forgotten, oldest first, when all together are larger.
    bytes_max: usize,
    /// Nothing after one of these is forgotten while its owner lives.
    pins: Vec<Weak<Sequence>>,
}

impl RecentWrites {
    /// No footprints, of a database whose newest write is `last`.
    pub(crate) fn new(last: Sequence, bytes_max: usize) -> Self {
        Self { after: last, last, writes: VecDeque::new(), bytes: 0, bytes_max, pins: Vec::new() }
    }

    /// The newest write.
    pub(crate) fn last(&self) -> Sequence {
        self.last
    }

    /// Adds the footprint of a commit that has just got its place, and forgets old ones that are `visible`. Gives one of them, usually
    /// the only one, to be freed when the lock is not held any more.
    pub(crate) fn add(
        &mut self,
        last: Sequence,
        footprint: Footprint,
        visible: Sequence,
    ) -> Option<RecentWrite> {
        let bytes = footprint.bytes();
        self.bytes += bytes;
        self.last = last;
        self.writes.push_back(RecentWrite { last, footprint, bytes });
        (self.bytes > self.bytes_max).then(|| self.forget(visible)).flatten()
    }

    fn forget(&mut self, visible: Sequence) -> Option<RecentWrite> {
        let mut forgotten = None;
        self.pins.retain(|pin| pin.strong_count() > 0);
        let pinned = self.pins.iter().filter_map(Weak::upgrade).map(|pin| *pin).min();
        let keep_after = visible.min(pinned.unwrap_or(visible));
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.writes.front()
            && oldest.last <= keep_after
        {
            self.bytes -= oldest.bytes;
            self.after = oldest.last;
            forgotten = self.writes.pop_front();
        }
        forgotten
    }

    /// Every write after `since`, oldest first; `None` if some are forgotten.
    pub(crate) fn after(&self, since: Sequence) -> Option<impl Iterator<Item = &RecentWrite>> {
        // From the end: transactions are short, so that few commits are newer than a snapshot.
        let older = |write: &RecentWrite| write.last <= since;
        let newer =
            self.writes.iter().rev().take(NEWEST_LOOKED_AT).take_while(|write| !older(write));
        let begin = match newer.count() {
            NEWEST_LOOKED_AT => self.writes.partition_point(older),
            count => self.writes.len() - count,
        };
        (since >= self.after).then(|| self.writes.range(begin..))
    }

    /// Keeps every write after `since`, which is visible, until the pin is dropped.
    pub(crate) fn pin(&mut self, since: Sequence) -> Arc<Sequence> {
        let pin = Arc::new(since);
        self.pins.push(Arc::downgrade(&pin));
        pin
    }
}

/// A condition of a commit, to be met at the moment when it gets its place among all others.
pub(crate) trait CommitCheck {
    /// Decides, under the commit lock, from what was written lately.
    ///
    /// # Errors
    /// If the commit must not happen.
    fn admit(&mut self, recent: &mut RecentWrites, visible: Sequence) -> Result<Admission>;

    /// Does, without the lock, what is too much for [`admit`](Self::admit) to do under it.
    ///
    /// # Errors
    /// If the commit must not happen, or sources cannot be read.
    fn catch_up(&mut self) -> Result<()>;
}

/// What a [`CommitCheck`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The commit may have the next place.
    Granted,
    /// Call `catch_up` without the lock, then ask again.
    CatchUpFirst,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(key: &str) -> Footprint {
        let mut batch = WriteBatch::new();
        batch.put(key, "value").delete("gone").delete_range("from", "to");
        Footprint::of(&batch)
    }

    #[test]
    fn a_footprint_holds_all_keys_and_ranges_of_a_batch() {
        let footprint = footprint("k");
        let keys: Vec<_> = footprint.keys().collect();
        assert_eq!(keys, [&b"\0\0\0\0k"[..], b"\0\0\0\0gone"]);
        let ranges: Vec<_> = footprint.ranges().collect();
        assert_eq!(ranges, [(&b"\0\0\0\0from"[..], &b"\0\0\0\0to"[..])]);
        assert_eq!(Footprint::of(&WriteBatch::new()).keys().count(), 0);
    }

    #[test]
    fn keys_are_the_same_whether_they_fit_or_not() {
        for length in [1, 50, 51, 104, 105, 106, 107, 250, 251, 252, 300] {
            let keys = ["x".repeat(length), "y".repeat(length.min(51)), "z".to_owned()];
            for count in 1..=keys.len() {
                let mut batch = WriteBatch::new();
                for key in &keys[..count] {
                    batch.put(key, "value");
                }
                let footprint = Footprint::of(&batch);
                let fits = keys[..count].iter().map(|key| 5 + key.len()).sum::<usize>();
                assert_eq!(matches!(footprint, Footprint::Short(_)), fits <= INLINE_BYTES);
                let found: Vec<_> = footprint.keys().map(|key| key[4..].to_vec()).collect();
                assert!(found.iter().eq(keys[..count].iter().map(String::as_bytes)), "{length}");
                assert_eq!(footprint.ranges().count(), 0);
            }
        }
        assert_eq!(size_of::<RecentWrite>(), 128);
    }

    #[test]
    fn only_visible_unpinned_footprints_are_forgotten() {
        let long = "x".repeat(60_000);
        let mut recent = RecentWrites::new(10, 1 << 20);
        assert!(recent.after(9).is_none(), "what was written before is not here");
        assert_eq!(recent.after(10).unwrap().count(), 0);
        for last in 11..=40 {
            recent.add(last, footprint(&long), 10);
        }
        assert_eq!(recent.after(10).unwrap().count(), 30, "nothing of it is visible");
        let pin = recent.pin(20);
        recent.add(41, footprint(&long), 41);
        assert!(recent.after(19).is_none());
        assert_eq!(recent.after(20).unwrap().count(), 21, "pinned");
        drop(pin);
        recent.add(42, footprint(&long), 41);
        assert!(recent.after(20).is_none());
        assert!(recent.bytes <= 1 << 20);
        assert_eq!(recent.after(41).unwrap().map(|write| write.last).collect::<Vec<_>>(), [42]);
        assert_eq!(recent.last(), 42);
    }
}

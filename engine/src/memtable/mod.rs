//! The part of the tree that is still in memory: every write goes here after the log, until a flush
//! makes a table of it.
//!
//! Guarantees: any number of threads insert and read at once; a record is complete when it can be
//! found and stays until the memtable is dropped; a reader that knows (through the visible sequence
//! number) that a write was applied finds it. Point records live in an arena skiplist
//! ([`skiplist`], [`arena`]), with a filter of their keys ([`presence`]) and of the stems of index entries ([`stems`]); range
//! tombstones, which are few, beside it.

pub(crate) mod approaches;
#[allow(unsafe_code, reason = "owns raw memory and hands out addresses in it")]
pub(crate) mod arena;
mod cursor;
pub(crate) mod fences;
pub(crate) mod link;
#[allow(unsafe_code, reason = "owns memory that comes straight from the system")]
mod pages;
pub(crate) mod pending;
mod presence;
#[allow(unsafe_code, reason = "lays nodes out in the arena and reads them while others are linked")]
pub(crate) mod skiplist;
mod stems;
mod stock;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use self::approaches::{Approaches, NewRecord, Way};
pub(crate) use self::cursor::MemtableCursor;
use self::presence::{Presence, PresenceStock};
pub(crate) use self::skiplist::Splice;
use self::skiplist::{Approach, Position, SkipList, Unlinked};
use self::stems::StemKeyspaces;
use self::stock::ChunkStock;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Sequence, Trailer, hash_key};
use crate::manifest::KeyspaceDescriptor;
use crate::range_tombstones::RangeTombstones;

/// Where the value of a record of one certain memtable is.
pub(crate) type ValueSpan = Position;

/// Range tombstones are looked at one by one until so many are new, and cut into fragments then.
const LOOSE_TOMBSTONES_MAX: usize = 16;

/// A memtable. Shared as `Arc<Memtable>`.
pub(crate) struct Memtable {
    list: SkipList,
    presence: Presence,
    stems: Arc<StemKeyspaces>,
    /// How many were added. Stored with release after the tombstone is there, loaded with acquire
    /// before looking: who sees the count of an add takes the lock and finds it. Readers of zero
    /// take no lock.
    tombstone_count: AtomicUsize,
    tombstone_bytes: AtomicUsize,
    tombstones: RwLock<Tombstones>,
    /// Set by whoever is told that upkeep is due, until it is done. Relaxed: it only keeps others
    /// from being told too.
    upkeep_asked: AtomicBool,
}

/// Makes the memtables of one database, which pass their memory on to one another.
///
/// A memtable takes allocations that are large enough to wait, in the kernel, for whoever touches new memory at that time. So the next
/// one is made before it is needed, by [`upkeep`](Self::upkeep).
pub(crate) struct MemtableMaker {
    memtable_bytes: usize,
    chunks: Arc<ChunkStock>,
    presences: Arc<PresenceStock>,
    stems: Arc<StemKeyspaces>,
    spare: Mutex<Option<Memtable>>,
}

impl MemtableMaker {
    /// For memtables that grow to about so many bytes.
    pub(crate) fn new(memtable_bytes: usize) -> Self {
        Self {
            memtable_bytes,
            chunks: Arc::new(ChunkStock::new(memtable_bytes)),
            presences: Arc::new(PresenceStock::new(memtable_bytes)),
            stems: Arc::new(StemKeyspaces::new()),
            spare: Mutex::default(),
        }
    }

    /// Takes note of a keyspace, before anything is written to it.
    pub(crate) fn learn(&self, keyspace: &KeyspaceDescriptor) {
        self.stems.learn(keyspace);
    }

    /// An empty memtable: the spare one, if there is one.
    pub(crate) fn make(&self) -> Result<Memtable> {
        let spare = self.lock_spare().take();
        spare.map_or_else(|| self.make_new(), Ok)
    }

    /// [`Memtable::upkeep`], and a spare memtable once this one is half full. Out of memory, there will be none.
    pub(crate) fn upkeep(&self, memtable: &Memtable) {
        memtable.upkeep();
        if memtable.memory_usage() >= self.memtable_bytes / 2 && self.lock_spare().is_none() {
            // Not under the lock, which writers take. Only one thread does upkeep.
            let made = self.make_new().ok();
            *self.lock_spare() = made;
        }
    }

    fn lock_spare(&self) -> MutexGuard<'_, Option<Memtable>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_new(&self) -> Result<Memtable> {
        Ok(Memtable {
            list: SkipList::new(Arc::clone(&self.chunks)).ok_or_else(no_room)?,
            presence: self.presences.take(),
            stems: Arc::clone(&self.stems),
            tombstone_count: AtomicUsize::new(0),
            tombstone_bytes: AtomicUsize::new(0),
            tombstones: RwLock::default(),
            upkeep_asked: AtomicBool::new(false),
        })
    }
}

/// All range tombstones. A few are loose; the others are in sets, each at least twice as large as
/// the next, so that adding `n` of them costs `n log n` and looking one up means few sets.
#[derive(Default)]
struct Tombstones {
    loose: Vec<(Vec<u8>, Vec<u8>, Sequence)>,
    sets: Vec<Arc<RangeTombstones>>,
}

impl Memtable {
    /// An empty memtable that passes its memory on to none.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn new(capacity_hint: usize) -> Result<Self> {
        MemtableMaker::new(capacity_hint).make()
    }

    /// Adds a point record. No other record of the memtable has the same key and trailer.
    ///
    /// Fails, changing nothing, when 32 GiB are full or the system has no memory left.
    #[inline]
    pub(crate) fn insert(
        &self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        splice: &mut Splice,
    ) -> Result<()> {
        self.add_stem(key);
        self.presence.add(hash_key(key));
        self.list.insert(key, trailer, value, splice).map_err(|_full| no_room())
    }

    /// As [`insert`](Self::insert), by the place that was found before if it was.
    #[inline]
    pub(crate) fn insert_approached(
        &self,
        record: NewRecord<'_>,
        splice: &mut Splice,
        approaches: &Approaches,
    ) -> Result<()> {
        match approaches.of(record.key) {
            Some(way) => self.insert_by(way, record, splice),
            None => self.insert(record.key, record.trailer, record.value, splice),
        }
    }

    #[inline(never)]
    fn insert_by(&self, way: &Way, record: NewRecord<'_>, splice: &mut Splice) -> Result<()> {
        let made = self.make(record)?;
        self.link(way.hash, made, splice, &way.place);
        Ok(())
    }

    /// Takes in a record that nobody finds before it is [linked](Self::link). Fails as [`insert`](Self::insert) does.
    fn make(&self, record: NewRecord<'_>) -> Result<Unlinked> {
        self.add_stem(record.key);
        self.list.make(record.key, record.trailer, record.value).map_err(|_full| no_room())
    }

    /// Makes a record be found, by the place that was searched if it was found; `hash` is that of the record's key.
    fn link(&self, hash: u64, made: Unlinked, splice: &mut Splice, place: &Approach) {
        self.presence.add(hash);
        self.list.link(made, splice, place);
    }

    /// Lets the filter know the stem of a record that will be found.
    #[inline]
    fn add_stem(&self, key: &[u8]) {
        if let Some(stem) = self.stems.stem_of(key) {
            self.presence.add(hash_key(stem));
        }
    }

    /// False if no point record's key has this stem, whose hash is `hash`.
    pub(crate) fn may_contain_stem(&self, stem: &[u8], hash: u64) -> bool {
        self.stems.stem_of(stem).is_none() || self.presence.may_contain(hash)
    }

    /// Begins to search the place of a record whose key has this hash.
    fn set_out(&self, key: &[u8], hash: u64, trailer: Trailer) -> Approach {
        self.presence.prefetch(hash);
        self.list.set_out(key, trailer)
    }

    /// Goes on with that by one move.
    #[inline]
    fn go_on(&self, key: &[u8], approach: &mut Approach) {
        self.list.go_on(key, approach);
    }

    /// Deletes all keys from `start` (inclusive) to `end` (exclusive) that are older than
    /// `sequence`.
    pub(crate) fn add_range_tombstone(&self, start: &[u8], end: &[u8], sequence: Sequence) {
        let bytes = size_of::<(Vec<u8>, Vec<u8>, Sequence)>() + start.len() + end.len();
        let mut tombstones = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
        tombstones.loose.push((start.to_vec(), end.to_vec(), sequence));
        if tombstones.loose.len() >= LOOSE_TOMBSTONES_MAX {
            tombstones.settle();
        }
        self.tombstone_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Inside the lock, so that the count never goes back.
        self.tombstone_count.fetch_add(1, Ordering::Release);
    }

    /// The newest version of `key`, whose hash is `hash`, that a reader at `snapshot` may see. Knows
    /// nothing of range tombstones.
    #[inline]
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        snapshot: Sequence,
    ) -> Option<(Trailer, ValueSpan)> {
        if !self.presence.may_contain(hash) {
            return None;
        }
        let span = self.list.seek_same_key(key, Trailer::seek(snapshot))?;
        Some((self.list.entry(span).trailer(), span))
    }

    /// The value that `get` of this same memtable found. Panics with a span of another one.
    #[inline]
    pub(crate) fn value(&self, span: ValueSpan) -> &[u8] {
        self.list.entry(span).value()
    }

    /// The newest range tombstone over `key` that a reader at `snapshot` may see. One load when
    /// there are none at all.
    #[inline(always)]
    pub(crate) fn newest_covering(&self, key: &[u8], snapshot: Sequence) -> Option<Sequence> {
        if self.range_tombstone_count() == 0 {
            return None;
        }
        self.search_tombstones(key, snapshot)
    }

    fn search_tombstones(&self, key: &[u8], snapshot: Sequence) -> Option<Sequence> {
        let tombstones = self.tombstones.read().unwrap_or_else(PoisonError::into_inner);
        let loose = tombstones.loose.iter().filter(|(start, end, sequence)| {
            *sequence <= snapshot && start.as_slice() <= key && key < end.as_slice()
        });
        let settled = tombstones.sets.iter().filter_map(|set| set.newest_covering(key, snapshot));
        loose.map(|(_, _, sequence)| *sequence).chain(settled).max()
    }

    /// All range tombstones, cut into fragments.
    ///
    /// Ask [`Memtable::range_tombstone_count`] first where speed matters: handing out an empty set
    /// takes the lock.
    pub(crate) fn range_tombstones(&self) -> Arc<RangeTombstones> {
        {
            let tombstones = self.tombstones.read().unwrap_or_else(PoisonError::into_inner);
            if let (true, [only]) = (tombstones.loose.is_empty(), tombstones.sets.as_slice()) {
                return Arc::clone(only);
            }
        }
        let mut tombstones = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
        tombstones.merge_all()
    }

    /// How many range tombstones were added.
    #[inline]
    pub(crate) fn range_tombstone_count(&self) -> usize {
        self.tombstone_count.load(Ordering::Acquire)
    }

    /// True if [`upkeep`](Self::upkeep) should be called soon, for speed; only one caller is told.
    #[inline]
    pub(crate) fn wants_upkeep(&self) -> bool {
        self.list.is_due_for_upkeep() && !self.upkeep_asked.swap(true, Ordering::Relaxed)
    }

    /// Has memory ready for the next inserts, and renews what makes searches quick. Takes up to
    /// milliseconds, during which others insert and read.
    pub(crate) fn upkeep(&self) {
        self.list.upkeep();
        self.upkeep_asked.store(false, Ordering::Relaxed);
    }

    /// Bytes in use, overhead included.
    pub(crate) fn memory_usage(&self) -> usize {
        self.list.memory_usage() + self.tombstone_bytes.load(Ordering::Relaxed)
    }

    /// How many point records were added.
    pub(crate) fn entries(&self) -> usize {
        self.list.entries()
    }

    /// True if there is neither a point record nor a range tombstone.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0 && self.range_tombstone_count() == 0
    }

    /// A cursor over the point records, not positioned yet. Sees later inserts too.
    pub(crate) fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self))
    }
}

impl Tombstones {
    /// Cuts the loose tombstones into fragments, and merges sets that are no longer much smaller
    /// than the one before.
    fn settle(&mut self) {
        let mut set = RangeTombstones::from_tombstones(self.loose.drain(..));
        while let Some(previous) = self.sets.pop_if(|previous| previous.len() < 2 * set.len()) {
            set = RangeTombstones::union([&*previous, &set]);
        }
        self.sets.push(Arc::new(set));
    }

    /// Leaves one set and nothing loose.
    fn merge_all(&mut self) -> Arc<RangeTombstones> {
        if !self.loose.is_empty() {
            self.settle();
        }
        let merged = match self.sets.as_slice() {
            [only] => Arc::clone(only),
            sets => Arc::new(RangeTombstones::union(sets.iter().map(|set| &**set))),
        };
        self.sets = vec![Arc::clone(&merged)];
        merged
    }
}

#[cold]
fn no_room() -> Error {
    Error::new(ErrorKind::Internal, "the memtable has no room for the record: out of memory")
}

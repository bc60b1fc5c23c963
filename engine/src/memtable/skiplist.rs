//! An insert-only skiplist of internal keys that any number of threads extend and read at once,
//! without locks.
//!
//! ```text
//! a node in the arena; the links above level 0 lie below the address of the node
//!
//!   link[h-1] ... link[2] link[1] | link[0] | trailer | key len | value len | key ... | value ...
//!          8 bytes each           ^    8         8         4          4
//!                                 address of the node
//!
//! a link: the next node, and how its key differs from the key of this node
//!
//!   next bytes (16 bits) | equal bytes (16 bits) | address (32 bits)        see the module `link`
//! ```
//!
//! What a search costs is cache misses: one for each node it touches. Of a node that it stands on,
//! a search knows how many bytes at the start the node's key shares with the target. The link says
//! the same of the next key, and mostly that settles the order without touching the next node:
//!
//! - the next key shares more with this key than the target does: it is before the target, like
//!   this key;
//! - it shares less: it is behind the target;
//! - as much: the two bytes at that place decide, and the node itself is read only if those are
//!   equal too.
//!
//! So only nodes that the search moves to are touched, whatever prefixes the keys have in common.
//! As a look at a link is nearly free, every second node (not every fourth) has the next level:
//! more looks, fewer moves. And a search begins in a flat array of the heads of some nodes (see the
//! module `fences`), which replaces the upper levels.
//!
//! Guarantees: a node that can be reached at all is complete; a node is reachable at level 0 before
//! it is at any higher level; once reachable, always reachable, and neither the node's key nor its
//! value ever changes. A search that starts after an insert returned (in the happens-before order)
//! finds the inserted record.
//!
//! Orderings of the atomics:
//! - `link`: published by a release exchange, paired with the acquire load in `Node::follow`: who
//!   sees the address also sees the node's contents, and the arena's chunk it lies in. Links of a
//!   node that is not linked at their level yet are stored relaxed, because the exchange that links
//!   it comes after.
//! - `height`: relaxed. It only tells where to start; too low a start is slower and nothing else.
//! - `entries`: relaxed, a statistic.

use std::cmp::Ordering as KeyOrder;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::arena::{Address, Arena, UNIT_BYTES};
use super::fences::{FenceIndex, Fences};
use super::link::{self, Order};
use super::stock::ChunkStock;
use crate::key::Trailer;
use crate::sync::AccessTracker;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Levels of links. With half of the nodes at each next level, enough for 16 million nodes, and
/// good for more.
pub(crate) const HEIGHT_MAX: usize = if cfg!(loom) { 2 } else { 24 };

/// The nodes of this level are fences: searches begin at one of them and not at the top. High enough
/// that the array of their heads stays in a near cache, low enough that little is left to walk.
const FENCE_LEVEL: usize = if cfg!(loom) { 1 } else { 4 };

/// A search that is not over after so many moves at the level of the fences starts again from the
/// top: since they were made, the list has grown too much at this place.
const FENCE_MOVES_MAX: usize = 6;

/// Who goes backward gets the records between two nodes of this level with one search.
const STRIDE_LEVEL: usize = if cfg!(loom) { 1 } else { 3 };

/// Most records of a stride.
const STRIDE_MAX: usize = 32;

/// One node in `1 << RARITY_LOG2` of a level is linked at the next level too.
const RARITY_LOG2: u32 = 1;

type Link = AtomicU64;

const LINK_BYTES: usize = size_of::<Link>();

/// The fixed part of a node. `key_bytes` bytes of key and `value_bytes` bytes of value follow it.
#[repr(C)]
struct Header {
    /// The next node at level 0.
    link: Link,
    trailer: u64,
    key_bytes: u32,
    value_bytes: u32,
    tracker: AccessTracker,
}

const HEADER_BYTES: usize = size_of::<Header>();

const _: () = assert!(align_of::<Header>() <= UNIT_BYTES);
const _: () = assert!(align_of::<Link>() <= UNIT_BYTES && LINK_BYTES.is_multiple_of(UNIT_BYTES));
const _: () = assert!(std::mem::offset_of!(Header, link) == 0);

/// The arena has no room for the record, or the system has no memory for the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArenaFull;

/// Proof that a record exists in one certain list, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    owner: NonZeroU64,
    address: Address,
}

/// One record of a list.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a>(Node<'a>);

/// The path to where the last record was inserted. The next insert starts from there if that is
/// near.
///
/// Between inserts, each level encloses the level below: what lies between the two ends of one
/// level lies between those of every higher level.
#[derive(Debug, Default)]
pub(crate) struct Splice {
    /// The list that the addresses belong to.
    owner: Option<NonZeroU64>,
    /// Levels below it are set; 0 if none can be trusted.
    height: usize,
    /// Below this level the ends are neighbours. Higher up they only enclose the levels below.
    tight: usize,
    levels: [Gap; HEIGHT_MAX],
    /// How many inserts still ignore the path, because earlier ones found it far off.
    ignored: u32,
    /// How often in a row it was far off.
    misses: u32,
}

impl Splice {
    /// Whether so many inserts would ignore the path, because those before came in no order. Then it counts as ignored by them.
    #[inline]
    pub(crate) fn is_left_out(&mut self, inserts: u32) -> bool {
        let rest = self.ignored.checked_sub(inserts);
        self.ignored = rest.unwrap_or(self.ignored);
        rest.is_some()
    }
}

/// Two neighbours of one level, between which a target belongs.
#[derive(Debug, Clone, Copy, Default)]
struct Gap {
    before: Address,
    /// The link of `before`, which leads to the other neighbour.
    link: u64,
    /// Bytes at the start that the target shares with the key before, and with the key behind.
    shared_before: u32,
    shared_behind: u32,
}

/// The list. Nothing is ever removed; the records go with the list.
pub(crate) struct SkipList {
    arena: Arena,
    /// Distinguishes this list from all others of the process.
    id: NonZeroU64,
    /// The node before all others: it has all levels and an empty key.
    start: Address,
    /// Levels in use.
    height: AtomicUsize,
    entries: CachePadded<AtomicUsize>,
    fences: FenceIndex,
}

/// An internal key to search for.
#[derive(Clone, Copy)]
struct Target<'a> {
    key: &'a [u8],
    trailer: Trailer,
}

impl SkipList {
    /// An empty list, whose memory comes from `stock`; `None` if there is none.
    pub(crate) fn new(stock: Arc<ChunkStock>) -> Option<Self> {
        // Not the shim's: the counter belongs to no model and must outlive each.
        static LAST_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let mut list = Self {
            arena: Arena::new(stock),
            id: NonZeroU64::new(id)?,
            start: Address::NULL,
            height: AtomicUsize::new(1),
            entries: CachePadded::new(AtomicUsize::new(0)),
            fences: FenceIndex::new(),
        };
        let nothing = Target { key: &[], trailer: Trailer::NEWEST };
        list.start = list.make_node(nothing, &[], HEIGHT_MAX)?;
        Some(list)
    }

    /// Bytes of the arena in use.
    pub(crate) fn memory_usage(&self) -> usize {
        self.arena.memory_usage()
    }

    /// Number of records.
    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Inserts a record. The internal key must be a new one: two equal ones would both stay, in any
    /// order.
    #[inline]
    pub(crate) fn insert(
        &self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        splice: &mut Splice,
    ) -> Result<(), ArenaFull> {
        self.insert_at_height(key, trailer, value, splice, height_of(key, trailer))
    }

    /// As `insert`, with a node that is linked at so many levels.
    #[inline]
    pub(crate) fn insert_at_height(
        &self,
        key: &[u8],
        trailer: Trailer,
        value: &[u8],
        splice: &mut Splice,
        height: usize,
    ) -> Result<(), ArenaFull> {
        debug_assert!((1..=HEIGHT_MAX).contains(&height));
        let target = Target { key, trailer };
        let made = self.make_node(target, value, height).ok_or(ArenaFull)?;
        self.link_node(target, made, height, splice);
        Ok(())
    }

    /// Links a new node at so many levels.
    #[inline]
    fn link_node(&self, target: Target<'_>, made: Address, height: usize, splice: &mut Splice) {
        if height > self.height.load(Ordering::Relaxed) {
            self.height.fetch_max(height, Ordering::Relaxed);
        }
        let reused = self.find_splice(target, height, splice);
        for level in 0..height {
            if level >= reused {
                self.measure(target, &mut splice.levels[level]);
            }
            while !self.link_between(target, made, level, &mut splice.levels[level]) {
                // Somebody inserted between the two. Search on from the same place; nothing is ever
                // removed.
                let gap = &mut splice.levels[level];
                let from = Gap { link: 0, shared_behind: 0, ..*gap };
                *gap = self.walk(target, level, from);
                if level > 0 {
                    // The level may now be narrower than the one below. The next insert must not
                    // trust the path.
                    splice.height = 0;
                }
            }
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// True if the list has outgrown its fences, or the stock is low.
    #[inline]
    pub(crate) fn is_due_for_upkeep(&self) -> bool {
        self.fences.is_due(self.entries()) || self.arena.stock().is_low()
    }

    /// Does what is due. Any number of threads may insert meanwhile.
    pub(crate) fn upkeep(&self) {
        self.arena.stock().refill();
        let entries = self.entries();
        if self.fences.is_due(entries) && self.fences.claim(entries) {
            self.make_fences();
        }
    }

    /// Makes an array of the nodes that are linked at the level of the fences now.
    fn make_fences(&self) {
        let follow = |at: Address| {
            let next = link::address(self.node(at).follow(FENCE_LEVEL));
            (next != Address::NULL).then_some(next)
        };
        let nodes = std::iter::successors(follow(self.start), |&at| follow(at));
        if let Some(fences) = Fences::new(nodes.map(|at| (self.node(at).key(), at))) {
            self.fences.publish(fences);
        }
    }

    /// Links a new node at one level, and makes the gap the one behind the new node. False if it is
    /// no gap any more.
    #[inline(always)]
    fn link_between(&self, target: Target<'_>, made: Address, level: usize, gap: &mut Gap) -> bool {
        let behind = link::address(gap.link);
        let onward = if behind == Address::NULL {
            0
        } else if link::shared(gap.link) == link::saturate(gap.shared_behind as usize) {
            // The new key differs from the one behind where the key before did, so the link says
            // the same.
            gap.link
        } else {
            link::join(behind, self.node(behind).key(), gap.shared_behind as usize)
        };
        // Nobody follows this link before the exchange below has published it.
        self.node(made).link(level).store(onward, Ordering::Relaxed);
        let exchanged = self.node(gap.before).link(level).compare_exchange(
            gap.link,
            link::join(made, target.key, gap.shared_before as usize),
            Ordering::Release,
            Ordering::Relaxed,
        );
        if exchanged.is_ok() {
            *gap = Gap { before: made, link: onward, ..*gap };
        }
        exchanged.is_ok()
    }

    /// The first record at or after (`key`, `trailer`).
    #[inline]
    pub(crate) fn seek(&self, key: &[u8], trailer: Trailer) -> Option<Position> {
        self.position(link::address(self.search(Target { key, trailer }).link))
    }

    /// The first record at or after (`key`, `trailer`), if it has that key.
    #[inline]
    pub(crate) fn seek_same_key(&self, key: &[u8], trailer: Trailer) -> Option<Position> {
        let gap = self.search(Target { key, trailer });
        let found = self.position(link::address(gap.link))?;
        let shares_all = gap.shared_behind as usize == key.len();
        let same = shares_all && self.node(found.address).header().key_bytes as usize == key.len();
        same.then_some(found)
    }

    /// The last record strictly before (`key`, `trailer`).
    pub(crate) fn seek_before(&self, key: &[u8], trailer: Trailer) -> Option<Position> {
        self.position(self.search(Target { key, trailer }).before)
    }

    /// Replaces `stride` by some records right before `position`, in order: none only if that is the first. Nodes have no way back, so
    /// one at a time would take a search each.
    pub(crate) fn records_before(&self, position: Position, stride: &mut Vec<Position>) {
        stride.clear();
        let entry = self.entry(position);
        let target = Target { key: entry.key(), trailer: entry.trailer() };
        let mut at = self.search_down_to(target, STRIDE_LEVEL).before;
        while at != position.address && at != Address::NULL {
            // The nearest are those that are wanted.
            if stride.len() == STRIDE_MAX {
                stride.clear();
            }
            stride.extend(self.position(at));
            at = link::address(self.node(at).follow(0));
        }
    }

    /// The first record.
    pub(crate) fn first(&self) -> Option<Position> {
        self.position(link::address(self.node(self.start).follow(0)))
    }

    /// The last record.
    pub(crate) fn last(&self) -> Option<Position> {
        let mut at = self.start;
        for level in (0..self.height.load(Ordering::Relaxed)).rev() {
            loop {
                let next = link::address(self.node(at).follow(level));
                if next == Address::NULL {
                    break;
                }
                at = next;
            }
        }
        self.position(at)
    }

    /// The record after `position`.
    #[inline]
    pub(crate) fn next(&self, position: Position) -> Option<Position> {
        self.position(link::address(self.checked_node(position).follow(0)))
    }

    /// The record at `position`, which must be one of this list.
    #[inline]
    pub(crate) fn entry(&self, position: Position) -> Entry<'_> {
        Entry(self.checked_node(position))
    }

    /// Nothing for the ends of the list.
    #[inline]
    fn position(&self, address: Address) -> Option<Position> {
        let record = address != Address::NULL && address != self.start;
        record.then_some(Position { owner: self.id, address })
    }

    /// The whole list as one gap.
    fn widest_gap(&self) -> Gap {
        Gap { before: self.start, ..Gap::default() }
    }

    /// The gap of level 0 in which the target belongs.
    #[inline(always)]
    fn search(&self, target: Target<'_>) -> Gap {
        self.search_down_to(target, 0)
    }

    /// The gap of a level in which the target belongs. The level is not above that of the fences.
    #[inline(always)]
    fn search_down_to(&self, target: Target<'_>, lowest: usize) -> Gap {
        let (mut gap, height) = match self.fenced_gap(target) {
            Some(gap) => (gap, FENCE_LEVEL),
            None => (self.widest_gap(), self.height.load(Ordering::Relaxed)),
        };
        for level in (lowest..height).rev() {
            gap = self.walk(target, level, gap);
        }
        gap
    }

    /// The gap of the fences' level in which the target belongs, if a fence is near.
    #[inline(always)]
    fn fenced_gap(&self, target: Target<'_>) -> Option<Gap> {
        let before = self.fences.current()?.before(target.key)?;
        let shared_before = link::common(self.node(before).key(), target.key, 0) as u32;
        let gap = Gap { before, shared_before, ..Gap::default() };
        self.walk_at_most(target, FENCE_LEVEL, gap, FENCE_MOVES_MAX)
    }

    /// Goes forward at one level, inside of a gap of the level above, to the last node before the
    /// target.
    #[inline(always)]
    fn walk(&self, target: Target<'_>, level: usize, gap: Gap) -> Gap {
        self.walk_at_most(target, level, gap, usize::MAX).expect("nobody moves so often")
    }

    /// As `walk`, unless it takes more than `moves` moves.
    #[inline(always)]
    fn walk_at_most(
        &self,
        target: Target<'_>,
        level: usize,
        gap: Gap,
        moves: usize,
    ) -> Option<Gap> {
        let limit = link::address(gap.link);
        let mut at = gap.before;
        let mut shared = gap.shared_before;
        for _ in 0..moves {
            let link = self.node(at).follow(level);
            let next = link::address(link);
            if next == limit || next == Address::NULL {
                return Some(Gap { before: at, link, shared_before: shared, ..gap });
            }
            let (order, shared_next) = match link::order(link, target.key, shared as usize) {
                Some(known) => known,
                None => self.node(next).order(target, link::saturate(shared as usize)),
            };
            if order == Order::NotBefore {
                let shared_behind = shared_next as u32;
                return Some(Gap { before: at, link, shared_before: shared, shared_behind });
            }
            at = next;
            shared = shared_next as u32;
        }
        None
    }

    /// Makes the splice enclose the target at every level, and hold its neighbours below level
    /// `wanted`. The lengths are known below the returned level only.
    fn find_splice(&self, target: Target<'_>, wanted: usize, splice: &mut Splice) -> usize {
        let height = self.height.load(Ordering::Relaxed);
        let mut reused = self.reusable_level(target, splice, height);
        if splice.tight < wanted {
            reused = height;
        }
        let mut gap = self.widest_gap();
        if reused < height {
            debug_assert!(reused < splice.tight, "a search begins between neighbours");
            self.measure(target, &mut splice.levels[reused]);
            gap = splice.levels[reused];
        } else if let Some(fenced) = self.fenced_gap(target).filter(|_| wanted <= FENCE_LEVEL) {
            splice.levels[FENCE_LEVEL] = fenced;
            splice.tight = FENCE_LEVEL + 1;
            // What lies above is set to enclose everything when the splice is used again.
            splice.height = FENCE_LEVEL + 1;
            (gap, reused) = (fenced, FENCE_LEVEL);
        } else {
            splice.tight = height;
        }
        for level in (0..reused).rev() {
            gap = self.walk(target, level, gap);
            splice.levels[level] = gap;
        }
        reused + 1
    }

    /// Finds out how much the target shares with both ends of a gap.
    fn measure(&self, target: Target<'_>, gap: &mut Gap) {
        gap.shared_before = link::common(self.node(gap.before).key(), target.key, 0) as u32;
        let behind = link::address(gap.link);
        if behind != Address::NULL {
            gap.shared_behind = link::common(self.node(behind).key(), target.key, 0) as u32;
        }
    }

    /// The lowest level at which the splice already encloses the target, or `height` if it is of no
    /// use.
    fn reusable_level(&self, target: Target<'_>, splice: &mut Splice, height: usize) -> usize {
        if splice.owner != Some(self.id) {
            *splice = Splice { owner: Some(self.id), ..Splice::default() };
        }
        let trusted = splice.height > 0;
        // Levels that were not in use so far held nothing.
        for gap in &mut splice.levels[splice.height.min(height)..height] {
            *gap = self.widest_gap();
        }
        splice.height = height;
        if splice.ignored > 0 || !trusted {
            splice.ignored = splice.ignored.saturating_sub(1);
            return height;
        }
        let found = self.enclosing_level(target, splice, height);
        if found < height {
            splice.misses = 0;
        } else {
            // Keys seem to come in no order: try the path more and more rarely.
            splice.misses = (splice.misses + 1).min(6);
            splice.ignored = (1 << splice.misses) - 1;
        }
        found
    }

    fn enclosing_level(&self, target: Target<'_>, splice: &Splice, height: usize) -> usize {
        // Above half the height a search from the top is as good. Gaps that only enclose are no place
        // to begin: they may be as wide as the list.
        let worthwhile = height.div_ceil(2).min(splice.tight);
        let mut level = 0;
        while level < worthwhile {
            let before = splice.levels[level].before;
            let behind = link::address(splice.levels[level].link);
            // A node at the wrong side stands at all the levels that it is linked at.
            if before != self.start && !self.node(before).is_before(target) {
                while level < worthwhile && splice.levels[level].before == before {
                    level += 1;
                }
            } else if behind != Address::NULL && self.node(behind).is_before(target) {
                while level < worthwhile && link::address(splice.levels[level].link) == behind {
                    level += 1;
                }
            } else {
                return level;
            }
        }
        height
    }

    /// Writes a node that nobody can reach yet.
    fn make_node(&self, target: Target<'_>, value: &[u8], height: usize) -> Option<Address> {
        let tower = (height - 1) * LINK_BYTES;
        let header = Header {
            link: Link::new(0),
            trailer: target.trailer.0,
            key_bytes: u32::try_from(target.key.len()).ok()?,
            value_bytes: u32::try_from(value.len()).ok()?,
            tracker: AccessTracker::new(),
        };
        let contents = target.key.len().checked_add(value.len())?;
        let bytes = contents.checked_add(tower + HEADER_BYTES)?;
        let address = self.arena.allocate(bytes)?.plus(tower);
        let base = self.arena.pointer(address);
        header.tracker.written();
        // SAFETY: the allocation is this call's alone, it is aligned, and a header fits behind the
        // tower.
        unsafe { base.cast::<Header>().write(header) };
        for level in 1..height {
            let link = base.wrapping_sub(level * LINK_BYTES).cast::<Link>();
            // SAFETY: the links of levels 1 to `height - 1` lie in the tower, which is this call's
            // alone and aligned.
            unsafe { link.write(Link::new(0)) };
        }
        let key_at = base.wrapping_add(HEADER_BYTES);
        // SAFETY: the allocation ends after the key and the value, and overlaps nothing that the
        // caller can borrow.
        unsafe { key_at.copy_from_nonoverlapping(target.key.as_ptr(), target.key.len()) };
        let value_at = key_at.wrapping_add(target.key.len());
        // SAFETY: as for the key.
        unsafe { value_at.copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        Some(address)
    }

    /// The node at an address that a link, the start or a position of this list holds.
    #[inline(always)]
    fn node(&self, address: Address) -> Node<'_> {
        debug_assert_ne!(address, Address::NULL);
        Node { base: self.arena.pointer(address), list: PhantomData }
    }

    #[inline]
    fn checked_node(&self, position: Position) -> Node<'_> {
        assert_eq!(position.owner, self.id, "a position is used with the list that it came from");
        self.node(position.address)
    }
}

/// A complete node. Only made from addresses that came out of a list's links or from making a node, so that it is one.
#[derive(Clone, Copy)]
struct Node<'a> {
    base: *const u8,
    list: PhantomData<&'a SkipList>,
}

impl<'a> Node<'a> {
    #[inline(always)]
    fn header(self) -> &'a Header {
        // SAFETY: the address of a node points at a header, which was written before the node could
        // be reached, which nobody writes to but through its atomics, and which lives as long as
        // the list.
        let header = unsafe { &*self.base.cast::<Header>() };
        header.tracker.read();
        header
    }

    /// The link of a level at which the node is linked.
    #[inline(always)]
    fn link(self, level: usize) -> &'a Link {
        let link = self.base.wrapping_sub(level * LINK_BYTES).cast::<Link>();
        // SAFETY: the tower of a node has a link for each level at which it is (being) linked,
        // below its address.
        unsafe { &*link }
    }

    #[inline(always)]
    fn follow(self, level: usize) -> u64 {
        self.link(level).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn key(self) -> &'a [u8] {
        let length = self.header().key_bytes as usize;
        // SAFETY: that many bytes of key follow the header, and are never written again.
        unsafe { std::slice::from_raw_parts(self.base.wrapping_add(HEADER_BYTES), length) }
    }

    #[inline]
    fn value(self) -> &'a [u8] {
        let header = self.header();
        let start = self.base.wrapping_add(HEADER_BYTES + header.key_bytes as usize);
        // SAFETY: that many bytes of value follow the key, and are never written again.
        unsafe { std::slice::from_raw_parts(start, header.value_bytes as usize) }
    }

    /// The node's internal key compared with the target, and how many bytes the two share; `shared`
    /// of them are known.
    #[inline]
    fn order(self, target: Target<'_>, shared: usize) -> (Order, usize) {
        let key = self.key();
        let shared = link::common(key, target.key, shared);
        let before = match key[shared..].first().cmp(&target.key[shared..].first()) {
            KeyOrder::Less => true,
            KeyOrder::Greater => false,
            // Both end here: versions of one key, the newest first.
            KeyOrder::Equal => self.header().trailer > target.trailer.0,
        };
        (if before { Order::Before } else { Order::NotBefore }, shared)
    }

    /// True if the node's internal key sorts before the target.
    fn is_before(self, target: Target<'_>) -> bool {
        self.order(target, 0).0 == Order::Before
    }
}

impl<'a> Entry<'a> {
    /// The full key.
    #[inline]
    pub(crate) fn key(self) -> &'a [u8] {
        self.0.key()
    }

    /// Sequence number and kind.
    #[inline]
    pub(crate) fn trailer(self) -> Trailer {
        Trailer(self.0.header().trailer)
    }

    /// The value.
    #[inline]
    pub(crate) fn value(self) -> &'a [u8] {
        self.0.value()
    }
}

/// The height of the node of a record.
#[inline]
fn height_of(key: &[u8], trailer: Trailer) -> usize {
    // The key's end too, because all records of a batch may have one sequence number.
    let salt = key.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
    random_height(trailer.0 ^ salt.rotate_left(32))
}

/// 1 mostly, and each next height as rare again; the same seed gives the same height.
#[inline]
fn random_height(seed: u64) -> usize {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^= mixed >> 32;
    (1 + (mixed.trailing_zeros() / RARITY_LOG2) as usize).min(HEIGHT_MAX)
}

// The paths are spelled out because the models include this file from elsewhere.
#[cfg(not(loom))]
#[path = "skiplist/ahead.rs"]
mod ahead;
#[cfg(not(loom))]
pub(crate) use self::ahead::{Approach, Unlinked};
#[cfg(any(test, loom))]
#[path = "skiplist/check.rs"]
pub(crate) mod check;
#[cfg(all(test, not(loom)))]
#[path = "skiplist/tests.rs"]
mod tests;

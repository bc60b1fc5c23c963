//! Stores: bytes that survive the process, put into a segment's page cache through a shared
//! mapping, with no system call in the common case.
//!
//! **Populating.** Touching a mapped page that the medium cannot deliver ends the process by
//! `SIGBUS`. So a store touches only pages inside the *window*, which was populated for writing
//! just before by a call that returns an error instead. The window lies ahead of the stores and
//! grows while they run on undisturbed, which also saves the fault per page.
//!
//! **Frames in the same file.** A direct frame goes past the page cache. The kernel writes back and
//! drops the cached pages of its range before the write, and drops them again after it. The danger
//! is a page of that range that becomes dirty in between, with the old content: written back later,
//! it would destroy an acknowledged frame. It cannot happen, because
//!
//! 1. stores are in other pages than frames in flight: frames are whole blocks, a block is at least
//!    a page, and the caller never stores into a frame in flight;
//! 2. the window is never populated across a frame in flight: frames register before they are
//!    submitted, populating holds the same lock and stops short of them; so between submission and
//!    completion no new page appears in a frame's range;
//! 3. a frame that arrives *inside* the window finds populated, dirty pages: the kernel writes them
//!    back and waits before it writes the frame, and no store can touch them again, since the
//!    window is cut off at the frame under the lock;
//! 4. pages are not shared through large folios: the mapping is advised `MADV_RANDOM`, so a fault
//!    brings in a single page and never a folio that reaches into a neighbouring frame; large
//!    folios left in the cache by earlier readers are dropped by the kernel as in 3. Where stores
//!    are written instead of mapped, each write stays within one page for the same reason.
//!
//! A later window over a frame that is *complete* reads the frame from the medium, and writing that
//! back changes nothing.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::{Errno, ReadWriteFlags};

use super::super::file::write_full;
use super::super::map::StoreMap;

/// How far ahead of a store the window reaches at first, and at most, where the store itself has to
/// move it and others wait.
const AHEAD_MIN: u64 = 16 << 10;
const AHEAD_MAX: u64 = 128 << 10;

/// How far ahead of the stores pages are brought into the cache.
const READ_AHEAD: u64 = 1 << 20;

/// How far ahead of the stores another thread moves the window's end, and in what pieces: a frame
/// may have to wait for one.
const PREPARED: u64 = 1 << 20;
const PIECE: u64 = 128 << 10;

/// Where the stores of one segment go.
pub(super) struct Stores {
    len: u64,
    page_len: u64,
    may_map: bool,
    /// Made by the first store; `None` inside if mapping is not possible.
    map: OnceLock<Option<StoreMap>>,
    /// The populated pages, as `first page << 32 | page after the last`. Written under `state`,
    /// read without it: a reader that misses a cut touches pages that are still populated and, by
    /// rule 1, in no frame. It publishes nothing else, but the pair Release/Acquire costs nothing
    /// and orders a store after the populating that it relies on.
    window: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The frames in flight.
    frames: Vec<Range<u64>>,
    /// How far the next window reaches ahead; 0 after a frame has cut the last one.
    ahead: u64,
}

impl Stores {
    pub(super) fn new(len: u64, may_map: bool) -> Self {
        let page_len = rustix::param::page_size() as u64;
        // Page numbers have to fit in the halves of the window.
        let may_map =
            may_map && len / page_len < u64::from(u32::MAX) && usize::try_from(len).is_ok();
        Self {
            len,
            page_len,
            may_map,
            map: OnceLock::new(),
            window: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Stores `data` at `offset`; the caller has checked that it lies inside the segment.
    pub(super) fn store(
        &self,
        fd: &OwnedFd,
        offset: u64,
        data: &[u8],
    ) -> std::result::Result<(), Errno> {
        let Some(map) = self.map.get_or_init(|| self.make_map(fd)) else {
            return self.write_pages(fd, offset, data);
        };
        if self.in_window(offset, offset + data.len() as u64) {
            map.copy_in(offset as usize, data);
            return Ok(());
        }
        let mut at = offset;
        for piece in data.chunks(AHEAD_MAX as usize) {
            let end = at + piece.len() as u64;
            match self.move_window(map, at..end) {
                Ok(()) => map.copy_in(at as usize, piece),
                // The kernel only says that the page cannot be had. A plain write fails with the
                // reason, or succeeds.
                Err(Errno::FAULT) => self.write_pages(fd, at, piece)?,
                Err(errno) => return Err(errno),
            }
            at = end;
        }
        Ok(())
    }

    /// Moves the window's end ahead of stores that have come to `offset`, and gives up the pages
    /// that they have left behind: those stay in the cache and need no place in the map.
    ///
    /// For another thread than the one that stores. Where a store or a frame has moved the window
    /// elsewhere, nothing happens.
    pub(super) fn prepare(&self, fd: &OwnedFd, offset: u64) {
        let Some(map) = self.map.get_or_init(|| self.make_map(fd)) else { return };
        let first = offset - offset % self.page_len;
        while self.prepare_piece(map, first) {}
    }

    /// One step of `prepare`: true if another one may be needed.
    fn prepare_piece(&self, map: &StoreMap, first: u64) -> bool {
        let mut state = self.lock();
        let mut window = self.window();
        if window.is_empty() && state.ahead == 0 && state.frames.is_empty() {
            window = first..first;
        }
        if !(window.start..=window.end).contains(&first) {
            return false;
        }
        let frames = state.frames.iter().map(|frame| frame.start);
        let limit = frames.filter(|&start| start >= window.end).min().unwrap_or(self.len);
        let end = (window.end + PIECE).min(first + PREPARED).min(limit);
        if end <= window.end {
            map.release(window.start as usize..first as usize);
            self.set_window(first..window.end);
            return false;
        }
        // Should it fail, the store that needs the page will find out why.
        if map.populate(window.end as usize..end as usize).is_err() {
            return false;
        }
        self.set_window(window.start..end);
        // A store that finds its page missing all the same need not begin with small steps.
        state.ahead = AHEAD_MAX;
        true
    }

    /// Enters a frame that is about to be submitted. Everything said above hangs on calling this
    /// first.
    pub(super) fn frame_begins(&self, frame: Range<u64>) {
        let mut state = self.lock();
        let window = self.window();
        if frame.start < window.end && window.start < frame.end {
            self.set_window(window.start..frame.start.max(window.start));
            state.ahead = 0;
        }
        state.frames.push(frame);
    }

    /// Takes a frame out again once it is complete.
    pub(super) fn frame_ends(&self, frame: &Range<u64>) {
        let mut state = self.lock();
        if let Some(index) = state.frames.iter().position(|other| other == frame) {
            state.frames.swap_remove(index);
        }
    }

    fn make_map(&self, fd: &OwnedFd) -> Option<StoreMap> {
        if !self.may_map {
            return None;
        }
        let map = StoreMap::new(fd, self.len as usize).and_then(|map| {
            // Kernels before 5.14 cannot populate: an empty range asks without touching anything.
            map.populate(0..0).map(|()| map)
        });
        map.inspect_err(|error| tracing::info!("log stores by plain writes: {error}")).ok()
    }

    /// Writes `data` without a mapping, one page at a time (rule 4).
    fn write_pages(
        &self,
        fd: &OwnedFd,
        mut offset: u64,
        mut data: &[u8],
    ) -> std::result::Result<(), Errno> {
        while !data.is_empty() {
            let room = (self.page_len - offset % self.page_len) as usize;
            let (now, later) = data.split_at(room.min(data.len()));
            write_full(fd, offset, now, ReadWriteFlags::empty())?;
            offset += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    fn move_window(&self, map: &StoreMap, store: Range<u64>) -> std::result::Result<(), Errno> {
        let mut state = self.lock();
        let start = store.start - store.start % self.page_len;
        let needed = store.end.next_multiple_of(self.page_len).min(self.len);
        if state.frames.iter().any(|frame| frame.start < needed && start < frame.end) {
            // The caller broke the contract; going on could destroy the frame.
            return Err(Errno::INVAL);
        }
        let next_frame = state.frames.iter().map(|frame| frame.start).filter(|&at| at >= needed);
        let limit = next_frame.min().unwrap_or(self.len);
        let end = needed.max(start + state.ahead).min(limit);
        self.set_window(0..0);
        map.read_ahead(start as usize..end as usize);
        map.populate(start as usize..end as usize)
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
        self.set_window(start..end);
        if state.ahead == AHEAD_MAX {
            // No frame has come for long: have the pages of the next window ready. They are clean,
            // so a frame that comes after all only has to drop them.
            map.read_ahead(end as usize..(end + READ_AHEAD).min(limit) as usize);
        }
        state.ahead = (state.ahead * 2).clamp(AHEAD_MIN, AHEAD_MAX);
        Ok(())
    }

    fn in_window(&self, start: u64, end: u64) -> bool {
        let window = self.window();
        window.start <= start && end <= window.end
    }

    fn window(&self) -> Range<u64> {
        let packed = self.window.load(Ordering::Acquire);
        (packed >> 32) * self.page_len..(packed & u64::from(u32::MAX)) * self.page_len
    }

    /// Called with the lock held. Both ends are at page boundaries; a segment's last page is cut
    /// down by its length, which stores are checked against anyway.
    fn set_window(&self, window: Range<u64>) {
        let (first, end) = (window.start / self.page_len, window.end.div_ceil(self.page_len));
        self.window.store(first << 32 | end, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below the lock panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

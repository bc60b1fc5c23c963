//! The two kinds of kernel maps: whole table files for reading, and log segments for storing.
//!
//! Both are `MAP_SHARED` and both turn a medium error into an `Err` by populating a range before it
//! is touched; a plain access to a page that the kernel cannot deliver would end the process with
//! `SIGBUS`.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::file::descriptor_len;
use super::open::{self, fail, refuse};
use crate::error::{IoError, Result};
use crate::mapping::{Advice, Mapping};

/// Maps a whole file for reading; the descriptor is closed again, so that open tables cost no
/// descriptors.
pub(super) fn map_file(path: &Path) -> Result<Mapping> {
    let fd = open::open_regular(path, OFlags::RDONLY)?;
    let len = descriptor_len(&fd).map_err(|errno| fail("map", path, errno))?;
    if len == 0 {
        // The kernel refuses maps of zero bytes.
        return Ok(Mapping::heap(path.to_path_buf(), Vec::new().into(), None));
    }
    let len = usize::try_from(len).map_err(|_| {
        refuse("map", path, io::ErrorKind::FileTooLarge, "larger than the address space")
    })?;
    let mut options = memmap2::MmapOptions::new();
    options.len(len);
    // SAFETY: the bytes must not change while the map lives. `FileSystem::map` asks its callers for
    // exactly that (files under a map are only unlinked, never truncated or overwritten); this call
    // passes the promise along.
    let map = unsafe { options.map(fd.as_raw_fd()) }
        .map_err(|error| IoError::new("map", path, &error))?;
    let mapping = Mapping::kernel(path.to_path_buf(), map);
    mapping.advise(Advice::Random, 0..len);
    Ok(mapping)
}

/// The most pages that [`is_resident`] asks about.
const PAGES_ASKED_MAX: usize = 16;

/// Whether the pages of `bytes`, a part of a map, are in memory; only the first of very many are looked at. If the kernel does not
/// tell, they are.
pub(crate) fn is_resident(bytes: &[u8]) -> bool {
    let page = rustix::param::page_size();
    let into_page = bytes.as_ptr().addr() % page;
    let start = bytes.as_ptr().wrapping_sub(into_page);
    let pages = (into_page + bytes.len()).div_ceil(page).min(PAGES_ASKED_MAX);
    let mut answers = [0_u8; PAGES_ASKED_MAX];
    // SAFETY: the kernel only looks at which pages are there, reads nothing through `start`, and writes a byte for each of them into
    // `answers`, which is as long.
    let refused =
        unsafe { libc::mincore(start.cast_mut().cast(), pages * page, answers.as_mut_ptr()) };
    refused != 0 || answers.iter().take(pages).all(|answer| answer & 1 == 1)
}

/// A log segment mapped for storing. Nobody reads through it and no reference into it is ever made.
pub(super) struct StoreMap {
    map: memmap2::MmapRaw,
}

impl StoreMap {
    /// Maps `len` bytes of a file that is open for reading and writing.
    pub(super) fn new(fd: &OwnedFd, len: usize) -> io::Result<Self> {
        let map = memmap2::MmapOptions::new().len(len).map_raw(fd.as_raw_fd())?;
        // Not a matter of speed: without it a fault may read ahead into large folios, and a large
        // folio that covers both a stored page and a frame would let the write-back of the one undo
        // the other. See the log's stores.
        map.advise(memmap2::Advice::Random)?;
        Ok(Self { map })
    }

    /// Makes the pages of `range` present and writable.
    pub(super) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        debug_assert!(range.start <= range.end && range.end <= self.map.len());
        self.map.advise_range(memmap2::Advice::PopulateWrite, range.start, range.len())
    }

    /// Starts reading the pages of `range` that are not in the cache, all at once; populating alone
    /// would read one page after the other. Unlike the read-ahead of a fault this brings in single
    /// pages, and none outside the range.
    pub(super) fn read_ahead(&self, range: Range<usize>) {
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
    }

    /// Takes the pages of `range` out of the map. What was stored to them stays in the file's cache.
    pub(super) fn release(&self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        debug_assert!(range.end <= self.map.len());
        // SAFETY: for a shared map of a file this only drops the pages' places in the page table; no
        // content is lost, and no reference into the map exists.
        let advised = unsafe {
            self.map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                range.start,
                range.len(),
            )
        };
        // If not, they stay mapped until the segment is closed.
        let _ = advised;
    }

    /// Copies `data` to `offset`. One caller at a time, and the range was populated.
    pub(super) fn copy_in(&self, offset: usize, data: &[u8]) {
        let end = offset.checked_add(data.len()).expect("a range of memory");
        assert!(end <= self.map.len(), "a store stays inside its segment");
        // SAFETY: `offset <= end <= len` of the map, checked above.
        let target = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: source and target are `data.len()` bytes of live memory; they cannot overlap
        // because no reference to mapped bytes exists, and stores are made by one thread at a time.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), target, data.len()) }
    }
}

//! One simulated file: what the kernel shows, what the medium holds, and what lies between the two.
//!
//! ```text
//! write, set_len, store --> live image + pending list --sync--> durable image
//! frame: submit --> in flight --wait--> live image + durable image
//! ```
//!
//! The pending list keeps the order of operations, from which `crash.rs` works out what a power cut
//! may leave.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::image::Image;
use super::random::Random;

/// The unit that a device writes whole or not at all.
pub(super) const SECTOR: u64 = 512;

/// A file, shared by its names and its handles.
#[derive(Debug)]
pub(super) struct FileNode {
    /// Unique in its file system; deterministic, as files are numbered in order of creation.
    pub(super) id: u64,
    data: Mutex<FileData>,
}

/// The content and state of a file.
#[derive(Debug, Clone)]
pub(super) struct FileData {
    /// What reads see.
    pub(super) live: Image,
    /// What a power cut cannot take. Not kept in a volatile file system.
    pub(super) durable: Image,
    /// What has changed since, in order.
    pub(super) pending: Vec<Pending>,
    /// Frames submitted and not waited for, by their ids.
    pub(super) in_flight: BTreeMap<u64, (u64, Vec<u8>)>,
    /// The number of names.
    pub(super) links: u32,
    /// Alive while a map is.
    mapped: Weak<()>,
    mapped_len: u64,
}

/// An operation on content that is not durable.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) change: Change,
    /// True after a sync that covered it failed: a later sync will not bring it to the medium, as
    /// the kernel forgets which pages it could not write.
    pub(super) written_off: bool,
}

/// A change of content.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen { len: u64 },
}

/// A log frame on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
}

impl FileNode {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Self::with_data(id, FileData::new())
    }

    pub(super) fn with_data(id: u64, data: FileData) -> Arc<Self> {
        Arc::new(Self { id, data: Mutex::new(data) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FileData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileData {
    pub(super) fn new() -> Self {
        Self {
            live: Image::new(),
            durable: Image::new(),
            pending: Vec::new(),
            in_flight: BTreeMap::new(),
            links: 0,
            mapped: Weak::new(),
            mapped_len: 0,
        }
    }

    /// A file that holds `image`, all of it durable.
    pub(super) fn settled(image: Image) -> Self {
        Self { durable: image.clone(), live: image, ..Self::new() }
    }

    /// Makes `image` the content, durable where durability is kept.
    pub(super) fn replace(&mut self, image: Image, tracked: bool) {
        self.pending.clear();
        if tracked {
            self.durable = image.clone();
        }
        self.live = image;
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8], tracked: bool) {
        if data.is_empty() {
            return;
        }
        self.live.write(offset, data);
        if tracked {
            self.pend(Change::Write { offset, data: data.to_vec() });
        }
    }

    pub(super) fn set_len(&mut self, len: u64, tracked: bool) {
        self.live.set_len(len);
        if tracked {
            self.pend(Change::SetLen { len });
        }
    }

    fn pend(&mut self, change: Change) {
        self.pending.push(Pending { change, written_off: false });
    }

    /// Brings everything pending to the medium, except what an earlier failed sync wrote off.
    pub(super) fn sync(&mut self) {
        // In a volatile file system nothing ever pends, and no durable image is made.
        if !self.pending.iter().any(|pending| pending.written_off) {
            if !self.pending.is_empty() {
                self.durable = self.live.clone();
                self.pending.clear();
            }
            return;
        }
        let (lost, pending): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|one| one.written_off);
        self.pending = lost;
        for Pending { change, .. } in pending {
            match change {
                Change::Write { offset, data } => {
                    self.clip_pending(offset, offset + data.len() as u64);
                    self.durable.write(offset, &data);
                }
                Change::SetLen { len } => {
                    self.clip_pending(len, u64::MAX);
                    self.durable.set_len(len);
                }
            }
        }
        // The file has its length; what was lost reads as zeros.
        self.durable.set_len(self.live.len());
    }

    /// A sync failed: nobody will try these again.
    pub(super) fn write_off(&mut self) {
        for pending in &mut self.pending {
            // The length is metadata, which the next sync writes.
            pending.written_off = matches!(pending.change, Change::Write { .. });
        }
    }

    /// Writes past the page cache, straight to the medium.
    pub(super) fn write_durably(&mut self, offset: u64, data: &[u8], tracked: bool) {
        self.live.write(offset, data);
        if tracked {
            // Older stores of the same blocks are flushed or forgotten before a direct write: they
            // cannot come back.
            self.clip_pending(offset, offset + data.len() as u64);
            self.durable.write(offset, data);
        }
    }

    /// Leaves any subset of the frame's sectors.
    pub(super) fn write_torn(&mut self, frame: Frame<'_>, random: &mut Random) {
        for (index, sector) in frame.data.chunks(SECTOR as usize).enumerate() {
            if random.chance(1, 2) {
                self.write_durably(frame.offset + index as u64 * SECTOR, sector, true);
            }
        }
    }

    /// Takes `start..end` out of the pending writes.
    fn clip_pending(&mut self, start: u64, end: u64) {
        let overlaps = |pending: &Pending| match &pending.change {
            Change::Write { offset, data } => *offset < end && offset + data.len() as u64 > start,
            Change::SetLen { .. } => false,
        };
        if !self.pending.iter().any(overlaps) {
            return;
        }
        for pending in std::mem::take(&mut self.pending) {
            let Change::Write { offset, data } = &pending.change else {
                self.pending.push(pending);
                continue;
            };
            let left = start.saturating_sub(*offset).min(data.len() as u64) as usize;
            let right = end.saturating_sub(*offset).min(data.len() as u64) as usize;
            let pieces = [(*offset, &data[..left]), (offset + right as u64, &data[right..])];
            for (offset, data) in pieces.into_iter().filter(|(_, data)| !data.is_empty()) {
                self.pending.push(Pending {
                    change: Change::Write { offset, data: data.to_vec() },
                    written_off: pending.written_off,
                });
            }
        }
    }

    /// The content for a map, and a token to keep while the map lives.
    pub(super) fn map(&mut self) -> (Arc<[u8]>, Arc<()>) {
        let bytes = self.live.freeze();
        if self.pending.is_empty() && self.durable.len() == self.live.len() {
            self.durable = self.live.clone();
        }
        self.mapped_len = self.live.len();
        let token = self.mapped.upgrade().unwrap_or_default();
        self.mapped = Arc::downgrade(&token);
        (bytes, token)
    }

    /// Forgets the maps: those of another process, or of the time before a crash.
    pub(super) fn unmap(&mut self) {
        self.mapped = Weak::new();
    }

    /// Refuses to change bytes from `offset` on if a map shows them: the contract of maps forbids
    /// it, and on a real system it would be a torn read or a `SIGBUS`.
    pub(super) fn check_not_mapped(&self, offset: u64) -> io::Result<()> {
        if offset < self.mapped_len && self.mapped.strong_count() > 0 {
            return Err(io::Error::other("the file is mapped and must not be overwritten or cut"));
        }
        Ok(())
    }
}

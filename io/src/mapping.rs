//! A read-only view of a whole file: a kernel memory map, or plain memory in the simulator.
//!
//! The contract that makes a map sound and safe from `SIGBUS`: files under a map are only ever unlinked, never truncated or
//! overwritten, and every byte range is [`populate`](Mapping::populate)d once before it is first read, which turns a medium
//! error into an `Err` instead of a signal.

use std::fmt::{self, Debug};
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{IoError, Result};
use crate::real::is_resident;

/// What the reader is about to do with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Point reads: no read-ahead.
    Random,
    /// Will be read soon: start reading it in.
    WillNeed,
}

/// A whole file in memory, read-only.
pub struct Mapping {
    path: PathBuf,
    memory: Memory,
}

enum Memory {
    Kernel(memmap2::Mmap),
    Heap { bytes: Arc<[u8]>, pager: Option<Box<dyn Pager>> },
}

/// What stands for the kernel behind a map in plain memory. A closure is one that only answers `populate`.
pub trait Pager: Send + Sync {
    /// Hears of each [`Mapping::populate`].
    ///
    /// # Errors
    /// What the medium answered.
    fn populate(&self, range: Range<usize>) -> Result<()>;

    /// Answers [`Mapping::is_resident`].
    fn is_resident(&self, range: Range<usize>) -> bool {
        let _ = range;
        true
    }

    /// Hears of each [`Mapping::advise`].
    fn advise(&self, advice: Advice, range: Range<usize>) {
        let _ = (advice, range);
    }
}

impl<F: Fn(Range<usize>) -> Result<()> + Send + Sync> Pager for F {
    fn populate(&self, range: Range<usize>) -> Result<()> {
        self(range)
    }
}

impl Mapping {
    /// Wraps a kernel map. The caller vouches for the file as the module text says.
    pub(crate) fn kernel(path: PathBuf, map: memmap2::Mmap) -> Self {
        Self { path, memory: Memory::Kernel(map) }
    }

    /// Wraps plain memory, all of it resident unless the pager says otherwise.
    #[must_use]
    pub fn heap(path: PathBuf, bytes: Arc<[u8]>, pager: Option<Box<dyn Pager>>) -> Self {
        Self { path, memory: Memory::Heap { bytes, pager } }
    }

    /// Brings a range into memory, so that reading it cannot fail. Costs a system call.
    ///
    /// # Errors
    /// If the medium cannot deliver the range, or it lies past the end.
    pub fn populate(&self, range: Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.len() {
            let past_end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(IoError::new("map", &self.path, &past_end)
                .at(range.start as u64, range.end.saturating_sub(range.start)));
        }
        match &self.memory {
            Memory::Kernel(map) => {
                if range.is_empty() {
                    return Ok(());
                }
                map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len())
                    .or_else(|error| match error.raw_os_error() {
                        // Kernels before 5.14 do not know the advice: reading ahead is the best they offer.
                        Some(libc::EINVAL) => {
                            map.advise_range(memmap2::Advice::WillNeed, range.start, range.len())
                        }
                        _ => Err(error),
                    })
                    .map_err(|error| {
                        IoError::new("read", &self.path, &error).at(range.start as u64, range.len())
                    })
            }
            Memory::Heap { pager: Some(pager), .. } => pager.populate(range),
            Memory::Heap { pager: None, .. } => Ok(()),
        }
    }

    /// Whether reading the range would not have to wait for the medium: its pages, or the first of very many, are in memory. A system
    /// call. Where the kernel does not tell (it does so only to those who may write the file), they are.
    #[must_use]
    pub fn is_resident(&self, range: Range<usize>) -> bool {
        match &self.memory {
            Memory::Kernel(map) => map.get(range).is_none_or(is_resident),
            Memory::Heap { pager: Some(pager), .. } => pager.is_resident(range),
            Memory::Heap { pager: None, .. } => true,
        }
    }

    /// Tells the kernel what is coming. Only a hint: failures are ignored.
    pub fn advise(&self, advice: Advice, range: Range<usize>) {
        let end = range.end.min(self.len());
        if range.start >= end {
            return;
        }
        match &self.memory {
            Memory::Kernel(map) => {
                let advice = match advice {
                    Advice::Random => memmap2::Advice::Random,
                    Advice::WillNeed => memmap2::Advice::WillNeed,
                };
                let _ = map.advise_range(advice, range.start, end - range.start);
            }
            Memory::Heap { pager: Some(pager), .. } => pager.advise(advice, range.start..end),
            Memory::Heap { pager: None, .. } => {}
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Kernel(map) => map,
            Memory::Heap { bytes, .. } => bytes,
        }
    }
}

impl Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("path", &self.path).field("len", &self.len()).finish()
    }
}

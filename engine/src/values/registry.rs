//! The value files that are open, by number.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::GARBAGE_SHARE;
use super::file::{PinnedRange, ValueFile};
use super::format::Pointer;
use super::moving::{Movable, is_small};
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::FileNumber;
use crate::manifest::{LiveFiles, Version};
use crate::sstable::TableEnv;

/// Finds open value files. The tables that point to a file keep it open.
#[derive(Debug)]
pub(crate) struct ValueFiles {
    open: RwLock<HashMap<FileNumber, Weak<ValueFile>>>,
    files: Arc<LiveFiles>,
}

impl ValueFiles {
    pub(crate) fn new(files: &Arc<LiveFiles>) -> Arc<Self> {
        Arc::new(Self { open: RwLock::default(), files: Arc::clone(files) })
    }

    fn find(&self, number: FileNumber) -> Option<Arc<ValueFile>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&number)?.upgrade()
    }

    /// The file, opened if it is not.
    pub(crate) fn open(&self, env: &TableEnv, number: FileNumber) -> Result<Arc<ValueFile>> {
        if let Some(file) = self.find(number) {
            return Ok(file);
        }
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = ValueFile::open(env, number, &self.files)?;
        open.retain(|_, file| file.strong_count() > 0);
        open.insert(number, Arc::downgrade(&file));
        Ok(file)
    }

    /// The value that the bytes of a pointer point to. Whoever asks holds the table that the pointer is from.
    pub(crate) fn read(&self, pointer: &[u8]) -> Result<PinnedRange> {
        let pointer = Pointer::decode(pointer)?;
        match self.find(pointer.file) {
            Some(file) => file.value(pointer),
            None => Err(Error::new(
                ErrorKind::Corruption,
                format!("a table points to value file {:06}, but does not say so", pointer.file),
            )),
        }
    }

    /// What the value files of a version hold, and what of it is garbage, where tables should have `table_bytes`.
    pub(crate) fn usage(&self, version: &Version, table_bytes: u64) -> ValueUsage {
        let mut live: HashMap<FileNumber, u64> = HashMap::new();
        for share in version.tables().flat_map(|(_, table)| &table.meta.values) {
            *live.entry(share.file).or_default() += share.bytes;
        }
        let mut usage = ValueUsage { files: live.len(), ..ValueUsage::default() };
        for (number, live) in live {
            let Some(file) = self.find(number) else { continue };
            let garbage = file.value_bytes().saturating_sub(live);
            usage.file_bytes += file.file_bytes();
            usage.garbage_bytes += garbage;
            if garbage > 0 && garbage * 100 >= file.value_bytes() * GARBAGE_SHARE {
                usage.movable.to_empty.insert(number);
            } else if is_small(live, table_bytes) {
                usage.movable.small.insert(number);
            }
        }
        usage
    }
}

/// What the value files of a version hold.
#[derive(Debug, Default)]
pub(crate) struct ValueUsage {
    pub(crate) files: usize,
    pub(crate) file_bytes: u64,
    /// Bytes of values that no table points to.
    pub(crate) garbage_bytes: u64,
    /// The files whose values should move.
    pub(crate) movable: Movable,
}

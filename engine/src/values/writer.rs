//! Writes one value file front to back.

use rustlite_io::FileSink;

use super::format::{HEADER_BYTES, Pointer, encode_header};
use crate::error::Result;
use crate::file_name::FileName;
use crate::manifest::PendingFile;
use crate::sstable::{Codec, Identity, TableEnv};

/// A value file in the making. Dropped without [`finish`](Self::finish), it removes its file.
pub(crate) struct ValueWriter {
    env: TableEnv,
    identity: Identity,
    /// `None` once finished.
    sink: Option<Box<dyn FileSink>>,
    offset: u64,
    pending: Option<PendingFile>,
    /// Scratch: a sealed value.
    sealed: Vec<u8>,
}

impl ValueWriter {
    /// Creates the file.
    pub(crate) fn create(env: &TableEnv, pending: PendingFile) -> Result<Self> {
        let number = pending.number();
        let path = FileName::Values(number).path(&env.directory);
        let identity = Identity { path, database_id: env.database_id, number };
        let mut writer = Self {
            sink: Some(env.fs.create_sink(&identity.path)?),
            env: env.clone(),
            offset: HEADER_BYTES as u64,
            pending: Some(pending),
            sealed: Vec::new(),
            identity,
        };
        let header = encode_header(&writer.identity, env.fs.random_u64());
        writer.append(&header)?;
        Ok(writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(sink) = &mut self.sink {
            sink.append(bytes)?;
        }
        Ok(())
    }

    /// Adds a value; gives where it lies.
    pub(crate) fn add(&mut self, value: &[u8]) -> Result<Pointer> {
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.clear();
        sealed.extend_from_slice(value);
        self.identity.seal(self.offset, Codec::None, &mut sealed);
        let appended = self.append(&sealed);
        let pointer =
            Pointer { file: self.identity.number, offset: self.offset, len: value.len() as u64 };
        self.offset += sealed.len() as u64;
        self.sealed = sealed;
        appended.map(|()| pointer)
    }

    /// Size of the file so far.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.offset
    }

    /// Makes the content durable; the directory is the caller's to sync. Keep what it gives until a version has tables that point
    /// here.
    pub(crate) fn finish(mut self) -> Result<PendingFile> {
        if let Some(sink) = &mut self.sink {
            sink.finish()?;
        }
        self.sink = None;
        self.pending.take().ok_or_else(|| crate::error::Error::internal("finished twice"))
    }
}

impl Drop for ValueWriter {
    fn drop(&mut self) {
        if self.sink.take().is_some()
            && let Err(error) = self.env.fs.remove(&self.identity.path)
        {
            tracing::warn!(%error, "an unfinished value file stays until the next open");
        }
    }
}

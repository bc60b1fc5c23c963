//! A table while it is written, for flushes, compactions and ingests alike: its large values go to value files.

use crate::compaction::output::{NewTable, OutputContext};
use crate::compaction::separate::Separator;
use crate::error::Result;
use crate::key::{KeyspaceId, Trailer};
use crate::manifest::PendingFile;
use crate::sstable::{TableOptions, TableWriter};

/// A table of one keyspace that is not finished.
pub(crate) struct OpenTable {
    pub(super) writer: TableWriter,
    /// About the size of its file, if it ended behind the last record.
    pub(super) written: u64,
    pending: PendingFile,
    pub(super) keyspace: KeyspaceId,
    /// Values from this length on are separated.
    separated_from: usize,
}

impl OpenTable {
    /// Begins a table; `None` if the keyspace was dropped.
    pub(crate) fn begin(context: &OutputContext<'_>, keyspace: KeyspaceId) -> Result<Option<Self>> {
        let Some(descriptor) = context.versions.keyspace(keyspace) else { return Ok(None) };
        let pending = context.versions.new_table();
        let options = TableOptions::from(&descriptor);
        let writer = TableWriter::create(context.env, pending.number(), options)?;
        let separated_from = descriptor.options.separated_from().unwrap_or(usize::MAX);
        Ok(Some(Self { writer, written: 0, pending, keyspace, separated_from }))
    }

    /// Adds the next record.
    #[inline]
    pub(crate) fn add(
        &mut self,
        context: &OutputContext<'_>,
        separator: &mut Separator,
        (key, trailer, value): (&[u8], Trailer, &[u8]),
    ) -> Result<()> {
        let stays = value.len() < self.separated_from && !context.may_move(trailer);
        let (trailer, value) =
            if stays { (trailer, value) } else { separator.separate(context, trailer, value)? };
        self.writer.add(key, trailer, value)?;
        self.written = self.writer.estimated_bytes();
        Ok(())
    }

    /// True if the table has reached its size.
    #[inline]
    pub(crate) fn is_full(&self, context: &OutputContext<'_>) -> bool {
        self.written >= context.table_bytes
    }

    /// Makes the table durable.
    pub(crate) fn finish(self) -> Result<NewTable> {
        Ok(NewTable::new(self.writer.finish()?, self.pending))
    }

    /// Removes what was written.
    pub(crate) fn abandon(self) {
        self.writer.abandon();
    }
}

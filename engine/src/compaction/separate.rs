//! Moves large values out of the records that an output writes, into value files.

use crate::compaction::output::{NewTable, NewValues, OutputContext, remove_file};
use crate::error::Result;
use crate::file_name::FileName;
use crate::key::{Trailer, ValueKind};
use crate::sstable::TableEnv;
use crate::values::{Pointer, ValueWriter, full_bytes};

/// The value files of one output.
pub(crate) struct Separator {
    env: TableEnv,
    writer: Option<ValueWriter>,
    finished: Vec<NewValues>,
    /// Scratch: the bytes of a pointer.
    pointer: Vec<u8>,
}

impl Separator {
    pub(crate) fn new(env: &TableEnv) -> Self {
        Self { env: env.clone(), writer: None, finished: Vec::new(), pointer: Vec::new() }
    }

    /// The record with a pointer instead of its value, or with another pointer if its value moves.
    pub(super) fn separate<'r>(
        &'r mut self,
        context: &OutputContext<'_>,
        trailer: Trailer,
        value: &'r [u8],
    ) -> Result<(Trailer, &'r [u8])> {
        match trailer.kind() {
            Some(ValueKind::Put) => self.write(context, value)?,
            Some(ValueKind::ValuePointer) => {
                if !context.moving.contains(&Pointer::decode(value)?.file) {
                    return Ok((trailer, value));
                }
                let read = self.env.values.read(value)?;
                self.write(context, read.as_slice())?;
            }
            // Operands are short-lived, and the other kinds have no value of that length.
            _ => return Ok((trailer, value)),
        }
        Ok((Trailer::new(trailer.sequence(), ValueKind::ValuePointer), &self.pointer))
    }

    fn write(&mut self, context: &OutputContext<'_>, value: &[u8]) -> Result<()> {
        let full = full_bytes(context.table_bytes);
        if self.writer.as_ref().is_some_and(|writer| writer.file_bytes() >= full) {
            self.end_file()?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let pending = context.versions.new_table();
                self.writer.insert(ValueWriter::create(&self.env, pending)?)
            }
        };
        let pointer = writer.add(value)?;
        self.pointer.clear();
        pointer.encode(&mut self.pointer);
        if let Some(limiter) = context.limiter {
            limiter.spend(pointer.stored_bytes());
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            let file_bytes = writer.file_bytes();
            self.finished.push(NewValues { file_bytes, pending: writer.finish()? });
        }
        Ok(())
    }

    /// Makes all value files durable. They belong to the first of the finished tables from then on; without any, they go.
    pub(crate) fn finish(&mut self, tables: &mut [NewTable]) -> Result<()> {
        self.end_file()?;
        if let Some(first) = tables.first_mut() {
            first.keep(std::mem::take(&mut self.finished));
        }
        Ok(())
    }
}

impl Drop for Separator {
    /// Removes what no table has.
    fn drop(&mut self) {
        for values in &self.finished {
            remove_file(&self.env, FileName::Values(values.pending.number()));
        }
    }
}

//! Moves large values out of the records that an output writes, into value files.

use crate::compaction::output::{NewValues, OutputContext, remove_file};
use crate::error::Result;
use crate::file_name::FileName;
use crate::key::{Trailer, ValueKind};
use crate::values::{Pointer, ValueWriter};

/// A value file ends once it is so many times as large as a table should be: emptying one stays a bounded piece of work.
const FILE_TABLES: u64 = 8;

/// The value files of one output.
pub(super) struct Separator<'a> {
    context: &'a OutputContext<'a>,
    writer: Option<ValueWriter>,
    finished: Vec<NewValues>,
    /// Scratch: the bytes of a pointer.
    pointer: Vec<u8>,
}

impl<'a> Separator<'a> {
    pub(super) fn new(context: &'a OutputContext<'a>) -> Self {
        Self { context, writer: None, finished: Vec::new(), pointer: Vec::new() }
    }

    /// True if a record of this kind may have to move, whatever its length.
    #[inline]
    pub(super) fn concerns(&self, trailer: Trailer) -> bool {
        trailer.kind() == Some(ValueKind::ValuePointer) && !self.context.to_empty.is_empty()
    }

    /// The record with a pointer instead of its value, or with another pointer if its value file is to be emptied.
    pub(super) fn separate<'r>(
        &'r mut self,
        trailer: Trailer,
        value: &'r [u8],
    ) -> Result<(Trailer, &'r [u8])> {
        match trailer.kind() {
            Some(ValueKind::Put) => self.write(value)?,
            Some(ValueKind::ValuePointer) => {
                if !self.context.to_empty.contains(&Pointer::decode(value)?.file) {
                    return Ok((trailer, value));
                }
                let read = self.context.env.values.read(value)?;
                self.write(read.as_slice())?;
            }
            // Operands are short-lived, and the other kinds have no value of that length.
            _ => return Ok((trailer, value)),
        }
        Ok((Trailer::new(trailer.sequence(), ValueKind::ValuePointer), &self.pointer))
    }

    fn write(&mut self, value: &[u8]) -> Result<()> {
        let full = FILE_TABLES.saturating_mul(self.context.table_bytes);
        if self.writer.as_ref().is_some_and(|writer| writer.file_bytes() >= full) {
            self.end_file()?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let pending = self.context.versions.new_table();
                self.writer.insert(ValueWriter::create(self.context.env, pending)?)
            }
        };
        let pointer = writer.add(value)?;
        self.pointer.clear();
        pointer.encode(&mut self.pointer);
        if let Some(limiter) = self.context.limiter {
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

    /// Makes all value files durable. They belong to whoever asked from then on.
    pub(super) fn finish(&mut self) -> Result<Vec<NewValues>> {
        self.end_file()?;
        Ok(std::mem::take(&mut self.finished))
    }
}

impl Drop for Separator<'_> {
    /// After an error: removes what was written.
    fn drop(&mut self) {
        for values in &self.finished {
            remove_file(self.context.env, FileName::Values(values.pending.number()));
        }
    }
}

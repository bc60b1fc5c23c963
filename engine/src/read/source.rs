//! One sorted source of a merge: a memtable, a table, a run of tables, or a transaction's own writes.

use std::sync::Arc;

use crate::cursor::{Cursor, Standing};
use crate::error::Result;
use crate::key::Trailer;
use crate::manifest::{Run, TableHandle};
use crate::memtable::MemtableCursor;
use crate::read::overlay::OverlayCursor;
use crate::sstable::{TableCursor, TableStream};

/// Any source of a reader. An enum rather than a trait object: the merge calls it for every record.
///
/// Compactions merge runs of [`TableStream`] only. Those stay on one thread, while what readers hold can be sent to another.
#[repr(u8)] // What it is shall be a number of its own, not to be worked out from something inside.
pub(crate) enum Source {
    Memtable(MemtableCursor),
    /// Through the memory map.
    Run(RunCursor<TableCursor>),
    /// What the reading transaction has written itself.
    Overlay(OverlayCursor),
}

macro_rules! dispatch {
    ($self:expr, $cursor:ident => $body:expr) => {
        match $self {
            Source::Memtable($cursor) => $body,
            Source::Run($cursor) => $body,
            Source::Overlay($cursor) => $body,
        }
    };
}

impl Cursor for Source {
    #[inline]
    fn valid(&self) -> bool {
        dispatch!(self, cursor => cursor.valid())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        dispatch!(self, cursor => cursor.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        dispatch!(self, cursor => cursor.seek_to_last())
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        dispatch!(self, cursor => cursor.seek(key, trailer))
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        dispatch!(self, cursor => cursor.seek_before(key, trailer))
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Standing>> {
        dispatch!(self, cursor => cursor.next())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        dispatch!(self, cursor => cursor.standing())
    }

    #[inline]
    fn is_surely_newest(&self) -> bool {
        dispatch!(self, cursor => cursor.is_surely_newest())
    }

    #[inline]
    fn prev(&mut self) -> Result<Option<Standing>> {
        dispatch!(self, cursor => cursor.prev())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        dispatch!(self, cursor => cursor.key())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        dispatch!(self, cursor => cursor.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        dispatch!(self, cursor => cursor.value())
    }
}

/// A cursor over one table.
pub(crate) trait TableWalk: Cursor + Sized {
    /// Opens one, not positioned.
    fn open(handle: &TableHandle) -> Result<Self>;
}

impl TableWalk for TableCursor {
    fn open(handle: &TableHandle) -> Result<Self> {
        Ok(handle.table.cursor())
    }
}

impl TableWalk for TableStream {
    fn open(handle: &TableHandle) -> Result<Self> {
        handle.table.stream()
    }
}

/// A cursor over a run: sorted tables whose key ranges don't meet. Opens one table at a time.
pub(crate) struct RunCursor<C> {
    run: Arc<Run>,
    /// Index of the table under `cursor`.
    index: usize,
    cursor: Option<C>,
}

impl<C: TableWalk> RunCursor<C> {
    pub(crate) fn new(run: Arc<Run>) -> Self {
        Self { run, index: 0, cursor: None }
    }

    /// The cursor over the table at `index`; `None` past either end.
    fn open(&mut self, index: Option<usize>) -> Result<Option<&mut C>> {
        let Some((index, handle)) =
            index.and_then(|index| Some((index, self.run.tables().get(index)?)))
        else {
            self.cursor = None;
            return Ok(None);
        };
        if self.cursor.is_none() || self.index != index {
            self.cursor = Some(C::open(handle)?);
            self.index = index;
        }
        Ok(self.cursor.as_mut())
    }

    /// From a table's end to the first record of a following table that has one.
    fn skip_forward(&mut self) -> Result<()> {
        while self.cursor.as_ref().is_some_and(|cursor| !cursor.valid()) {
            if let Some(cursor) = self.open(Some(self.index + 1))? {
                cursor.seek_to_first()?;
            }
        }
        Ok(())
    }

    /// From a table's beginning to the last record of a preceding table that has one.
    fn skip_backward(&mut self) -> Result<()> {
        while self.cursor.as_ref().is_some_and(|cursor| !cursor.valid()) {
            if let Some(cursor) = self.open(self.index.checked_sub(1))? {
                cursor.seek_to_last()?;
            }
        }
        Ok(())
    }

    fn last_index(&self) -> Option<usize> {
        self.run.tables().len().checked_sub(1)
    }

    fn at(&self) -> &C {
        self.cursor.as_ref().expect("only called while the cursor is valid")
    }
}

impl<C: TableWalk> Cursor for RunCursor<C> {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(C::valid)
    }

    fn seek_to_first(&mut self) -> Result<()> {
        if let Some(cursor) = self.open(Some(0))? {
            cursor.seek_to_first()?;
        }
        self.skip_forward()
    }

    fn seek_to_last(&mut self) -> Result<()> {
        if let Some(cursor) = self.open(self.last_index())? {
            cursor.seek_to_last()?;
        }
        self.skip_backward()
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let index = self.run.lower_bound(key);
        if let Some(cursor) = self.open(Some(index))? {
            cursor.seek(key, trailer)?;
        }
        self.skip_forward()
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let index = self.last_index().map(|last| self.run.lower_bound(key).min(last));
        if let Some(cursor) = self.open(index)? {
            cursor.seek_before(key, trailer)?;
        }
        self.skip_backward()
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Standing>> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        if let Some(standing) = cursor.next()? {
            return Ok(Some(standing));
        }
        self.skip_forward()?;
        Ok(self.standing())
    }

    #[inline]
    fn standing(&self) -> Option<Standing> {
        // Tables of a run share no key, and a cursor that was just opened repeats nothing.
        self.cursor.as_ref()?.standing()
    }

    #[inline]
    fn is_surely_newest(&self) -> bool {
        self.at().is_surely_newest()
    }

    #[inline]
    fn prev(&mut self) -> Result<Option<Standing>> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        if let Some(standing) = cursor.prev()? {
            return Ok(Some(standing));
        }
        self.skip_backward()?;
        Ok(self.standing())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.at().key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.at().trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.at().value()
    }
}

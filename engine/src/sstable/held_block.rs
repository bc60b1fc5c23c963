//! A table and one of its blocks, held so that the block's bytes are a pointer away.
//!
//! A scan asks for them twice for each record; finding them in the map or in the cached block each time was a tenth of its work.

use std::ptr::NonNull;
use std::sync::Arc;

use super::table::{DataBlock, Table};

/// A share of a table, and a block of it. At first there is no block, and its bytes are none.
#[derive(Debug)]
pub(super) struct HeldBlock {
    table: Arc<Table>,
    /// Keeps the bytes, if the table's map does not.
    block: DataBlock,
    /// What `table.bytes_of(&block)` is.
    bytes: NonNull<[u8]>,
}

// SAFETY: the pointer is a shared borrow of the other two fields, which can be sent and shared (asserted below).
unsafe impl Send for HeldBlock {}
// SAFETY: as above; nobody writes through the pointer.
unsafe impl Sync for HeldBlock {}

const _: () = {
    const fn can_be_sent_and_shared<T: Send + Sync>() {}
    can_be_sent_and_shared::<(Arc<Table>, DataBlock)>();
};

impl HeldBlock {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, block: DataBlock::default(), bytes: NonNull::from(&[]) }
    }

    #[inline]
    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Holds another block, which the table gave.
    pub(super) fn hold(&mut self, block: DataBlock) {
        self.block = block;
        self.bytes = NonNull::from(self.table.bytes_of(&self.block));
    }

    /// The block's bytes.
    #[inline(always)]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the pointer is to nothing, or into the table's map or the cached block. Both are immutable, lie behind an `Arc`, so that
        // they stay where they are when this value moves, and live as long as the fields that hold them; `hold` is the only one to
        // change a field, and sets the pointer anew. The borrow of `self` keeps it from being called meanwhile.
        unsafe { self.bytes.as_ref() }
    }
}

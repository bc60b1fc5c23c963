//! Writes a frozen memtable as tables of level 0.

use crate::compaction::output::{NewTable, Output, OutputContext};
use crate::compaction::retention::Retention;
use crate::cursor::Cursor as _;
use crate::error::Result;
use crate::read::view::FrozenMemtable;

/// Writes the records of `frozen` that somebody can still see. The tables are durable, but not part of a version.
pub(crate) fn write_tables(
    context: &OutputContext<'_>,
    frozen: &FrozenMemtable,
    retention: &Retention,
) -> Result<Vec<NewTable>> {
    let inputs = frozen.memtable.range_tombstones();
    let tombstones = retention.tombstones(&inputs);
    let mut filter = retention.filter(&inputs);
    let mut output = Output::new(context, &tombstones, &[], None);
    let mut cursor = frozen.memtable.cursor();
    cursor.seek_to_first()?;
    while cursor.valid() {
        let mut emit = |key: &[u8], trailer, value: &[u8]| output.add(key, trailer, value);
        filter.push(cursor.key(), cursor.trailer(), cursor.value(), &mut emit)?;
        cursor.next()?;
    }
    filter.finish(&mut |key, trailer, value| output.add(key, trailer, value))?;
    output.complete(None)
}

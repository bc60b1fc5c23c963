//! Reads a whole table and checks all that can be known without other files.
//!
//! Beyond checksums it finds what a bug in a writer would have made: records out of order, separators that hide keys, filters
//! that deny keys, counts that are wrong.

use super::block::{BlockView, tag_of};
use super::format::FOOTER_BYTES;
use super::position::Position;
use super::stream::BlockReader;
use super::table::Table;
use crate::error::{Error, Result};
use crate::key::{Trailer, ValueKind, compare_internal, hash_key};
use crate::kinds::expiry::EXPIRY_BYTES;
use crate::values::Pointer;

/// What the records told so far.
struct Seen {
    entries: u64,
    deletions: u64,
    expiring: u64,
    pointers: Vec<Pointer>,
    raw_bytes: u64,
    key: Vec<u8>,
    trailer: Trailer,
    smallest_sequence: u64,
    largest_sequence: u64,
}

impl Table {
    /// Reads the file front to back and checks it. Gives the number of bytes checked.
    pub(crate) fn verify(&self) -> Result<u64> {
        let mut reader = BlockReader::open(self)?;
        let mut seen = Seen {
            entries: 0,
            deletions: 0,
            expiring: 0,
            pointers: Vec::new(),
            raw_bytes: 0,
            key: Vec::new(),
            trailer: Trailer::NEWEST,
            smallest_sequence: u64::MAX,
            largest_sequence: 0,
        };
        for index in 0..self.index.count() {
            let place = self.index.place(&self.map, index);
            let place = place.ok_or_else(|| self.wrong(0, "no place for a data block"))?;
            reader.read(self, place)?;
            self.verify_block(index, place.offset, reader.payload(), &mut seen)?;
        }
        self.verify_counts(&seen)?;
        self.verify_description(&mut reader)?;
        Ok(self.map.len() as u64 + self.verify_values(seen.pointers)?)
    }

    fn wrong(&self, offset: u64, detail: impl Into<String>) -> Error {
        self.identity.corruption(offset, "table", detail)
    }

    fn verify_block(&self, index: usize, at: u64, block: &[u8], seen: &mut Seen) -> Result<()> {
        let malformed = || self.malformed_block(at);
        let view = BlockView::parse(block).ok_or_else(malformed)?;
        let mut position = Position::new();
        position.enter(block).ok_or_else(malformed)?;
        position.set(block, 0).ok_or_else(malformed)?;
        if index > 0 {
            let before = self.index.separator(&self.map, index - 1).ok_or_else(malformed)?;
            if before.as_slice() > position.key() {
                return Err(self.wrong(at, "a block begins before the separator in front of it"));
            }
        }
        let mut end = view.layout().records_at();
        loop {
            let record = position.index();
            if view.record_offset(record) != Some(end) {
                return Err(self.wrong(at, format!("record {record} is not where it should be")));
            }
            end = position.value().end;
            let value = block.get(position.value()).unwrap_or_default();
            self.verify_record(at, view.tag(record), (&position, value), seen)?;
            if !position.advance(block).ok_or_else(malformed)? {
                break;
            }
        }
        let separator = self.index.separator(&self.map, index).ok_or_else(malformed)?;
        if separator < seen.key {
            return Err(self.wrong(at, "a block ends after its separator"));
        }
        Ok(())
    }

    fn verify_record(
        &self,
        at: u64,
        tag: Option<u8>,
        (position, value): (&Position, &[u8]),
        seen: &mut Seen,
    ) -> Result<()> {
        let (key, trailer) = (position.key(), position.trailer());
        let ordered =
            seen.entries == 0 || compare_internal(&seen.key, seen.trailer, key, trailer).is_lt();
        if !ordered {
            return Err(self.wrong(at, format!("record {} is out of order", position.index())));
        }
        if trailer.kind().is_none_or(|kind| kind == ValueKind::RangeDelete) {
            return Err(self.wrong(at, format!("unknown kind in trailer {:#x}", trailer.0)));
        }
        let hash = hash_key(key);
        if tag != Some(tag_of(hash)) || !self.may_contain(key, hash) {
            return Err(self.wrong(at, format!("record {} is hidden", position.index())));
        }
        seen.entries += 1;
        seen.deletions += u64::from(trailer.kind() == Some(ValueKind::Delete));
        if trailer.kind() == Some(ValueKind::PutExpiring) {
            seen.expiring += 1;
            if value.len() < EXPIRY_BYTES {
                return Err(self.wrong(at, format!("record {} is too short", position.index())));
            }
        }
        if trailer.kind() == Some(ValueKind::ValuePointer) {
            seen.pointers.push(Pointer::decode(value)?);
        }
        seen.raw_bytes += (key.len() + value.len()) as u64;
        seen.smallest_sequence = seen.smallest_sequence.min(trailer.sequence());
        seen.largest_sequence = seen.largest_sequence.max(trailer.sequence());
        seen.key.clear();
        seen.key.extend_from_slice(key);
        seen.trailer = trailer;
        let meta = &self.meta;
        if key < meta.smallest.as_slice() || meta.ends_before(key) {
            return Err(self.wrong(at, "a record lies outside the bounds of its table"));
        }
        Ok(())
    }

    /// Checks the values that lie in value files, and how much of which files they take.
    fn verify_values(&self, mut pointers: Vec<Pointer>) -> Result<u64> {
        pointers.sort_unstable();
        let mut bytes = 0;
        let mut groups = pointers.chunk_by(|a, b| a.file == b.file);
        for (share, file) in self.meta.values.iter().zip(&self.values) {
            let group = groups.next().unwrap_or_default();
            let found: u64 = group.iter().map(|pointer| pointer.stored_bytes()).sum();
            let same_file = group.iter().all(|pointer| pointer.file == share.file);
            if !same_file || found != share.bytes {
                let (stated, file) = (share.bytes, share.file);
                let detail = format!("{stated} bytes of value file {file} stated, not so found");
                return Err(self.wrong(self.footer.properties.offset, detail));
            }
            bytes += file.verify(group)?;
        }
        match groups.next() {
            None => Ok(bytes),
            Some(_) => {
                let at = self.footer.properties.offset;
                Err(self.wrong(at, "records point to a value file that is not stated"))
            }
        }
    }

    fn verify_counts(&self, seen: &Seen) -> Result<()> {
        let at = self.footer.properties.offset;
        let meta = &self.meta;
        for (what, stated, found) in [
            ("records", meta.entries, seen.entries),
            ("deletes", meta.deletions, seen.deletions),
            ("values that expire", meta.expiring, seen.expiring),
            ("raw bytes", meta.raw_bytes, seen.raw_bytes),
        ] {
            if stated != found {
                return Err(self.wrong(at, format!("{stated} {what} stated, {found} found")));
            }
        }
        if seen.entries > 0
            && (seen.smallest_sequence < meta.smallest_sequence
                || seen.largest_sequence > meta.largest_sequence)
        {
            return Err(self.wrong(at, "sequence numbers outside of the stated bounds"));
        }
        let fragments = self.range_tombstones().fragments();
        let tombstones: u64 = fragments.map(|(_, _, sequences)| sequences.len() as u64).sum();
        if tombstones != meta.range_tombstones {
            let stated = meta.range_tombstones;
            let detail = format!("{stated} range tombstones stated, {tombstones} found");
            return Err(self.wrong(at, detail));
        }
        Ok(())
    }

    /// Checks the blocks behind the data once more, as they are on the medium and not as the map shows them.
    fn verify_description(&self, reader: &mut BlockReader) -> Result<()> {
        let footer = &self.footer;
        for (handle, what) in [
            (footer.filter, "table filter"),
            (footer.index, "table index"),
            (footer.tombstones, "range tombstones"),
            (footer.properties, "table properties"),
        ] {
            if handle.len > 0 {
                let block = reader.raw(handle.offset..handle.offset + handle.len)?;
                self.identity.unseal(handle.offset, block, what)?;
            }
        }
        let end = self.map.len() as u64;
        let stored = reader.raw(end - FOOTER_BYTES as u64..end)?;
        if Some(stored) != self.map.last_chunk::<FOOTER_BYTES>().map(|bytes| &bytes[..]) {
            return Err(self.wrong(end - FOOTER_BYTES as u64, "the footer has changed"));
        }
        Ok(())
    }
}

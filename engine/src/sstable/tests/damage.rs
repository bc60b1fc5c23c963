//! Damage is found or harmless: no byte of a file can make a table lie, panic or hang.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use rustlite_io::{IoError, Mapping, SimFileSystem};

use super::super::compression::Codec;
use super::super::format::{BLOCK_TRAILER_BYTES, Identity};
use super::super::{Table, TableEnv, TableMeta};
use super::fixtures::*;
use crate::cursor::Cursor;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Trailer, ValueKind, hash_key};
use crate::options::Compression;
use crate::range_tombstones::RangeTombstones;

struct Sample {
    fs: Arc<SimFileSystem>,
    env: TableEnv,
    meta: TableMeta,
    model: Model,
    tombstones: RangeTombstones,
    bytes: Vec<u8>,
}

/// A small table with every kind of block.
fn sample(compression: Compression) -> Sample {
    let mut model = Model::new();
    for number in 0..60_u64 {
        let key = format!("0000key{number:03}").into_bytes();
        let versions = if number % 10 == 0 { 3 } else { 1 };
        for version in 0..versions {
            let trailer = Trailer::new(number * 10 + version, ValueKind::Put);
            let value = format!("value {number} value {number} value {version}").into_bytes();
            model.insert((key.clone(), Reverse(trailer)), value);
        }
    }
    let tombstones =
        RangeTombstones::from_tombstones([(b"0000a".to_vec(), b"0000b".to_vec(), 700)]);
    let fs = SimFileSystem::volatile();
    let env = env(&fs);
    let meta = write(&env, 7, options(compression, 512), &model, &tombstones).unwrap();
    let bytes = fs.read_file(path(&env, 7)).unwrap();
    Sample { fs, env, meta, model, tombstones, bytes }
}

impl Sample {
    fn put(&self, number: u64, bytes: &[u8]) {
        let path = path(&self.env, number);
        if self.env.fs.exists(&path).unwrap() {
            self.env.fs.remove(&path).unwrap();
        }
        self.fs.write_file(path, bytes).unwrap();
    }

    /// Reads all there is to read; an answer that is not the model's fails the test.
    fn read_everything(&self, meta: &TableMeta) -> Result<()> {
        let mut env = self.env.clone();
        env.cache = Arc::new(super::super::BlockCache::new(1 << 20));
        let table = Table::open(&env, meta)?;
        assert_eq!(**table.range_tombstones(), self.tombstones);
        for ((key, trailer), value) in &self.model {
            let hash = hash_key(key);
            assert!(table.may_contain(key, hash), "the filter denies a key that exists");
            let found = table.get(key, hash, trailer.0.sequence())?;
            let (found_trailer, found) = found.expect("a record that exists was not found");
            assert_eq!((found_trailer, table.value(&found)), (trailer.0, value.as_slice()));
        }
        let mut cursor = table.cursor();
        let mut stream = table.stream()?;
        cursor.seek_to_first()?;
        stream.seek_to_first()?;
        for ((key, trailer), value) in &self.model {
            for at in [&cursor as &dyn Cursor, &stream] {
                assert!(at.valid(), "a record is missing");
                assert_eq!((at.key(), at.trailer(), at.value()), (&**key, trailer.0, &**value));
            }
            cursor.next()?;
            stream.next()?;
        }
        assert!(!cursor.valid() && !stream.valid());
        Ok(())
    }

    fn assert_names_file(&self, error: &Error, number: u64, what: &str) {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        let details = error.corruption_details().unwrap();
        assert_eq!(details.file, path(&self.env, number), "{what}");
        assert!(details.offset < self.bytes.len() as u64 + 512, "{what}: {error}");
    }
}

#[test]
fn every_flipped_byte_is_detected_or_harmless() {
    for compression in codecs() {
        let sample = sample(compression);
        sample.read_everything(&sample.meta).unwrap();
        let mut harmless = 0;
        for at in 0..sample.bytes.len() {
            let mut bytes = sample.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            sample.put(7, &bytes);
            match sample.read_everything(&sample.meta) {
                Ok(()) => harmless += 1,
                Err(error) => sample.assert_names_file(&error, 7, &format!("byte {at}")),
            }
        }
        // Only the padding in front of filter and index is not covered by a checksum.
        assert!(harmless <= 2 * 63, "{harmless} flipped bytes went unnoticed");
    }
}

#[test]
fn truncated_and_extended_files_are_refused() {
    let sample = sample(Compression::None);
    for len in 0..sample.bytes.len() {
        sample.put(7, &sample.bytes[..len]);
        let error = Table::open(&sample.env, &sample.meta).unwrap_err();
        sample.assert_names_file(&error, 7, &format!("length {len}"));
        // A manifest that believes the wrong length does not help.
        let meta = TableMeta { file_bytes: len as u64, ..sample.meta.clone() };
        let error = Table::open(&sample.env, &meta).unwrap_err();
        sample.assert_names_file(&error, 7, &format!("length {len}, believed"));
    }
    let extended = [sample.bytes.as_slice(), &[0; 512]].concat();
    sample.put(7, &extended);
    let meta = TableMeta { file_bytes: extended.len() as u64, ..sample.meta.clone() };
    for meta in [&sample.meta, &meta] {
        let error = Table::open(&sample.env, meta).unwrap_err();
        sample.assert_names_file(&error, 7, "extended");
    }
}

#[test]
fn zeroed_pages_and_misplaced_blocks_fail_their_checksum() {
    let sample = sample(Compression::None);
    let table = Table::open(&sample.env, &sample.meta).unwrap();
    let places: Vec<_> = (0..table.index.count())
        .map(|index| table.index.place(&table.map, index).unwrap())
        .collect();
    assert!(places.len() >= 4);
    for (from, to) in [(0, 1), (1, 0), (2, 1), (1, 3)] {
        let (from, to) = (places[from], places[to]);
        let mut bytes = sample.bytes.clone();
        let len = (from.end - from.offset).min(to.end - to.offset) as usize;
        bytes.copy_within(from.offset as usize..from.offset as usize + len, to.offset as usize);
        sample.put(7, &bytes);
        let error = sample.read_everything(&sample.meta).unwrap_err();
        sample.assert_names_file(&error, 7, "misplaced block");
        assert_eq!(error.corruption_details().unwrap().offset, to.offset);
    }
    for start in (0..sample.bytes.len()).step_by(512) {
        let mut bytes = sample.bytes.clone();
        let end = (start + 512).min(bytes.len());
        bytes[start..end].fill(0);
        sample.put(7, &bytes);
        let error = sample.read_everything(&sample.meta).unwrap_err();
        sample.assert_names_file(&error, 7, &format!("zeros from {start}"));
    }
}

#[test]
fn table_under_another_number_or_of_another_database_is_refused() {
    let sample = sample(Compression::Lz4);
    sample.put(8, &sample.bytes);
    let meta = TableMeta { number: 8, ..sample.meta.clone() };
    let error = Table::open(&sample.env, &meta).unwrap_err();
    sample.assert_names_file(&error, 8, "another number");
    assert!(error.to_string().contains("number 7"), "{error}");

    let env = TableEnv { database_id: 1, ..sample.env.clone() };
    let error = Table::open(&env, &sample.meta).unwrap_err();
    sample.assert_names_file(&error, 7, "another database");
    assert!(error.to_string().contains("belongs to database"), "{error}");
}

#[test]
fn verification_finds_damage_that_no_read_has_touched_yet() {
    let sample = sample(Compression::None);
    let table = Table::open(&sample.env, &sample.meta).unwrap();
    let place = table.index.place(&table.map, 2).unwrap();
    let mut bytes = sample.bytes.clone();
    bytes[place.offset as usize + 200] ^= 4;
    sample.put(7, &bytes);
    let damaged = Table::open(&sample.env, &sample.meta).unwrap();
    let error = damaged.verify().unwrap_err();
    sample.assert_names_file(&error, 7, "verify");
    assert_eq!(error.corruption_details().unwrap().offset, place.offset);
}

/// Turns a block that the medium cannot deliver into a map that says so.
fn failing_map(path: PathBuf, bytes: &[u8], bad: std::ops::Range<usize>) -> Mapping {
    let failed_path = path.clone();
    let hook = move |range: std::ops::Range<usize>| {
        if range.start < bad.end && bad.start < range.end {
            let error = std::io::Error::from_raw_os_error(5);
            return Err(IoError::new("read", &failed_path, &error));
        }
        Ok(())
    };
    Mapping::heap(path, Arc::from(bytes), Some(Box::new(hook)))
}

#[test]
fn block_that_the_medium_cannot_deliver_is_an_error_to_its_readers_only() {
    for compression in codecs() {
        let sample = sample(compression);
        let mut table = Table::open(&sample.env, &sample.meta).unwrap();
        let place = table.index.place(&table.map, 1).unwrap();
        let bad = place.offset as usize..place.end as usize;
        let map = failing_map(path(&sample.env, 7), &sample.bytes, bad);
        Arc::get_mut(&mut table).unwrap().map = map;

        let keys: Vec<_> = sample.model.keys().map(|(key, _)| key.clone()).collect();
        let failed = keys.iter().filter(|key| {
            let result = table.get(key, hash_key(key), 1 << 40);
            match &result {
                Ok(found) => assert!(found.is_some()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io);
                    assert_eq!(error.io_error().unwrap().path(), path(&sample.env, 7));
                }
            }
            result.is_err()
        });
        let failed = failed.count();
        assert!(failed > 0 && failed < keys.len() / 2, "{failed}");

        let mut cursor = table.cursor();
        cursor.seek_to_first().unwrap();
        let mut steps = 0;
        let error = loop {
            assert!(cursor.valid(), "the scan ended as if nothing were missing");
            steps += 1;
            if let Err(error) = cursor.next() {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(!cursor.valid() && steps > 0);
        cursor.seek_to_last().unwrap();
        assert!(cursor.valid(), "other blocks stay readable");
    }
}

/// Every block of the sample: where it is, and its codec.
fn blocks(sample: &Sample) -> Vec<(usize, usize)> {
    let table = Table::open(&sample.env, &sample.meta).unwrap();
    let mut blocks: Vec<_> = (0..table.index.count())
        .map(|index| table.index.place(&table.map, index).unwrap())
        .map(|place| (place.offset as usize, place.end as usize))
        .collect();
    let footer = &table.footer;
    for handle in [footer.filter, footer.index, footer.tombstones, footer.properties] {
        blocks.push((handle.range().start, handle.range().end));
    }
    blocks
}

#[test]
fn hostile_bytes_with_right_checksums_never_panic() {
    let mut random = Random::from_seed(21);
    for compression in codecs() {
        let sample = sample(compression);
        let blocks = blocks(&sample);
        let identity =
            Identity { path: path(&sample.env, 7), database_id: sample.env.database_id, number: 7 };
        for _ in 0..3000 {
            let mut bytes = sample.bytes.clone();
            let (start, end) = blocks[random.below(blocks.len())];
            let payload_end = end - BLOCK_TRAILER_BYTES;
            for _ in 0..=random.below(3) {
                // The first bytes of a block are the most telling ones.
                let reach = if random.below(2) == 0 { 24 } else { usize::MAX };
                let at = start + random.below((payload_end - start).min(reach));
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)];
            }
            let mut block = bytes[start..payload_end].to_vec();
            let codec = Codec::from_u8(bytes[payload_end]).unwrap();
            identity.seal(start as u64, codec, &mut block);
            bytes[start..end].copy_from_slice(&block);
            sample.put(7, &bytes);
            read_without_panic(&sample);
        }
    }
}

/// Like [`Sample::read_everything`], where wrong answers are allowed: no checksum can tell.
fn read_without_panic(sample: &Sample) {
    let mut env = sample.env.clone();
    env.cache = Arc::new(super::super::BlockCache::new(1 << 20));
    let Ok(table) = Table::open(&env, &sample.meta) else { return };
    for (key, trailer) in sample.model.keys().step_by(7) {
        let hash = hash_key(key);
        if let Ok(Some((_, value))) = table.get(key, hash, trailer.0.sequence()) {
            let _ = (table.may_contain(key, hash), table.value(&value));
        }
    }
    let _ = (table.verify(), table.block_boundaries(4), table.approximate_offset(b"0000key3"));
    let mut cursor = table.cursor();
    let mut steps = 0;
    let mut ok = cursor.seek_to_first().is_ok();
    while ok && cursor.valid() {
        let _ = (cursor.key().len(), cursor.value().len());
        steps += 1;
        assert!(steps < 200_000, "a scan does not end");
        ok = cursor.next().is_ok();
    }
    let _ = cursor.seek_before(b"0000key030", Trailer::NEWEST);
    ok = cursor.seek_to_last().is_ok();
    while ok && cursor.valid() {
        ok = cursor.prev().is_ok();
    }
}

#[test]
fn abandoned_and_failed_tables_leave_no_file() {
    let fs = SimFileSystem::volatile();
    let env = env(&fs);
    let mut writer =
        super::super::TableWriter::create(&env, 9, options(Compression::None, 4096)).unwrap();
    writer.add(b"0000a", Trailer::new(1, ValueKind::Put), b"1").unwrap();
    assert!(env.fs.exists(&path(&env, 9)).unwrap());
    writer.abandon();
    assert!(!env.fs.exists(&path(&env, 9)).unwrap());
}

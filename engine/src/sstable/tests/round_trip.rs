//! Tables answer exactly as the sorted map of their records does.

use std::cmp::Reverse;
use std::sync::Arc;

use rustlite_io::SimFileSystem;

use super::super::{Table, TableCursor, TableOptions};
use super::fixtures::*;
use crate::cursor::Cursor;
use crate::index::{FilterKeys, IndexType};
use crate::key::{Sequence, Trailer, ValueKind, hash_key};
use crate::limits::SEQUENCE_MAX;
use crate::options::Compression;
use crate::range_tombstones::RangeTombstones;

type Entry<'a> = (&'a (Vec<u8>, Reverse<Trailer>), &'a Vec<u8>);

fn here(cursor: &impl Cursor) -> Option<(Vec<u8>, Trailer, Vec<u8>)> {
    let record = || (cursor.key().to_vec(), cursor.trailer(), cursor.value().to_vec());
    cursor.valid().then(record)
}

fn owned(entry: Option<Entry<'_>>) -> Option<(Vec<u8>, Trailer, Vec<u8>)> {
    entry.map(|((key, trailer), value)| (key.clone(), trailer.0, value.clone()))
}

fn check_get(table: &Table, model: &Model, key: &[u8], snapshot: Sequence) {
    let from = (key.to_vec(), Reverse(Trailer::seek(snapshot)));
    let expected = model.range(from..).next().filter(|((found, _), _)| found == key);
    let hash = hash_key(key);
    table.prefetch_filter(hash);
    let found = table.get(key, hash, snapshot).unwrap();
    let found = found.map(|(trailer, value)| (key.to_vec(), trailer, table.value(&value).to_vec()));
    assert_eq!(found, owned(expected), "{key:?} at {snapshot}");
    assert!(found.is_none() || table.may_contain(key, hash));
}

fn check_everything(table: &Arc<Table>, model: &Model, random: &mut Random, probes: usize) {
    let mut cursor = table.cursor();
    let mut stream = table.stream().unwrap();
    cursor.seek_to_first().unwrap();
    stream.seek_to_first().unwrap();
    let mut last: Option<&[u8]> = None;
    for entry in model {
        assert_eq!(here(&cursor), owned(Some(entry)));
        assert_eq!(here(&stream), owned(Some(entry)));
        let key = entry.0.0.as_slice();
        if let Some(last) = last.replace(key) {
            assert_eq!((cursor.repeats(), stream.repeats()), (last == key, last == key));
            assert!(!cursor.is_surely_newest() || last != key, "{key:?} has a newer version");
        }
        cursor.next().unwrap();
        stream.next().unwrap();
    }
    assert!(!cursor.valid() && !stream.valid());
    cursor.seek_to_last().unwrap();
    for entry in model.iter().rev() {
        assert_eq!(here(&cursor), owned(Some(entry)));
        cursor.prev().unwrap();
    }
    assert!(!cursor.valid());

    let keys: Vec<_> = model.keys().collect();
    for _ in 0..probes {
        let (key, trailer) = &keys[random.below(keys.len())];
        let mut key = key.clone();
        match random.below(4) {
            0 => key.push(random.next() as u8),
            1 => {
                key.pop();
            }
            _ => {}
        }
        let trailer = match random.below(4) {
            0 => Trailer::NEWEST,
            1 => Trailer::OLDEST,
            2 => Trailer(trailer.0.0.wrapping_add(random.next() % 3).wrapping_sub(1)),
            _ => trailer.0,
        };
        check_get(table, model, &key, trailer.sequence().min(SEQUENCE_MAX));
        check_get(table, model, &key, SEQUENCE_MAX);
        let target = (key.clone(), Reverse(trailer));
        cursor.seek(&key, trailer).unwrap();
        assert_eq!(here(&cursor), owned(model.range(target.clone()..).next()));
        stream.seek(&key, trailer).unwrap();
        assert_eq!(here(&stream), here(&cursor));
        for entry in model.range(target.clone()..).skip(1).take(random.below(4)) {
            cursor.next().unwrap();
            assert_eq!(here(&cursor), owned(Some(entry)));
        }
        cursor.seek_before(&key, trailer).unwrap();
        assert_eq!(here(&cursor), owned(model.range(..target.clone()).next_back()));
        for entry in model.range(..target).rev().skip(1).take(random.below(4)) {
            cursor.prev().unwrap();
            assert_eq!(here(&cursor), owned(Some(entry)));
        }
    }
    assert_eq!(table.verify().unwrap(), table.map.len() as u64);
}

#[test]
fn random_tables_answer_like_their_model() {
    let mut random = Random::from_seed(11);
    for round in 0..4 {
        let model = random_model(&mut random, 1500);
        for compression in codecs() {
            for (block_bytes, filter_bits_per_key, filter_keys) in [
                (512, 10, FilterKeys::Whole),
                (4096, 0, FilterKeys::Whole),
                (32_768, 5, FilterKeys::Whole),
                (4096, 10, FilterKeys::Stems(IndexType::BTree)),
                (4096, 10, FilterKeys::Stems(IndexType::Hash)),
            ] {
                let fs = SimFileSystem::volatile();
                let mut env = env(&fs);
                env.verify_always = round == 1;
                let options =
                    TableOptions { block_bytes, compression, filter_bits_per_key, filter_keys };
                let table = table(&env, options, &model);
                check_everything(&table, &model, &mut random, 400);
            }
        }
    }
}

#[test]
fn records_of_extreme_sizes_come_back() {
    let mut random = Random::from_seed(12);
    let put = |sequence| Reverse(Trailer::new(sequence, ValueKind::Put));
    let mut model = Model::new();
    let long = vec![b'k'; 65_540];
    for (end, sequence) in [(b'a', 3), (b'b', SEQUENCE_MAX), (b'c', 0)] {
        let mut key = long.clone();
        *key.last_mut().unwrap() = end;
        model.insert((key, put(sequence)), vec![7; 100]);
    }
    model.insert((long[..65_539].to_vec(), put(4)), Vec::new());
    model.insert((b"kk".to_vec(), put(5)), random.bytes(1 << 20));
    model.insert((b"kkm".to_vec(), put(6)), vec![0; 1 << 20]);
    model.insert((b"kkn".to_vec(), put(7)), b"small".to_vec());
    model.insert((Vec::new(), put(8)), b"the empty key".to_vec());
    for compression in codecs() {
        let fs = SimFileSystem::volatile();
        let table = table(&env(&fs), options(compression, 4096), &model);
        check_everything(&table, &model, &mut random, 50);
    }
}

#[test]
fn a_cursor_keeps_what_it_stands_in_wherever_it_goes() {
    let mut random = Random::from_seed(16);
    let model = random_model(&mut random, if cfg!(miri) { 60 } else { 1000 });
    for compression in codecs() {
        let fs = SimFileSystem::volatile();
        let table = table(&env(&fs), options(compression, 512), &model);
        let mut cursor = table.cursor();
        drop((table, fs));
        cursor.seek_to_first().unwrap();
        let walk = |mut cursor: Box<TableCursor>, entries: &mut dyn Iterator<Item = Entry<'_>>| {
            for entry in entries {
                assert_eq!(here(&*cursor), owned(Some(entry)));
                cursor.next().unwrap();
            }
            cursor
        };
        let half = model.len() / 2;
        let first = || walk(Box::new(cursor), &mut model.iter().take(half));
        let cursor = std::thread::scope(|scope| scope.spawn(first).join().unwrap());
        assert!(!walk(cursor, &mut model.iter().skip(half)).valid());
    }
}

#[test]
fn versions_of_one_key_over_many_blocks_are_all_reachable() {
    let mut random = Random::from_seed(13);
    let mut model = Model::new();
    for sequence in 1..2000 {
        let trailer = Trailer::new(sequence, ValueKind::Put);
        model.insert((b"hot".to_vec(), Reverse(trailer)), random.bytes(20));
    }
    for (key, sequence) in [(b"cold", 5), (b"warm", 6)] {
        let trailer = Trailer::new(sequence, ValueKind::Put);
        model.insert((key.to_vec(), Reverse(trailer)), Vec::new());
    }
    let fs = SimFileSystem::volatile();
    let table = table(&env(&fs), options(Compression::None, 512), &model);
    assert!(table.index.count() > 50);
    check_everything(&table, &model, &mut random, 300);
    for snapshot in 0..2000 {
        check_get(&table, &model, b"hot", snapshot);
    }
}

#[test]
fn most_absent_keys_are_denied_by_the_filter() {
    let mut random = Random::from_seed(14);
    let model = random_model(&mut random, 20_000);
    let fs = SimFileSystem::volatile();
    let table = table(&env(&fs), options(Compression::None, 4096), &model);
    let absent = (0..20_000).map(|number| format!("absent{number}").into_bytes());
    let passed = absent.filter(|key| table.may_contain(key, hash_key(key))).count();
    assert!(passed < 20_000 / 50, "{passed} of 20000 absent keys passed");
}

/// What the keys of all entries of an index key begin with.
fn stem(index_type: IndexType, index_key: &str) -> Vec<u8> {
    let hash = hash_key(index_key.as_bytes()).to_be_bytes();
    let hash = if index_type == IndexType::Hash { &hash[..] } else { &[] };
    [&[0, 0, 0, 9, 1], hash, index_key.as_bytes(), &[0, 1]].concat()
}

#[test]
fn a_filter_of_stems_denies_stems_and_whole_keys_that_are_absent() {
    for index_type in [IndexType::BTree, IndexType::Hash] {
        let key = |index_key: &str, row: u32| {
            [stem(index_type, index_key), row.to_be_bytes().to_vec()].concat()
        };
        let put = Reverse(Trailer::new(1, ValueKind::Put));
        let entries = (0..10_000).map(|row| ((key(&format!("k{}", row / 5), row), put), vec![]));
        let model: Model = entries.collect();
        let with_filter_of = |filter_keys| {
            let options = TableOptions { filter_keys, ..options(Compression::None, 4096) };
            table(&env(&SimFileSystem::volatile()), options, &model)
        };
        let stems = with_filter_of(FilterKeys::Stems(index_type));
        stems.verify().unwrap();
        for (key, _) in model.keys() {
            assert!(stems.may_contain(key, hash_key(key)));
        }
        let knows =
            |index_key: &str| stems.may_contain_stem(hash_key(&stem(index_type, index_key)));
        assert!((0..2000).all(|number| knows(&format!("k{number}"))));
        let passed = (0..2000).filter(|number| knows(&format!("absent{number}"))).count();
        assert!(passed < 2000 / 50, "{passed} of 2000 absent stems passed");
        let absent = (0..2000).map(|number| key(&format!("absent{number}"), number));
        let passed = absent.filter(|key| stems.may_contain(key, hash_key(key))).count();
        assert!(passed < 2000 / 50, "{passed} of 2000 absent keys passed");
        // Written before filters knew stems: whole keys are known, and no stem is denied.
        let whole = with_filter_of(FilterKeys::Whole);
        assert!(whole.may_contain_stem(hash_key(&stem(index_type, "absent"))));
        let absent = (0..2000).map(|row| key("k1", 20_000 + row));
        let passed = absent.filter(|key| whole.may_contain(key, hash_key(key))).count();
        assert!(passed < 2000 / 50, "{passed} of 2000 absent keys passed");
    }
}

#[test]
fn meta_counts_records_and_spans_range_tombstones() {
    let put = |sequence| Reverse(Trailer::new(sequence, ValueKind::Put));
    let delete = |sequence| Reverse(Trailer::new(sequence, ValueKind::Delete));
    let model = Model::from([
        ((b"0000d".to_vec(), put(10)), b"value".to_vec()),
        ((b"0000k".to_vec(), delete(12)), Vec::new()),
    ]);
    let fs = SimFileSystem::volatile();
    let env = env(&fs);
    let range = |start: &[u8], end: &[u8], sequence| {
        RangeTombstones::from_tombstones([(start.to_vec(), end.to_vec(), sequence)])
    };
    let cases = [
        (RangeTombstones::empty(), &b"0000d"[..], &b"0000k"[..], false, 10, 12),
        (range(b"0000a", b"0000c", 3), b"0000a", b"0000k", false, 3, 12),
        (range(b"0000e", b"0000k", 13), b"0000d", b"0000k", false, 10, 13),
        (range(b"0000e", b"0000z", 11), b"0000d", b"0000z", true, 10, 12),
    ];
    for (number, (tombstones, smallest, largest, exclusive, oldest, newest)) in (1..).zip(cases) {
        let meta =
            write(&env, number, options(Compression::None, 4096), &model, &tombstones).unwrap();
        assert_eq!((meta.entries, meta.deletions, meta.raw_bytes), (2, 1, 15));
        assert_eq!(meta.range_tombstones, tombstones.len() as u64);
        assert_eq!((meta.smallest.as_slice(), meta.largest.as_slice()), (smallest, largest));
        assert_eq!(meta.largest_exclusive, exclusive);
        assert_eq!((meta.smallest_sequence, meta.largest_sequence), (oldest, newest));
        let table = Table::open(&env, &meta).unwrap();
        assert_eq!(**table.range_tombstones(), tombstones);
        assert_eq!(Table::open(&env, &meta).unwrap().meta, meta, "what the file says of itself");
        table.verify().unwrap();
    }
}

#[test]
fn table_of_tombstones_alone_has_no_records() {
    let fs = SimFileSystem::volatile();
    let env = env(&fs);
    let tombstones = RangeTombstones::from_tombstones([
        (b"0000a".to_vec(), b"0000f".to_vec(), 4),
        (b"0000c".to_vec(), b"0000m".to_vec(), 9),
    ]);
    let options = options(Compression::Lz4, 4096);
    let meta = write(&env, 7, options, &Model::new(), &tombstones).unwrap();
    assert_eq!((meta.entries, meta.range_tombstones, meta.largest_exclusive), (0, 4, true));
    assert_eq!((&meta.smallest[..], &meta.largest[..]), (&b"0000a"[..], &b"0000m"[..]));
    let table = Table::open(&env, &meta).unwrap();
    assert_eq!(table.range_tombstones().newest_covering(b"0000d", 100), Some(9));
    assert!(table.get(b"0000d", hash_key(b"0000d"), 100).unwrap().is_none());
    let mut cursor = table.cursor();
    cursor.seek_to_last().unwrap();
    assert!(!cursor.valid());
    cursor.seek(b"", Trailer::NEWEST).unwrap();
    assert!(!cursor.valid());
    assert!(table.block_boundaries(4).is_empty());
    table.verify().unwrap();
}

#[test]
fn boundaries_cut_a_table_into_parts_of_similar_size() {
    let mut model = Model::new();
    for number in 0..20_000_u64 {
        let trailer = Trailer::new(number, ValueKind::Put);
        model.insert((format!("0000{number:08}").into_bytes(), Reverse(trailer)), vec![1; 30]);
    }
    let fs = SimFileSystem::volatile();
    let table = table(&env(&fs), options(Compression::None, 4096), &model);
    let boundaries = table.block_boundaries(4);
    assert_eq!(boundaries.len(), 3);
    let total = table.approximate_offset(b"1");
    let mut last = 0;
    for (part, key) in (1..).zip(&boundaries) {
        let before = model.range(..(key.clone(), Reverse(Trailer::NEWEST))).count();
        assert!((before as i64 - part * 5000).abs() < 300, "{before} records before part {part}");
        let offset = table.approximate_offset(key);
        assert!(offset > last && offset < total);
        last = offset;
    }
    assert_eq!(table.approximate_offset(b"0"), 0);
    assert!(table.index_and_filter_bytes() < total / 10);
    assert!(table.block_boundaries(1).is_empty());
}

#[test]
fn compressed_blocks_are_cached_and_values_outlive_their_eviction() {
    let mut model = Model::new();
    for number in 0..2000_u64 {
        let trailer = Trailer::new(1, ValueKind::Put);
        let value = format!("value of record {number}, value of record {number}").into_bytes();
        model.insert((number.to_be_bytes().to_vec(), Reverse(trailer)), value);
    }
    let fs = SimFileSystem::volatile();
    let mut env = env(&fs);
    env.cache = Arc::new(super::super::BlockCache::new(64 << 10));
    let table = table(&env, options(Compression::Lz4, 4096), &model);
    let key = 77_u64.to_be_bytes();
    let (_, pinned) = table.get(&key, hash_key(&key), 9).unwrap().unwrap();
    let again = table.get(&key, hash_key(&key), 9).unwrap().unwrap().1;
    assert_eq!((env.cache.hits(), env.cache.misses()), (1, 1));
    assert_eq!(table.value(&again), table.value(&pinned));
    let mut cursor = table.cursor();
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        cursor.next().unwrap();
    }
    assert!(env.cache.used_bytes() <= 64 << 10);
    assert!(table.value(&pinned).starts_with(b"value of record 77"));
    let misses = env.cache.misses();
    let mut stream = table.stream().unwrap();
    stream.seek_to_first().unwrap();
    while stream.valid() {
        stream.next().unwrap();
    }
    assert_eq!(env.cache.misses(), misses, "compactions leave the cache alone");
}

#[test]
fn uncompressed_blocks_of_small_records_end_where_pages_end() {
    let mut model = Model::new();
    for number in 0..10_000_u64 {
        let trailer = Trailer::new(number, ValueKind::Put);
        model
            .insert((format!("0000user{number:015}").into_bytes(), Reverse(trailer)), vec![3; 100]);
    }
    let fs = SimFileSystem::volatile();
    let table = table(&env(&fs), options(Compression::None, 4096), &model);
    for index in 0..table.index.count() - 1 {
        let place = table.index.place(&table.map, index).unwrap();
        assert_eq!((place.offset % 4096, place.end % 4096), (0, 0), "block {index}");
    }
}

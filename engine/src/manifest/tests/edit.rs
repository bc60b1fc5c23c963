//! Version edits survive their bytes, and no bytes are too strange for the decoder.

use std::time::Duration;

use super::{Random, meta};
use crate::coding::{put_bytes, put_varint};
use crate::index::definition::{IndexDefinition, IndexSource, IndexType};
use crate::key::KeyspaceId;
use crate::limits::{FULL_KEY_BYTES_MAX, LEVELS, SEQUENCE_MAX};
use crate::manifest::VersionEdit;
use crate::manifest::edit::{EditError, FILE_NUMBER_MAX, KeyspaceDescriptor};
use crate::options::{Compression, KeyspaceOptions};
use crate::read::snapshot::NamedSnapshot;
use crate::sstable::meta::TableMeta;
use crate::values::ValueShare;

fn random_table(random: &mut Random) -> TableMeta {
    let prefix = KeyspaceId(random.below(3) as u32).prefix();
    let mut bound = || {
        let len =
            if random.below(20) == 0 { FULL_KEY_BYTES_MAX - 4 } else { random.below(9) as usize };
        let byte = random.next() as u8;
        [&prefix[..], &vec![byte; len]].concat()
    };
    let (a, b) = (bound(), bound());
    let (smallest, largest) = if a <= b { (a, b) } else { (b, a) };
    let largest_exclusive = smallest != largest && random.below(2) == 0;
    let entries = random.next() >> random.below(64).max(1);
    let smallest_sequence = random.next() & SEQUENCE_MAX;
    let expiring = if random.below(2) == 0 { random.below(entries + 1) } else { 0 };
    TableMeta {
        number: random.below(FILE_NUMBER_MAX + 1),
        file_bytes: random.next() >> 1,
        entries,
        deletions: random.below(entries + 1),
        expiring,
        half_expired_at: if expiring > 0 { random.next() } else { u64::MAX },
        values: (0..random.below(3))
            .map(|file| ValueShare { file: file * 100, bytes: random.next() >> 2 })
            .collect(),
        range_tombstones: random.below(3),
        raw_bytes: random.next() >> 1,
        smallest,
        largest,
        largest_exclusive,
        smallest_sequence,
        largest_sequence: smallest_sequence + random.below(SEQUENCE_MAX - smallest_sequence + 1),
    }
}

fn random_edit(random: &mut Random) -> VersionEdit {
    let level = |random: &mut Random| random.below(LEVELS as u64) as usize;
    let maybe = |random: &mut Random, value: u64| (random.below(2) == 0).then_some(value);
    let number = random.next();
    VersionEdit {
        added: (0..random.below(4)).map(|_| (level(random), random_table(random))).collect(),
        removed: (0..random.below(4))
            .map(|_| (level(random), random.below(FILE_NUMBER_MAX + 1)))
            .collect(),
        log_start: maybe(random, number),
        logs_added: (0..random.below(3)).map(|_| random.below(FILE_NUMBER_MAX)).collect(),
        logs_removed: (0..random.below(3)).map(|_| random.below(FILE_NUMBER_MAX)).collect(),
        last_sequence: maybe(random, number & SEQUENCE_MAX),
        next_file: maybe(random, number % FILE_NUMBER_MAX),
        keyspaces_created: (0..random.below(3))
            .map(|index| KeyspaceDescriptor {
                id: KeyspaceId(random.next() as u32),
                name: format!("name {index} ä"),
                options: KeyspaceOptions::new()
                    .compression(match random.below(3) {
                        0 => Compression::None,
                        1 => Compression::Lz4,
                        _ => Compression::Zstd,
                    })
                    .filter_bits_per_key(random.below(33) as u32)
                    .block_bytes(512 + random.below(32_257) as usize)
                    .value_separation_bytes(random.below(2) as usize * 4096)
                    .default_ttl(Duration::from_millis(random.below(3) * 1000)),
                index: random_index(random),
            })
            .map(|mut keyspace| {
                if keyspace.options.default_ttl_ms == 0 {
                    keyspace.options = keyspace.options.merge_operator("plus");
                }
                keyspace
            })
            .collect(),
        keyspaces_dropped: (0..random.below(3)).map(|_| KeyspaceId(random.next() as u32)).collect(),
        next_keyspace: maybe(random, number).map(|number| number as u32),
        database_id: maybe(random, number),
        snapshots_named: (0..random.below(3))
            .map(|index| NamedSnapshot {
                name: format!("snapshot {index} ä"),
                sequence: random.next() & SEQUENCE_MAX,
                created: Duration::from_millis(random.next()),
            })
            .collect(),
        snapshots_dropped: (0..random.below(3)).map(|index| format!("old {index}")).collect(),
    }
}

fn random_index(random: &mut Random) -> Option<IndexDefinition> {
    let start = random.below(1000) as usize;
    let source = match random.below(6) {
        0 => IndexSource::Manual,
        1 => IndexSource::extractor("näme"),
        2 => IndexSource::key_bytes(start..=start + random.below(9) as usize),
        3 => IndexSource::value_bytes(start..),
        _ => return None,
    };
    Some(IndexDefinition {
        keyspace: KeyspaceId(random.next() as u32),
        index_type: [IndexType::BTree, IndexType::Hash][random.below(2) as usize],
        unique: random.below(2) == 0,
        source,
    })
}

fn encoded(edit: &VersionEdit) -> Vec<u8> {
    let mut bytes = Vec::new();
    edit.encode(&mut bytes);
    bytes
}

#[test]
fn edits_survive_their_bytes() {
    let mut random = Random::from_environment();
    for _ in 0..500 {
        let edit = random_edit(&mut random);
        assert_eq!(VersionEdit::decode(&encoded(&edit)), Ok(edit));
    }
}

#[test]
fn damaged_edits_are_refused_or_read_as_another_edit_that_survives_its_bytes() {
    let mut random = Random::from_environment();
    for _ in 0..2000 {
        let mut bytes = encoded(&random_edit(&mut random));
        if bytes.is_empty() {
            continue;
        }
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        if let Ok(edit) = VersionEdit::decode(&bytes) {
            assert_eq!(VersionEdit::decode(&encoded(&edit)), Ok(edit));
        }
    }
}

#[test]
fn an_edit_cut_inside_a_field_is_corrupt() {
    let edit =
        VersionEdit { added: vec![(3, meta(7, "a", "b", (1, 2)))], ..VersionEdit::default() };
    let bytes = encoded(&edit);
    for len in 1..bytes.len() {
        assert!(matches!(VersionEdit::decode(&bytes[..len]), Err(EditError::Corrupt(_))), "{len}");
    }
}

#[test]
fn unknown_required_fields_are_refused_and_optional_ones_skipped() {
    let edit = VersionEdit { log_start: Some(5), ..VersionEdit::default() };
    for (tag, required) in [(1000, false), (1001, true)] {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, tag);
        put_bytes(&mut bytes, b"from the future");
        edit.encode(&mut bytes);
        match VersionEdit::decode(&bytes) {
            Ok(decoded) => assert!(!required && decoded == edit),
            Err(error) => assert!(required && matches!(error, EditError::Unsupported(_))),
        }
    }
}

#[test]
fn impossible_tables_are_refused() {
    let good = meta(7, "a", "b", (1, 2));
    let mut next_keyspace = good.clone();
    next_keyspace.largest = KeyspaceId(1).prefix().to_vec();
    let mut to_the_end = next_keyspace.clone();
    to_the_end.largest_exclusive = true;
    let mut empty = good.clone();
    empty.largest = empty.smallest.clone();
    empty.largest_exclusive = true;
    let mut short = good.clone();
    short.smallest.truncate(3);
    let cases = [
        (0, good.clone(), true),
        (LEVELS, good.clone(), false),
        (0, next_keyspace, false),
        (0, to_the_end, true),
        (0, empty, false),
        (0, short, false),
        (
            0,
            TableMeta {
                smallest: good.largest.clone(),
                largest: good.smallest.clone(),
                ..good.clone()
            },
            false,
        ),
        (0, TableMeta { deletions: 101, ..good.clone() }, false),
        (0, TableMeta { largest: vec![0; FULL_KEY_BYTES_MAX + 2], ..good.clone() }, false),
        (0, TableMeta { number: FILE_NUMBER_MAX + 1, ..good }, false),
    ];
    for (level, table, valid) in cases {
        let edit = VersionEdit { added: vec![(level, table)], ..VersionEdit::default() };
        assert_eq!(VersionEdit::decode(&encoded(&edit)).is_ok(), valid, "{edit:?}");
    }
}

//! The names and bytes of backups: what is read is what was written, and nothing else is.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::generation::{Generation, SavedFile};
use super::names::{BackupName, Content};
use crate::error::ErrorKind;
use crate::key::KeyspaceId;
use crate::manifest::VersionEdit;
use crate::manifest::edit::KeyspaceDescriptor;
use crate::options::KeyspaceOptions;
use crate::sstable::TableMeta;
use crate::values::ValueShare;

fn table(number: u64, len: u64) -> TableMeta {
    TableMeta {
        number,
        file_bytes: len,
        entries: 3,
        deletions: 1,
        expiring: 0,
        half_expired_at: u64::MAX,
        values: Vec::new(),
        range_tombstones: 0,
        raw_bytes: 90,
        smallest: b"\0\0\0\0a".to_vec(),
        largest: b"\0\0\0\0z".to_vec(),
        largest_exclusive: false,
        smallest_sequence: 4,
        largest_sequence: 9,
    }
}

fn generation() -> Generation {
    let content = |hash, len| SavedFile { file_id: 77, content: Content { hash, len } };
    Generation {
        number: 3,
        database_id: 99,
        created: 1_700_000_000_000,
        edits: vec![
            VersionEdit {
                database_id: Some(99),
                last_sequence: Some(9),
                next_file: Some(20),
                keyspaces_created: vec![KeyspaceDescriptor {
                    id: KeyspaceId::DEFAULT,
                    name: "default".into(),
                    options: KeyspaceOptions::default(),
                    index: None,
                }],
                ..VersionEdit::default()
            },
            VersionEdit {
                added: vec![(0, table(7, 1000)), (2, table(11, 2000))],
                ..VersionEdit::default()
            },
        ],
        files: BTreeMap::from([(7, content(1 << 100, 1000)), (11, content(5, 2000))]),
    }
}

fn decode(bytes: &[u8]) -> crate::Result<Generation> {
    Generation::decode(bytes, Path::new("backup/generation-000003.rlbk"), 3)
}

/// Puts right the checks of bytes that were changed on purpose.
fn reseal(bytes: &mut [u8]) {
    let check = xxh3_64(&bytes[..40]).to_le_bytes();
    bytes[40..48].copy_from_slice(&check);
    let end = bytes.len() - 8;
    let check = xxh3_64_with_seed(&bytes[48..end], 3).to_le_bytes();
    bytes[end..].copy_from_slice(&check);
}

#[test]
fn names_round_trip_and_foreign_names_are_left_alone() {
    let content = Content { hash: 0xabc << 90, len: 4096 };
    for name in [
        BackupName::Marker,
        BackupName::Lock,
        BackupName::Generation(3),
        BackupName::Generation(12_345_678),
        BackupName::File(content),
        BackupName::Temporary,
    ] {
        let path = name.path(Path::new("d"));
        let text = path.file_name().and_then(|text| text.to_str()).unwrap();
        assert_eq!(BackupName::parse(text), Some(name), "{text}");
    }
    for foreign in [
        "",
        "000007.sst",
        "CURRENT",
        "generation-3.rlbk",
        "generation-+00003.rlbk",
        "generation-0000003.rlbk",
        "abc-4096.data",
        "notes.tmp",
    ] {
        assert_eq!(BackupName::parse(foreign), None, "{foreign}");
    }
    let upper = content_name(content).to_uppercase();
    assert_eq!(BackupName::parse(&upper), None);
}

fn content_name(content: Content) -> String {
    let path = BackupName::File(content).path(Path::new(""));
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_generation_is_read_as_it_was_written() {
    let bytes = generation().encode().unwrap();
    assert_eq!(decode(&bytes).unwrap(), generation());
    let renamed = Generation::decode(&bytes, Path::new("x"), 4).unwrap_err();
    assert!(renamed.to_string().contains("written as generation 3"), "{renamed}");
}

#[test]
fn every_flipped_bit_and_every_shorter_file_is_corruption_that_names_the_file() {
    let good = generation().encode().unwrap();
    for at in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let error = decode(&bytes).unwrap_err();
        // A flip in the version can only look like a newer file.
        let newer = (32..48).contains(&at) && error.kind() == ErrorKind::UnsupportedFormat;
        assert!(newer || error.kind() == ErrorKind::Corruption, "bit {at}: {error}");
        assert!(error.to_string().contains("generation-000003.rlbk"), "bit {at}: {error}");
    }
    for len in 0..good.len() {
        assert_eq!(decode(&good[..len]).unwrap_err().kind(), ErrorKind::Corruption, "{len} bytes");
    }
    let longer = [&good[..], b"x"].concat();
    assert_eq!(decode(&longer).unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let mut bytes = generation().encode().unwrap();
    bytes[4] = 2;
    reseal(&mut bytes);
    assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
}

#[test]
fn contents_that_do_not_fit_the_edits_are_refused() {
    let refused = |change: &dyn Fn(&mut Generation), words: &str| {
        let mut changed = generation();
        change(&mut changed);
        let error = decode(&changed.encode().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(words), "{words:?} is missing in {error}");
    };
    refused(
        &|changed| {
            changed.files.remove(&7);
        },
        "2 files are named, and 1",
    );
    refused(
        &|changed| {
            let moved = changed.files.remove(&7).unwrap();
            changed.files.insert(8, moved);
        },
        "000007 is named",
    );
    refused(&|changed| changed.files.get_mut(&7).unwrap().content.len = 1, "with this length");
    refused(
        &|changed| {
            changed.edits[1].added[0].1.values.push(ValueShare { file: 11, bytes: 10 });
        },
        "3 files are named, and 2",
    );
    refused(
        &|changed| {
            let share = ValueShare { file: 12, bytes: 10 };
            changed.edits[1].added[0].1.values.push(share);
            let saved = changed.files[&7];
            changed.files.insert(13, saved);
        },
        "value file 000012 is named",
    );
    refused(&|changed| changed.database_id = 5, "another database");
    refused(&|changed| changed.edits[0].logs_added.push(12), "log segments");
    refused(&|changed| changed.edits[1].added.push((3, table(7, 1000))), "added twice");
}

proptest! {
    /// Whatever a body holds under right checks, reading it ends, with an answer.
    #[test]
    fn hostile_bodies_are_values_or_errors(
        changes in prop::collection::vec((0_usize..400, any::<u8>()), 1..12),
        cut in 0_usize..400,
    ) {
        let mut bytes = generation().encode().unwrap();
        let body = 48..bytes.len() - 8;
        for (at, byte) in changes {
            let at = body.start + at % body.len();
            bytes[at] = byte;
        }
        bytes.drain(body.end - cut % body.len()..body.end);
        let body_bytes = (bytes.len() - 56) as u64;
        bytes[32..40].copy_from_slice(&body_bytes.to_le_bytes());
        reseal(&mut bytes);
        if let Err(error) = decode(&bytes) {
            let kind = error.kind();
            prop_assert!(matches!(kind, ErrorKind::Corruption | ErrorKind::UnsupportedFormat));
        }
    }
}

//! Damage of every kind to the manifest and to CURRENT: refused with the file named, or recognised as the tail of a crash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustlite_io::{FileSystem as _, SimFileSystem};

use super::set::{add_table, create, reopen};
use super::{files, meta};
use crate::error::{Error, ErrorKind};
use crate::file_name::FileName;
use crate::manifest::state::ManifestState;
use crate::manifest::{DirectoryContent, ManifestReader, VersionEdit, VersionSet};
use crate::options::KeyspaceOptions;

const DIRECTORY: &str = "/db";

fn read(fs: &SimFileSystem) -> Result<ManifestState, Error> {
    ManifestReader::read(fs, Path::new(DIRECTORY))
}

/// A database with three edits, the path of its manifest, and the lengths of the manifest after each edit.
fn database() -> (Arc<SimFileSystem>, PathBuf, Vec<u64>) {
    let fs = SimFileSystem::new(1);
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    let set = create(&fs).unwrap();
    let path = FileName::Manifest(1).path(Path::new(DIRECTORY));
    let len = || fs.read_file(&path).unwrap().len() as u64;
    let mut lengths = vec![len()];
    for index in 0..3 {
        add_table(&fs, &set, index).unwrap();
        lengths.push(len());
    }
    (fs, path, lengths)
}

fn assert_corrupt(error: &Error, path: &Path) {
    let details = error.corruption_details().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(details.file, path, "{error}");
}

#[test]
fn every_flipped_bit_is_refused_or_cuts_only_the_last_record() {
    let (fs, path, lengths) = database();
    let sound = fs.read_file(&path).unwrap();
    for at in 0..sound.len() {
        for bit in [0, 3, 7] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            fs.write_file(&path, bytes).unwrap();
            match read(&fs) {
                Err(error) if error.kind() == ErrorKind::UnsupportedFormat => assert!(at < 6),
                Err(error) => assert_corrupt(&error, &path),
                Ok(state) => {
                    assert!(at as u64 >= lengths[2], "a flip at {at} went unnoticed");
                    assert_eq!(state.torn_tail.unwrap().0, lengths[2]);
                    assert_eq!(state.tables.len(), 2);
                }
            }
        }
    }
}

#[test]
fn every_truncation_keeps_the_whole_records_and_an_incomplete_snapshot_is_refused() {
    let (fs, path, lengths) = database();
    let sound = fs.read_file(&path).unwrap();
    for len in (0..sound.len()).rev() {
        fs.write_file(&path, &sound[..len]).unwrap();
        match read(&fs) {
            Ok(state) => {
                let whole = lengths.iter().rposition(|&end| end <= len as u64).unwrap();
                assert_eq!(state.tables.len(), whole, "at {len}");
                assert_eq!(state.torn_tail.is_some(), lengths[whole] != len as u64);
            }
            Err(error) => {
                assert!((len as u64) < lengths[0], "at {len}: {error}");
                assert_corrupt(&error, &path);
            }
        }
    }
}

#[test]
fn a_damaged_record_before_a_sound_one_is_corruption_at_its_offset() {
    let (fs, path, lengths) = database();
    // The length, so that where the record ends is not known; the payload, so that it is.
    for at in [lengths[1], lengths[1] + 20] {
        fs.flip_bit(&path, at, 2).unwrap();
        let error = read(&fs).unwrap_err();
        assert_corrupt(&error, &path);
        assert_eq!(error.corruption_details().unwrap().offset, lengths[1], "{error}");
        fs.flip_bit(&path, at, 2).unwrap();
    }
}

#[test]
fn zeros_and_garbage_after_the_end_are_a_torn_tail() {
    let (fs, path, lengths) = database();
    let sound = fs.read_file(&path).unwrap();
    for tail in [vec![0; 4096], vec![0xa5; 5000]] {
        fs.write_file(&path, [sound.as_slice(), &tail].concat()).unwrap();
        let state = read(&fs).unwrap();
        assert_eq!(state.torn_tail, Some((lengths[3], tail.len() as u64)));
        assert_eq!(state.tables.len(), 3);
    }
}

#[test]
fn a_record_in_another_place_or_file_does_not_pass() {
    let (fs, path, lengths) = database();
    let sound = fs.read_file(&path).unwrap();
    let record = sound[lengths[2] as usize..].to_vec();
    fs.write_file(&path, [sound.as_slice(), &record].concat()).unwrap();
    assert_eq!(read(&fs).unwrap().torn_tail.unwrap().0, lengths[3]);
    let (other, ..) = database();
    let (original, current) =
        (other.read_file(&path).unwrap(), other.read_file("/db/CURRENT").unwrap());
    assert_eq!(original, sound, "the simulator's identity follows from its seed");
    let foreign = SimFileSystem::new(2);
    foreign.create_dir_all(Path::new(DIRECTORY)).unwrap();
    create(&foreign).unwrap();
    foreign.write_file("/db/CURRENT", current).unwrap();
    assert_corrupt(&read(&foreign).unwrap_err(), &path);
}

#[test]
fn every_flip_and_truncation_of_current_is_refused() {
    let (fs, ..) = database();
    let path = Path::new("/db/CURRENT");
    let sound = fs.read_file(path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        for bytes in [&bytes[..], &sound[..at]] {
            fs.write_file(path, bytes).unwrap();
            let error = read(&fs).unwrap_err();
            if error.kind() != ErrorKind::UnsupportedFormat {
                assert_corrupt(&error, path);
            }
        }
    }
    fs.write_file(path, [&sound[..], b"x"].concat()).unwrap();
    assert_corrupt(&read(&fs).unwrap_err(), path);
}

#[test]
fn newer_formats_are_refused_by_name() {
    let (fs, path, _) = database();
    for file in [path.as_path(), Path::new("/db/CURRENT")] {
        let sound = fs.read_file(file).unwrap();
        let mut newer = sound.clone();
        newer[4] = 2;
        fs.write_file(file, newer).unwrap();
        let error = read(&fs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
        fs.write_file(file, sound).unwrap();
    }
}

#[test]
fn missing_files_are_named_and_other_directories_are_no_databases() {
    let (fs, path, _) = database();
    let sound = fs.read_file(&path).unwrap();
    fs.remove(&path).unwrap();
    assert_corrupt(&read(&fs).unwrap_err(), &path);
    fs.write_file(&path, sound).unwrap();
    fs.remove(Path::new("/db/CURRENT")).unwrap();
    assert_corrupt(&read(&fs).unwrap_err(), Path::new("/db/CURRENT"));
    // The first manifest alone is what an interrupted creation leaves.
    for name in super::set::names(&fs).into_iter().filter(|name| name.ends_with(".sst")) {
        fs.remove(&Path::new(DIRECTORY).join(name)).unwrap();
    }
    assert_eq!(read(&fs).unwrap_err().kind(), ErrorKind::NotADatabase);

    let other = SimFileSystem::new(3);
    other.create_dir_all(Path::new(DIRECTORY)).unwrap();
    let content = || DirectoryContent::of(&*other, Path::new(DIRECTORY)).unwrap();
    assert_eq!(content(), DirectoryContent::Creatable);
    other.write_file("/db/letter.txt", b"dear").unwrap();
    assert_eq!(content(), DirectoryContent::Foreign);
    assert_eq!(read(&other).unwrap_err().kind(), ErrorKind::NotADatabase);
}

#[test]
fn edits_that_contradict_the_state_are_corruption() {
    let (fs, ..) = database();
    let state = read(&fs).unwrap();
    let contradictions = [
        VersionEdit { removed: vec![(0, 77)], ..VersionEdit::default() },
        VersionEdit {
            removed: vec![(3, *state.tables.keys().next().unwrap())],
            ..VersionEdit::default()
        },
        VersionEdit { added: vec![(0, meta(1 << 40, "a", "b", (1, 1)))], ..VersionEdit::default() },
        VersionEdit { database_id: Some(1), ..VersionEdit::default() },
    ];
    for edit in contradictions {
        assert!(state.clone().apply(edit.clone()).is_err(), "{edit:?}");
    }
}

#[test]
fn a_missing_table_is_corruption_that_names_it() {
    let (fs, ..) = database();
    let state = read(&fs).unwrap();
    let number = *state.tables.keys().next().unwrap();
    let path = FileName::Table(number).path(Path::new(DIRECTORY));
    fs.remove(&path).unwrap();
    assert_corrupt(&reopen(&fs).unwrap_err(), &path);
}

#[test]
fn creation_survives_what_an_interrupted_one_left() {
    let fs = SimFileSystem::new(4);
    let directory = Path::new(DIRECTORY);
    fs.create_dir_all(directory).unwrap();
    fs.write_file("/db/MANIFEST-000001", b"half").unwrap();
    fs.write_file("/db/CURRENT.tmp", b"ha").unwrap();
    fs.write_file("/db/spare-000004.log", b"").unwrap();
    let set =
        VersionSet::<()>::create(Arc::clone(&fs) as _, directory, KeyspaceOptions::new(), &files());
    assert_eq!(set.unwrap().new_file_number(), 5);
    assert!(read(&fs).unwrap().tables.is_empty());
}

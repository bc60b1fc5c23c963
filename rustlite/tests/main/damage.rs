//! Files of a newer version, and damaged ones: refused by name, and left as they are.

use std::path::{Path, PathBuf};

use rustlite::{Database, Durability, ErrorKind, WriteOptions};
use xxhash_rust::xxh3::xxh3_64;

use crate::support::{
    Setup, assert_fails, assert_untouched, on_each_setup, picture, picture_at_rest,
};

/// A database with tables, and with data that is only in the log, as a crash leaves it.
fn crashed_database(setup: &Setup) -> tempfile::TempDir {
    let db = setup.open();
    let buffered = WriteOptions::new().durability(Durability::Buffered);
    for number in 0..500 {
        db.put_with(format!("{number:03}"), "value", &buffered).unwrap();
    }
    db.flush().unwrap();
    db.put("in the log", "value").unwrap();
    // A copy of the files of a database that is open is what a killed process leaves.
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (path, content) in picture_at_rest(&setup.path()) {
        std::fs::write(copy.path().join(path.file_name().unwrap()), content).unwrap();
    }
    db.close().unwrap();
    copy
}

/// The files whose names begin and end like this.
fn files(directory: &Path, begin: &str, end: &str) -> Vec<PathBuf> {
    let matches = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(begin) && name.ends_with(end)
    };
    let found: Vec<_> = picture(directory).into_keys().filter(matches).collect();
    assert!(!found.is_empty(), "there is no {begin}*{end}");
    found
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = std::fs::read(path).unwrap();
    change(&mut content);
    std::fs::write(path, content).unwrap();
}

/// Gives a file the version after the one that it has, as sound as its writer would make it.
fn make_newer(path: &Path) {
    let kind = path.file_name().unwrap().to_str().unwrap().to_owned();
    edit(path, |content| {
        let length = content.len();
        let table = kind.ends_with(".sst");
        let version = if table { length - 16 } else { 4 };
        content[version] += 1;
        if table {
            let footer = u16::from_le_bytes([content[length - 14], content[length - 13]]);
            let check = xxh3_64(&content[length - usize::from(footer)..length - 8]);
            content[length - 8..].copy_from_slice(&check.to_le_bytes());
        } else if kind.starts_with("wal-") {
            let check = xxh3_64(&content[..32]);
            content[32..40].copy_from_slice(&check.to_le_bytes());
        }
    });
}

#[test]
fn a_newer_format_of_any_file_is_refused_by_name_and_left_alone() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        for (begin, end) in [("CURRENT", ""), ("MANIFEST-", ""), ("wal-", ".log"), ("", ".sst")] {
            let directory = crashed_database(setup);
            let path = files(directory.path(), begin, end).remove(0);
            make_newer(&path);
            let before = picture(directory.path());
            let name = path.file_name().unwrap().to_str().unwrap();
            for options in [setup.options(), setup.options().read_only(true)] {
                let opened = Database::open_with(directory.path(), options);
                assert_fails(opened, ErrorKind::UnsupportedFormat, &[name, "upgrade"]);
                assert_untouched(&before, directory.path());
            }
        }
    });
}

#[test]
fn damage_is_reported_with_file_and_offset_and_the_rest_stays_readable() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        let directory = crashed_database(setup);
        let path = files(directory.path(), "", ".sst").remove(0);
        // The beginning of the first data block.
        edit(&path, |content| content[20] ^= 0x40);
        let damaged = std::fs::read(&path).unwrap();
        let db = Database::open_with(directory.path(), setup.options()).unwrap();
        let error = db.get("000").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        let details = error.corruption_details().unwrap();
        assert_eq!((details.file.as_path(), details.offset), (path.as_path(), 0), "{error}");
        assert!(error.to_string().contains("checksum"), "{error}");
        assert_eq!(db.get("in the log").unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(db.get("499").unwrap().as_deref(), Some(&b"value"[..]));
        let mut iter = db.iter().unwrap();
        assert_eq!(iter.next().unwrap().unwrap_err().kind(), ErrorKind::Corruption);
        assert!(iter.next().is_none(), "an iterator ends after an error");
        assert_fails(db.compact(), ErrorKind::Corruption, &[".sst", "offset 0"]);
        db.put("still", "writable").unwrap();
        drop(db);
        assert!(std::fs::read(&path).unwrap() == damaged, "the evidence was changed");
    });
}

#[test]
fn missing_files_are_named() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        for (begin, end) in [("CURRENT", ""), ("MANIFEST-", ""), ("", ".sst")] {
            let directory = crashed_database(setup);
            let path = files(directory.path(), begin, end).remove(0);
            std::fs::remove_file(&path).unwrap();
            let before = picture(directory.path());
            let name = path.file_name().unwrap().to_str().unwrap();
            for options in [setup.options(), setup.options().read_only(true)] {
                let opened = Database::open_with(directory.path(), options);
                assert_fails(opened, ErrorKind::Corruption, &[name, "missing"]);
                assert_untouched(&before, directory.path());
            }
        }
    });
}

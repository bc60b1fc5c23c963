//! Files are removed when, and only when, nobody needs them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustlite_io::{FaultRule, FileSystem as _, SimFileSystem};

use super::meta;
use super::set::{add_table, create, names, reopen};
use crate::file_name::FileName;
use crate::manifest::{LiveFiles, TableHandle, VersionEdit};

#[test]
fn an_obsolete_table_is_queued_when_the_last_reader_lets_go() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let files = LiveFiles::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let kept = TableHandle::new(meta(1, "a", "b", (1, 1)), Arc::new(()), &files);
    let gone = TableHandle::new(meta(2, "a", "b", (1, 1)), Arc::new(()), &files);
    let reader = Arc::clone(&gone);
    gone.mark_obsolete();
    drop(gone);
    drop(kept);
    assert!(files.take_obsolete().is_empty() && files.is_needed(2) && !files.is_needed(1));
    drop(reader);
    assert_eq!(files.take_obsolete(), [FileName::Table(2)]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(!files.is_needed(2));
}

#[test]
fn a_condemned_value_file_is_queued_when_the_last_reader_lets_go() {
    let files = LiveFiles::new(|| ());
    files.add_live(3);
    files.add_live(4);
    files.condemn_values([3, 5]);
    assert_eq!(files.take_obsolete(), [FileName::Values(5)], "nobody reads it");
    assert!(files.is_needed(3));
    files.release_values(4);
    assert!(files.take_obsolete().is_empty(), "the manifest still needs it");
    files.release_values(3);
    assert_eq!(files.take_obsolete(), [FileName::Values(3)]);
}

#[test]
fn orphans_go_and_foreign_files_logs_and_files_in_the_making_stay() {
    let fs = SimFileSystem::new(7);
    fs.create_dir_all(Path::new("/db/000077.sst")).unwrap();
    let set = create(&fs).unwrap();
    let table = add_table(&fs, &set, 0).unwrap();
    let pending = set.new_table();
    let in_the_making = format!("{:06}.sst", pending.number());
    for name in [
        "000050.sst",
        "MANIFEST-000051",
        "CURRENT.tmp",
        "000052.tmp",
        "1.sst",
        "000056.val",
        "note.txt",
        "wal-000053.log",
        "spare-000054.log",
        "LOCK",
        &in_the_making,
    ] {
        fs.write_file(Path::new("/db").join(name), b"x").unwrap();
    }
    fs.plant_symlink("/db/000055.sst").unwrap();
    let mut removed = set.remove_orphans().unwrap();
    removed.sort();
    let expected = ["000050.sst", "000052.tmp", "000056.val", "CURRENT.tmp", "MANIFEST-000051"];
    assert_eq!(removed, expected.map(|name| PathBuf::from("/db").join(name)));
    let left = names(&fs);
    for name in [
        "000055.sst",
        "000077.sst",
        "1.sst",
        "note.txt",
        "wal-000053.log",
        "MANIFEST-000001",
        "CURRENT",
        &in_the_making,
        &format!("{table:06}.sst"),
    ] {
        assert!(left.iter().any(|other| other == name), "{name} is gone");
    }
    // Once its job has given up, the file is nobody's.
    drop(pending);
    assert_eq!(set.remove_orphans().unwrap(), [Path::new("/db").join(in_the_making)]);
}

#[test]
fn numbers_of_files_that_reached_no_edit_are_not_used_again() {
    let fs = SimFileSystem::new(8);
    fs.create_dir_all(Path::new("/db")).unwrap();
    drop(create(&fs).unwrap());
    fs.write_file("/db/000123.sst", b"x").unwrap();
    fs.write_file("/db/wal-000200.log", b"x").unwrap();
    fs.write_file("/db/18446744073709551615.sst", b"x").unwrap();
    // 201 became the new manifest.
    assert_eq!(reopen(&fs).unwrap().new_file_number(), 202);
}

#[test]
fn removals_that_fail_are_tried_again() {
    let fs = SimFileSystem::new(9);
    fs.create_dir_all(Path::new("/db")).unwrap();
    let set = create(&fs).unwrap();
    let table = add_table(&fs, &set, 0).unwrap();
    let edit = VersionEdit { removed: vec![(0, table)], ..VersionEdit::default() };
    set.apply(edit, Vec::new()).unwrap();
    fs.add_fault(FaultRule::parse("remove *.sst nth=1 error=EIO").unwrap());
    assert!(set.remove_obsolete().is_err());
    assert_eq!(set.remove_obsolete().unwrap(), 1);
    assert_eq!(set.remove_obsolete().unwrap(), 0);
}

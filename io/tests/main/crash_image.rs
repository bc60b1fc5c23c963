//! Crash images obey the stated rules: what was synced is there, what was not may be lost or torn,
//! and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use rustlite_io::{CrashPlan, FileSystem, OpenMode, SimFileSystem};

use crate::support::{Random, frame, log_options, put, read_all, seed, with_directory};

const SECTOR: usize = 512;

fn every_plan() -> impl Iterator<Item = CrashPlan> {
    let fixed = [CrashPlan::DropUnsynced, CrashPlan::KeepAll, CrashPlan::ProcessKill];
    fixed.into_iter().chain((0..100).map(CrashPlan::Random))
}

#[test]
fn what_was_synced_survives_every_crash() {
    for plan in every_plan() {
        let fs = with_directory(1);
        let path = Path::new("/db/file");
        put(&*fs, path, &[7; 10_000]);
        fs.sync_dir(Path::new("/db")).unwrap();
        // Work on other files, and beyond the synced bytes, must not touch them.
        put(&*fs, Path::new("/db/other"), &[9; 5000]);
        fs.open(path, OpenMode::ReadWrite).unwrap().write_all_at(10_000, &[8; 9000]).unwrap();
        let after = fs.crash(&plan);
        let bytes = read_all(&*after, path);
        assert_eq!(bytes[..10_000], [7; 10_000], "{plan:?}");
        assert!(bytes.len() <= 19_000);
    }
}

#[test]
fn unsynced_writes_are_lost_kept_or_torn_by_whole_sectors() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..300 {
        let fs = with_directory(1);
        let path = Path::new("/db/file");
        put(&*fs, path, &[1; 64 * SECTOR]);
        fs.sync_dir(Path::new("/db")).unwrap();
        let file = fs.open(path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(0, &[2; 64 * SECTOR]).unwrap();
        let bytes = read_all(&*fs.crash(&CrashPlan::Random(seed)), path);
        let sectors: Vec<&[u8]> = bytes.chunks(SECTOR).collect();
        assert_eq!(sectors.len(), 64);
        assert!(sectors.iter().all(|sector| sector.iter().all(|&byte| byte == sector[0])));
        let new = sectors.iter().filter(|sector| sector[0] == 2).count();
        outcomes.insert(match new {
            0 => "lost",
            64 => "kept",
            _ => "torn",
        });
    }
    assert_eq!(outcomes, BTreeSet::from(["kept", "lost", "torn"]), "every outcome must occur");
}

#[test]
fn a_sector_never_holds_a_later_write_without_an_earlier_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let fs = with_directory(1);
        let path = Path::new("/db/file");
        put(&*fs, path, &[0; SECTOR]);
        fs.sync_dir(Path::new("/db")).unwrap();
        let file = fs.open(path, OpenMode::ReadWrite).unwrap();
        file.write_all_at(0, b"one").unwrap();
        file.write_all_at(10, b"two").unwrap();
        let bytes = read_all(&*fs.crash(&CrashPlan::Random(seed)), path);
        let state = (&bytes[..3] == b"one", &bytes[10..13] == b"two");
        assert_ne!(state, (false, true), "seed {seed}");
        seen.insert(state);
    }
    assert_eq!(seen.len(), 3, "none, the first, and both must occur: {seen:?}");
}

#[test]
fn names_without_a_directory_sync_may_be_lost() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let fs = with_directory(1);
        put(&*fs, Path::new("/db/file"), b"synced content");
        let after = fs.crash(&CrashPlan::Random(seed));
        let exists = after.exists(Path::new("/db/file")).unwrap();
        if exists {
            assert_eq!(read_all(&*after, Path::new("/db/file")), b"synced content");
        }
        seen.insert(exists);
    }
    assert_eq!(seen.len(), 2, "both outcomes must occur");
    let fs = with_directory(1);
    put(&*fs, Path::new("/db/file"), b"synced content");
    let after = fs.crash(&CrashPlan::DropUnsynced);
    assert!(!after.exists(Path::new("/db/file")).unwrap());
    assert!(after.exists(Path::new("/db")).unwrap());
}

#[test]
fn a_directory_that_was_never_synced_takes_its_files_with_it() {
    let fs = SimFileSystem::new(1);
    fs.create_dir_all(Path::new("/a/b")).unwrap();
    put(&*fs, Path::new("/a/b/file"), b"x");
    fs.sync_dir(Path::new("/a/b")).unwrap();
    fs.sync_dir(Path::new("/a")).unwrap();
    let after = fs.crash(&CrashPlan::DropUnsynced);
    assert!(!after.exists(Path::new("/a")).unwrap());
}

#[test]
fn a_rename_shows_the_old_file_or_the_new_one() {
    let mut seen = BTreeSet::new();
    for plan in every_plan() {
        let fs = with_directory(1);
        put(&*fs, Path::new("/db/CURRENT"), b"old");
        fs.sync_dir(Path::new("/db")).unwrap();
        put(&*fs, Path::new("/db/CURRENT.tmp"), b"new");
        fs.rename(Path::new("/db/CURRENT.tmp"), Path::new("/db/CURRENT")).unwrap();
        seen.insert(read_all(&*fs.crash(&plan), Path::new("/db/CURRENT")));
    }
    assert_eq!(seen, BTreeSet::from([b"new".to_vec(), b"old".to_vec()]));
}

#[test]
fn a_file_moved_twice_is_at_one_place() {
    let names = ["/db/one", "/db/sub/two", "/db/sub/three"].map(Path::new);
    let mut seen = BTreeSet::new();
    for plan in every_plan() {
        let fs = with_directory(1);
        fs.create_dir_all(Path::new("/db/sub")).unwrap();
        fs.sync_dir(Path::new("/db")).unwrap();
        put(&*fs, names[0], b"moved");
        fs.sync_dir(Path::new("/db")).unwrap();
        fs.rename(names[0], names[1]).unwrap();
        fs.rename(names[1], names[2]).unwrap();
        let after = fs.crash(&plan);
        let found: Vec<bool> = names.iter().map(|name| after.exists(name).unwrap()).collect();
        assert_eq!(found.iter().filter(|&&exists| exists).count(), 1, "{plan:?}: {found:?}");
        seen.insert(found);
    }
    assert_eq!(seen.len(), 3, "each place must occur");
}

#[test]
fn removals_may_come_undone_until_the_directory_is_synced() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let fs = with_directory(1);
        put(&*fs, Path::new("/db/file"), b"content");
        fs.sync_dir(Path::new("/db")).unwrap();
        fs.remove(Path::new("/db/file")).unwrap();
        if seed % 2 == 0 {
            fs.sync_dir(Path::new("/db")).unwrap();
        }
        let after = fs.crash(&CrashPlan::Random(seed));
        let exists = after.exists(Path::new("/db/file")).unwrap();
        assert!(!(seed % 2 == 0 && exists), "a synced removal stays");
        seen.insert(exists);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn frames_survive_once_waited_for_and_tear_before() {
    let mut torn = 0;
    for plan in every_plan() {
        let fs = with_directory(1);
        let path = Path::new("/db/wal");
        let device = fs.log_device(log_options(2)).unwrap();
        let segment = device.create_segment(path, 1 << 16).unwrap();
        fs.sync_dir(Path::new("/db")).unwrap();
        let mut lanes = device.lanes().unwrap();
        // An old store in the same blocks must not come back over the frame.
        segment.store(100, &[9; 6000]).unwrap();
        lanes[0].submit(&segment, 0, frame(8192, 1));
        lanes[1].submit(&segment, 8192, frame(16_384, 2));
        lanes[0].wait().1.unwrap();
        let bytes = read_all(&*fs.crash(&plan), path);
        assert_eq!(bytes.len(), 1 << 16);
        assert!(bytes[..8192].iter().all(|&byte| byte == 1), "{plan:?}");
        let in_flight: Vec<&[u8]> = bytes[8192..24_576].chunks(SECTOR).collect();
        for sector in &in_flight {
            assert!(*sector == [0; SECTOR] || *sector == [2; SECTOR], "{plan:?}");
        }
        let arrived = in_flight.iter().filter(|sector| sector[0] == 2).count();
        match plan {
            CrashPlan::DropUnsynced => assert_eq!(arrived, 0),
            CrashPlan::KeepAll => assert_eq!(arrived, in_flight.len()),
            CrashPlan::ProcessKill => assert!(arrived == 0 || arrived == in_flight.len()),
            CrashPlan::Random(_) => torn += usize::from(arrived > 0 && arrived < in_flight.len()),
        }
        assert!(lanes[1].wait().1.is_err(), "the old file system is dead");
    }
    assert!(torn > 10, "frames in flight must also tear: {torn}");
}

#[test]
fn stores_are_lost_by_power_cuts_and_kept_by_process_deaths() {
    for (plan, expected) in [
        (CrashPlan::DropUnsynced, [1, 0]),
        (CrashPlan::KeepAll, [1, 1]),
        (CrashPlan::ProcessKill, [1, 1]),
    ] {
        let fs = with_directory(1);
        let device = fs.log_device(log_options(1)).unwrap();
        let segment = device.create_segment(Path::new("/db/wal"), 1 << 16).unwrap();
        fs.sync_dir(Path::new("/db")).unwrap();
        segment.store(0, &[1]).unwrap();
        segment.sync().unwrap();
        segment.store(1, &[1]).unwrap();
        let bytes = read_all(&*fs.crash(&plan), Path::new("/db/wal"));
        assert_eq!(bytes[..2], expected, "{plan:?}");
    }
}

#[test]
fn what_a_process_death_kept_a_power_cut_can_still_take() {
    let fs = with_directory(1);
    put(&*fs, Path::new("/db/synced"), b"1");
    fs.sync_dir(Path::new("/db")).unwrap();
    let file = fs.create(Path::new("/db/unsynced")).unwrap();
    file.write_all_at(0, b"content").unwrap();
    let killed = fs.crash(&CrashPlan::ProcessKill);
    assert_eq!(read_all(&*killed, Path::new("/db/unsynced")), b"content");
    let after = killed.crash(&CrashPlan::DropUnsynced);
    assert!(!after.exists(Path::new("/db/unsynced")).unwrap());
    assert_eq!(read_all(&*after, Path::new("/db/synced")), b"1");
}

#[test]
fn each_sector_of_a_crash_image_is_one_that_the_file_has_had() {
    let mut random = Random(seed());
    for case in 0..400 {
        let fs = with_directory(case);
        let path = Path::new("/db/file");
        let file = fs.create(path).unwrap();
        fs.sync_dir(Path::new("/db")).unwrap();
        // All images that the file has had since its last sync, oldest first.
        let mut versions: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..random.below(12) {
            let mut image = versions.last().unwrap().clone();
            match random.below(10) {
                0 => {
                    file.sync_data().unwrap();
                    versions.clear();
                }
                1 | 2 => {
                    let len = random.below(20_000) as usize;
                    file.set_len(len as u64).unwrap();
                    image.resize(len, 0);
                }
                _ => {
                    let offset = random.below(15_000) as usize;
                    let len = 1 + random.below(5000) as usize;
                    let data = random.bytes(len);
                    file.write_all_at(offset as u64, &data).unwrap();
                    image.resize(image.len().max(offset + data.len()), 0);
                    image[offset..offset + data.len()].copy_from_slice(&data);
                }
            }
            versions.push(image);
        }
        let plan = CrashPlan::Random(random.next());
        let found = read_all(&*fs.crash(&plan), path);
        let lens = || versions.iter().map(Vec::len);
        assert!((lens().min().unwrap()..=lens().max().unwrap()).contains(&found.len()));
        for (index, sector) in found.chunks(SECTOR).enumerate() {
            let had = |version: &Vec<u8>| {
                let mut padded = version.clone();
                padded.resize(padded.len().max((index + 1) * SECTOR), 0);
                padded[index * SECTOR..][..sector.len()] == *sector
            };
            assert!(versions.iter().any(had), "case {case}, {plan:?}: sector {index} is invented");
        }
    }
}

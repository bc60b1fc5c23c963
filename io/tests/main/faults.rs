//! Injected errors, full disks and damaged bytes of the simulator do what they say, and no more.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::{CrashPlan, FaultRule, FileSystem, OpenMode, SimFileSystem};

use crate::support::{frame, log_options, put, read_all};

fn with_rule(rule: &str) -> Arc<SimFileSystem> {
    let fs = SimFileSystem::new(1);
    fs.create_dir_all(Path::new("/db")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.add_fault(FaultRule::parse(rule).unwrap());
    fs
}

#[test]
fn the_nth_write_fails_and_changes_nothing() {
    let fs = with_rule("write *.sst nth=2 error=ENOSPC");
    let mut other = fs.create_sink(Path::new("/db/wal")).unwrap();
    other.append(&[1; 10]).unwrap();
    let mut sink = fs.create_sink(Path::new("/db/1.sst")).unwrap();
    sink.append(&[1; 10]).unwrap();
    let error = sink.append(&[2; 10]).unwrap_err();
    assert!(error.is_disk_full());
    assert_eq!((error.path(), error.range()), (Path::new("/db/1.sst"), Some((10, 10))));
    assert_eq!(sink.position(), 10);
    sink.append(&[3; 10]).unwrap();
    sink.finish().unwrap();
    let bytes = fs.read_file("/db/1.sst").unwrap();
    assert_eq!(bytes, [[1; 10], [3; 10]].concat());
}

#[test]
fn a_short_write_leaves_a_part() {
    let mut lens = std::collections::BTreeSet::new();
    let fs = with_rule("short *.log sticky error=ENOSPC");
    for index in 0..30 {
        let path = format!("/db/{index}.log");
        let file = fs.create(Path::new(&path)).unwrap();
        assert!(file.write_all_at(0, &[1; 1000]).unwrap_err().is_disk_full());
        lens.insert(file.len().unwrap());
    }
    assert!(lens.len() > 10 && lens.iter().all(|&len| len <= 1000), "{lens:?}");
}

#[test]
fn sticky_rules_last_until_they_are_cleared() {
    let fs = with_rule("sync wal-* sticky error=EIO");
    let file = fs.create(Path::new("/db/wal-1")).unwrap();
    for _ in 0..3 {
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    }
    put(&*fs, Path::new("/db/other"), b"x");
    fs.clear_faults();
    file.sync_data().unwrap();
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let fs = with_rule("sync nth=2 error=EIO");
    let path = Path::new("/db/file");
    let file = fs.create(path).unwrap();
    fs.sync_dir(Path::new("/db")).unwrap();
    file.write_all_at(0, &[1; 1024]).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(1024, &[2; 1024]).unwrap();
    assert!(file.sync_data().is_err());
    file.write_all_at(2048, &[3; 1024]).unwrap();
    file.sync_data().unwrap();
    let live = read_all(&*fs, path);
    assert_eq!(live[1024..2048], [2; 1024], "the page cache still shows it");
    let after = read_all(&*fs.crash(&CrashPlan::DropUnsynced), path);
    assert_eq!(after[..1024], [1; 1024]);
    assert_eq!(after[1024..2048], [0; 1024], "lost, although the last sync succeeded");
    assert_eq!(after[2048..], [3; 1024]);
}

#[test]
fn every_kind_of_operation_can_fail() {
    let path = Path::new("/db/file");
    type Attempt = fn(&Arc<SimFileSystem>) -> rustlite_io::Result<()>;
    let attempts: [(&str, Attempt); 14] = [
        ("create", |fs| fs.create(Path::new("/db/x")).map(drop)),
        ("open", |fs| fs.open(Path::new("/db/file"), OpenMode::Read).map(drop)),
        ("read", |fs| {
            let file = fs.open(Path::new("/db/file"), OpenMode::Read)?;
            file.read_at(0, &mut [0; 2]).map(drop)
        }),
        ("read", |fs| fs.open_stream(Path::new("/db/file"))?.read(0..2).map(drop)),
        ("map", |fs| fs.map(Path::new("/db/file")).map(drop)),
        ("populate", |fs| fs.map(Path::new("/db/file"))?.populate(0..3)),
        ("remove", |fs| fs.remove(Path::new("/db/file"))),
        ("rename", |fs| fs.rename(Path::new("/db/file"), Path::new("/db/x"))),
        ("link", |fs| fs.hard_link(Path::new("/db/file"), Path::new("/db/x"))),
        ("list", |fs| fs.list(Path::new("/db")).map(drop)),
        ("syncdir", |fs| fs.sync_dir(Path::new("/db"))),
        ("lock", |fs| fs.lock(Path::new("/db/LOCK")).map(drop)),
        ("store", |fs| {
            let device = fs.log_device(log_options(1))?;
            device.create_segment(Path::new("/db/wal"), 8192)?.store(0, b"x")
        }),
        ("frame", |fs| {
            let device = fs.log_device(log_options(1))?;
            let segment = device.create_segment(Path::new("/db/wal"), 8192)?;
            let mut lane = device.lanes()?.remove(0);
            lane.submit(&segment, 0, frame(4096, 1));
            let (buffer, result) = lane.wait();
            assert_eq!(buffer.len(), 4096, "the buffer comes back with the error");
            result
        }),
    ];
    for (operation, attempt) in attempts {
        let fs = with_rule("write nothing-like-it");
        put(&*fs, path, b"content");
        fs.add_fault(FaultRule::parse(&format!("{operation} error=EIO")).unwrap());
        let error = attempt(&fs).expect_err(operation);
        assert_eq!(error.raw_os_error(), Some(5), "{operation}");
        fs.clear_faults();
        assert!(fs.exists(path).unwrap(), "{operation} had no effect");
    }
}

#[test]
fn a_failed_frame_may_be_torn() {
    let fs = with_rule("short wal nth=1 error=EIO");
    let device = fs.log_device(log_options(1)).unwrap();
    let segment = device.create_segment(Path::new("/db/wal"), 1 << 16).unwrap();
    let mut lane = device.lanes().unwrap().remove(0);
    lane.submit(&segment, 0, frame(1 << 15, 1));
    assert!(lane.wait().1.is_err());
    let bytes = fs.read_file("/db/wal").unwrap();
    let arrived = bytes[..1 << 15].iter().filter(|&&byte| byte == 1).count();
    assert!(arrived > 0 && arrived < 1 << 15 && arrived.is_multiple_of(512), "{arrived}");
}

#[test]
fn bad_frames_are_refused_with_their_buffer() {
    let fs = with_rule("write nothing-like-it");
    fs.set_log_block_size(512);
    let device = fs.log_device(log_options(1)).unwrap();
    let segment = device.create_segment(Path::new("/db/wal"), 4096).unwrap();
    assert_eq!(segment.block_size(), 512);
    let mut lane = device.lanes().unwrap().remove(0);
    for (offset, len) in [(100, 512), (0, 100), (4096, 512), (3584, 1024), (u64::MAX - 511, 512)] {
        lane.submit(&segment, offset, frame(len, 1));
        let (buffer, result) = lane.wait();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "{offset} {len}");
        assert_eq!(buffer.len(), len);
    }
    lane.submit(&segment, 3584, frame(512, 1));
    lane.wait().1.unwrap();
    assert!(device.create_segment(Path::new("/db/odd"), 1000).is_err());
    assert!(fs.log_device(log_options(0)).is_err());
    assert!(fs.log_device(log_options(65)).is_err());
}

#[test]
fn a_full_disk_refuses_growth_and_recovers() {
    let fs = with_rule("write nothing-like-it");
    fs.set_disk_capacity(Some(10_000));
    put(&*fs, Path::new("/db/one"), &[1; 6000]);
    let file = fs.create(Path::new("/db/two")).unwrap();
    assert!(file.write_all_at(0, &[2; 6000]).unwrap_err().is_disk_full());
    assert_eq!(file.len().unwrap(), 4000, "what fits is written, as a kernel does");
    file.write_all_at(0, &[3; 4000]).unwrap();
    assert!(file.set_len(5000).unwrap_err().is_disk_full());
    let device = fs.log_device(log_options(1)).unwrap();
    let error = device.create_segment(Path::new("/db/wal"), 4096).unwrap_err();
    assert!(error.is_disk_full());

    fs.hard_link(Path::new("/db/one"), Path::new("/db/again")).unwrap();
    fs.remove(Path::new("/db/one")).unwrap();
    assert!(file.write_all_at(4000, &[2; 1]).is_err(), "a linked file still takes its space");
    fs.remove(Path::new("/db/again")).unwrap();
    file.write_all_at(4000, &[2; 6000]).unwrap();
    assert!(file.write_all_at(10_000, &[2; 1]).is_err());
    file.set_len(100).unwrap();
    put(&*fs, Path::new("/db/three"), &[1; 9900]);
    fs.sync_dir(Path::new("/db")).unwrap();
    file.sync_data().unwrap();
    let after = fs.crash(&CrashPlan::DropUnsynced);
    let file = after.open(Path::new("/db/two"), OpenMode::ReadWrite).unwrap();
    assert!(file.write_all_at(100, &[2; 1]).is_err(), "the disk is as full after the crash");
}

#[test]
fn damage_reaches_the_medium_but_not_older_maps() {
    let fs = with_rule("write nothing-like-it");
    let path = Path::new("/db/table");
    fs.write_file(path, [0; 1000]).unwrap();
    let map = fs.map(path).unwrap();
    fs.flip_bit(path, 500, 3).unwrap();
    assert_eq!(map[500], 0);
    assert_eq!(fs.read_file(path).unwrap()[500], 8);
    assert!(fs.flip_bit(path, 1000, 0).is_err());
    fs.truncate_file(path, 600).unwrap();
    assert_eq!(map.len(), 1000);
    let after = fs.crash(&CrashPlan::DropUnsynced);
    let bytes = after.read_file(path).unwrap();
    assert_eq!((bytes.len(), bytes[500]), (600, 8), "write_file made the name durable");
    assert!(fs.read_file("/db/missing").unwrap_err().is_not_found());
}

#[test]
fn a_mapped_file_must_not_be_overwritten() {
    let fs = with_rule("write nothing-like-it");
    let path = Path::new("/db/table");
    put(&*fs, path, &[1; 100]);
    let map = fs.map(path).unwrap();
    let file = fs.open(path, OpenMode::ReadWrite).unwrap();
    assert!(file.write_all_at(50, b"x").is_err());
    assert!(file.set_len(99).is_err());
    file.write_all_at(100, b"appending is fine").unwrap();
    drop(map);
    file.write_all_at(50, b"x").unwrap();
    file.set_len(0).unwrap();
}

#[test]
fn a_stream_that_goes_back_is_refused() {
    let fs = with_rule("write nothing-like-it");
    put(&*fs, Path::new("/db/table"), &[1; 100]);
    let mut stream = fs.open_stream(Path::new("/db/table")).unwrap();
    stream.read(50..60).unwrap();
    stream.read(50..70).unwrap();
    assert_eq!(stream.read(49..60).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_volatile_file_system_swallows_large_files_quickly() {
    let fs = SimFileSystem::volatile();
    let mut sink = fs.create_sink(Path::new("/1.sst")).unwrap();
    let chunk = vec![5; 100_000];
    // With quadratic copying this would move more than 100 GB.
    for _ in 0..1500 {
        sink.append(&chunk).unwrap();
    }
    sink.finish().unwrap();
    let map = fs.map(Path::new("/1.sst")).unwrap();
    let again = fs.map(Path::new("/1.sst")).unwrap();
    assert_eq!(map.len(), 150_000_000);
    assert!(std::ptr::eq(map.as_ptr(), again.as_ptr()), "maps share one copy");
    assert_eq!(map[149_999_999], 5);
}

//! A power cut at any operation keeps what was acknowledged, stops everything else, and replays
//! from its seed.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustlite_io::{CrashPlan, FileSystem, OpenMode, Result, SimFileSystem};

use crate::support::{frame, log_options, put, read_all, with_directory};

#[test]
fn the_old_file_system_is_dead_but_its_maps_live() {
    let fs = with_directory(1);
    let path = Path::new("/db/file");
    put(&*fs, path, b"content");
    let file = fs.open(path, OpenMode::ReadWrite).unwrap();
    let map = fs.map(path).unwrap();
    let lock = fs.lock(Path::new("/db/LOCK")).unwrap();
    let mut sink = fs.create_sink(Path::new("/db/1.sst")).unwrap();
    let mut stream = fs.open_stream(path).unwrap();
    let after = fs.crash(&CrashPlan::KeepAll);
    let errors = [
        file.read_at(0, &mut [0; 3]).unwrap_err(),
        file.write_all_at(0, b"x").unwrap_err(),
        file.sync_data().unwrap_err(),
        file.len().unwrap_err(),
        sink.append(b"x").unwrap_err(),
        sink.finish().unwrap_err(),
        stream.read(0..1).unwrap_err(),
        fs.list(Path::new("/db")).unwrap_err(),
        fs.open(path, OpenMode::Read).unwrap_err(),
        fs.map(path).unwrap_err(),
        fs.create_dir_all(Path::new("/x")).unwrap_err(),
        fs.sync_dir(Path::new("/db")).unwrap_err(),
        fs.exists(path).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("power is off"), "{error}");
    }
    map.populate(0..map.len()).unwrap();
    assert_eq!(*map, *b"content");
    let new_lock = after.lock(Path::new("/db/LOCK")).unwrap();
    drop(lock);
    assert_eq!(after.lock(Path::new("/db/LOCK")).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(new_lock);
    after.open(path, OpenMode::ReadWrite).unwrap().write_all_at(0, b"C").unwrap();
    assert_eq!(read_all(&*after, path), b"Content");
    assert_eq!(*map, *b"content");
}

/// A small store: numbered records, each in a synced file put in place by rename, and a log of
/// frames. Gives what was acknowledged before the first error.
fn workload(fs: &Arc<SimFileSystem>) -> (u8, u8, Result<()>) {
    let (mut published, mut logged) = (0, 0);
    let mut run = || {
        fs.create_dir_all(Path::new("/db"))?;
        fs.sync_dir(Path::new("/"))?;
        let device = fs.log_device(log_options(1))?;
        let segment = device.create_segment(Path::new("/db/wal"), 1 << 16)?;
        fs.sync_dir(Path::new("/db"))?;
        let mut lane = device.lanes()?.remove(0);
        for number in 1..=5_u8 {
            lane.submit(&segment, u64::from(number) * 4096, frame(4096, number));
            lane.wait().1?;
            logged = number;
            let mut sink = fs.create_sink(Path::new("/db/new"))?;
            sink.append(&[number; 1000])?;
            sink.append(&[number; 3000])?;
            sink.finish()?;
            fs.rename(Path::new("/db/new"), Path::new("/db/state"))?;
            fs.sync_dir(Path::new("/db"))?;
            published = number;
        }
        Ok(())
    };
    let result = run();
    (published, logged, result)
}

#[test]
fn a_cut_at_each_operation_keeps_what_was_acknowledged() {
    let fs = SimFileSystem::new(5);
    let (published, logged, result) = workload(&fs);
    result.unwrap();
    assert_eq!((published, logged), (5, 5));
    let ops = fs.op_count();
    assert!(ops > 40, "{ops}");
    let plans = [CrashPlan::DropUnsynced, CrashPlan::KeepAll, CrashPlan::ProcessKill];
    let mut torn_states = 0;
    for cut in 0..ops {
        for plan in plans.into_iter().chain((0..8).map(CrashPlan::Random)) {
            let fs = SimFileSystem::new(5);
            fs.cut_power_at(cut);
            let (published, logged, result) = workload(&fs);
            let error = result.unwrap_err();
            assert!(error.to_string().contains("power is off"), "{error}");
            let after = fs.crash(&plan);
            let context = format!("cut at {cut}, {plan:?}");
            if published > 0 {
                let state = read_all(&*after, Path::new("/db/state"));
                let found = state[0];
                assert!(found == published || found == published + 1, "{context}: {found}");
                assert_eq!(state, vec![found; 4000], "{context}: a published file is whole");
            }
            if logged > 0 {
                let wal = read_all(&*after, Path::new("/db/wal"));
                for number in 1..=logged {
                    let at = usize::from(number) * 4096;
                    assert_eq!(wal[at..at + 4096], [number; 4096], "{context}");
                }
                let next = &wal[usize::from(logged + 1) * 4096..][..4096];
                let arrived = next.iter().filter(|&&byte| byte != 0).count();
                torn_states += usize::from(arrived > 0 && arrived < 4096);
            }
        }
    }
    assert!(torn_states > 0, "the sweep must reach torn frames");
}

#[test]
fn one_seed_gives_one_history() {
    let run = || {
        let fs = SimFileSystem::new(77);
        fs.cut_power_at(33);
        let (published, logged, _) = workload(&fs);
        let ops = fs.op_count();
        let after = fs.crash(&CrashPlan::Random(3));
        let mut files: Vec<(String, Vec<u8>)> = after
            .list(Path::new("/db"))
            .unwrap()
            .into_iter()
            .map(|entry| {
                (entry.name.clone(), read_all(&*after, &Path::new("/db").join(entry.name)))
            })
            .collect();
        files.sort();
        (published, logged, ops, files, after.random_u64())
    };
    assert!(run() == run());
}

#[test]
fn a_crash_of_a_volatile_file_system_leaves_nothing() {
    let fs = SimFileSystem::volatile();
    put(&*fs, Path::new("/file"), b"x");
    let after = fs.crash(&CrashPlan::KeepAll);
    assert!(!after.exists(Path::new("/file")).unwrap());
    assert!(fs.exists(Path::new("/file")).is_err());
}

#[test]
fn a_crash_beside_running_threads_keeps_what_they_were_told() {
    for round in 0..20 {
        let fs = with_directory(round);
        let device = fs.log_device(log_options(4)).unwrap();
        let path = Path::new("/db/wal");
        let segment = device.create_segment(path, 8 << 20).unwrap();
        fs.sync_dir(Path::new("/db")).unwrap();
        let go = std::sync::Barrier::new(5);
        let (after, acknowledged) = std::thread::scope(|scope| {
            let threads: Vec<_> = device
                .lanes()
                .unwrap()
                .into_iter()
                .enumerate()
                .map(|(thread, mut lane)| {
                    let (segment, go) = (&segment, &go);
                    scope.spawn(move || {
                        go.wait();
                        (0..500_u64).find(|number| {
                            let offset = (number * 4 + thread as u64) * 4096;
                            lane.submit(segment, offset, frame(4096, thread as u8 + 1));
                            lane.wait().1.is_err()
                        })
                    })
                })
                .collect();
            go.wait();
            for _ in 0..round * 20 {
                std::thread::yield_now();
            }
            let after = fs.crash(&CrashPlan::DropUnsynced);
            let counts = threads.into_iter().map(|thread| thread.join().unwrap().unwrap_or(500));
            (after, counts.collect::<Vec<u64>>())
        });
        let wal = read_all(&*after, path);
        for (index, block) in wal.chunks(4096).enumerate() {
            let (number, thread) = (index as u64 / 4, index % 4);
            let expected = if number < acknowledged[thread] { thread as u8 + 1 } else { 0 };
            assert!(block.iter().all(|&byte| byte == expected), "frame {number} of {thread}");
        }
    }
}

#[test]
fn a_write_cut_by_the_power_may_leave_a_part() {
    let mut lens = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let fs = with_directory(seed);
        let file = fs.create(Path::new("/db/file")).unwrap();
        fs.sync_dir(Path::new("/db")).unwrap();
        fs.cut_power_at(fs.op_count());
        assert!(file.write_all_at(0, &[1; 1000]).is_err());
        let bytes = read_all(&*fs.crash(&CrashPlan::KeepAll), Path::new("/db/file"));
        assert!(bytes.len() <= 1000 && bytes.iter().all(|&byte| byte == 1));
        lens.insert(bytes.len());
    }
    assert!(lens.len() > 20, "{lens:?}");
}

//! The log device on every backend, in every mode that the directory allows.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::super::tests::{Random, worlds};
use super::super::{RealFileSystem, file, open};
use crate::buffer::AlignedBuffer;
use crate::file_system::{
    FileSystem, LogDevice, LogDeviceOptions, LogLane, LogSegment, LogSync, OpenMode,
};

const MIB: u64 = 1 << 20;

/// Every device that can be had: both backends, disk and memory, direct and flushed, for frames and
/// for stores.
fn devices() -> Vec<(Arc<dyn LogDevice>, Arc<RealFileSystem>, tempfile::TempDir)> {
    let mut devices = Vec::new();
    for (sync, mostly_stores) in
        [(LogSync::Auto, false), (LogSync::Auto, true), (LogSync::Flush, false)]
    {
        for (fs, dir) in worlds() {
            let options = LogDeviceOptions { sync, mostly_stores, ..LogDeviceOptions::default() };
            let device = fs.log_device(options).unwrap();
            devices.push((device, fs, dir));
        }
    }
    devices
}

fn frame(byte: u8, len: usize) -> AlignedBuffer {
    let mut frame = AlignedBuffer::with_capacity(len);
    frame.resize(len);
    frame.fill(byte);
    frame
}

/// Writes one block, by either way of doing so.
fn run(lane: &mut Box<dyn LogLane>, segment: &Arc<dyn LogSegment>, offset: u64, byte: u8) {
    let block = frame(byte, segment.block_size());
    let (buffer, result) = if byte.is_multiple_of(3) {
        lane.write(segment, offset, block)
    } else {
        lane.submit(segment, offset, block);
        lane.wait()
    };
    result.unwrap();
    assert_eq!(buffer.len(), segment.block_size());
}

/// The file as the medium has it: through a fresh descriptor, after the page cache was dropped.
fn from_medium(path: &Path) -> Vec<u8> {
    let fd = open::open_regular(path, OFlags::RDWR).unwrap();
    rustix::fs::fadvise(&fd, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut bytes = vec![0; file::descriptor_len(&fd).unwrap() as usize];
    assert_eq!(file::read_full(&fd, 0, &mut bytes).unwrap(), bytes.len());
    bytes
}

#[test]
fn a_new_segment_is_zeros_without_holes() {
    use std::os::unix::fs::MetadataExt;
    for (device, _, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 3 * MIB + 65_536).unwrap();
        assert_eq!(segment.len(), 3 * MIB + 65_536);
        assert!(segment.block_size().is_power_of_two());
        assert!((512..=65_536).contains(&segment.block_size()));
        assert!(from_medium(&path).iter().all(|&byte| byte == 0));
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(metadata.blocks() * 512 >= segment.len(), "no holes");
        assert_eq!(device.create_segment(&path, MIB).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(path.exists(), "a refused creation must not remove what was there");
    }
}

#[test]
fn lengths_of_broken_blocks_are_refused_and_leave_no_file() {
    for (device, fs, dir) in devices() {
        let path = dir.path().join("segment");
        for len in [0, 1, MIB + 512] {
            let error = device.create_segment(&path, len).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(!path.exists());
        }
        fs.create(&path).unwrap().write_all_at(0, &[1; 5000]).unwrap();
        assert!(device.open_segment(&path).is_err());
        assert!(device.open_segment(&dir.path().join("missing")).unwrap_err().is_not_found());
    }
}

#[test]
fn direct_on_a_file_system_without_it_is_a_clear_error_and_auto_flushes() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    for (fs, _) in worlds() {
        let path = dir.path().join("segment");
        let insist =
            LogDeviceOptions { sync: LogSync::Direct, lanes: 1, ..LogDeviceOptions::default() };
        let error = fs.log_device(insist).unwrap().create_segment(&path, MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("direct"), "{error}");
        let device =
            fs.log_device(LogDeviceOptions { lanes: 1, ..LogDeviceOptions::default() }).unwrap();
        let segment = device.create_segment(&path, MIB).unwrap();
        assert!(device.description().contains("fdatasync"), "{}", device.description());
        run(&mut device.lanes().unwrap()[0], &segment, 0, 1);
        drop(segment);
        fs.remove(&path).unwrap();
    }
}

#[test]
fn sixteen_lanes_write_every_block_in_any_order() {
    for (device, _, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 4 * MIB).unwrap();
        let block = segment.block_size() as u64;
        let blocks = (segment.len() / block).min(1024);
        std::thread::scope(|scope| {
            for (number, mut lane) in device.lanes().unwrap().into_iter().enumerate() {
                let segment = &segment;
                scope.spawn(move || {
                    // Each thread has every sixteenth block, visited in a scattered order.
                    let mine = blocks / 16;
                    for step in 0..mine {
                        let index = (step * 7 + number as u64) % mine * 16 + number as u64;
                        run(&mut lane, segment, index * block, index as u8 | 1);
                    }
                });
            }
        });
        let medium = from_medium(&path);
        for index in 0..blocks {
            let start = (index * block) as usize;
            let content = &medium[start..start + block as usize];
            assert!(content.iter().all(|&byte| byte == index as u8 | 1), "block {index}");
        }
    }
}

#[test]
fn a_lane_may_be_waited_for_by_another_thread_even_if_the_first_has_ended() {
    for (device, _, dir) in devices() {
        let segment = device.create_segment(&dir.path().join("segment"), MIB).unwrap();
        for mut lane in device.lanes().unwrap() {
            let shared = Arc::clone(&segment);
            let mut lane = std::thread::spawn(move || {
                lane.submit(&shared, 0, frame(3, 8 * shared.block_size()));
                lane
            })
            .join()
            .unwrap();
            lane.wait().1.unwrap();
        }
    }
}

#[test]
fn dropping_a_lane_waits_for_its_frame() {
    for (device, _, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 2 * MIB).unwrap();
        let lanes = device.lanes().unwrap();
        for (number, mut lane) in lanes.into_iter().enumerate() {
            lane.submit(&segment, number as u64 * 65_536, frame(9, 65_536));
        }
        assert!(from_medium(&path)[..16 * 65_536].iter().all(|&byte| byte == 9));
    }
}

#[test]
fn frames_that_do_not_fit_are_reported_by_wait_with_their_buffer() {
    for (device, _, dir) in devices() {
        let segment = device.create_segment(&dir.path().join("segment"), MIB).unwrap();
        let block = segment.block_size();
        let mut lanes = device.lanes().unwrap();
        let lane = &mut lanes[0];
        for (offset, len) in
            [(1, block), (0, block - 1), (0, 0), (MIB, block), (u64::MAX - 4095, block)]
        {
            lane.submit(&segment, offset, frame(5, len));
            let (buffer, result) = lane.wait();
            assert_eq!(buffer.len(), len);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            let (buffer, result) = lane.write(&segment, offset, buffer);
            assert_eq!(buffer.len(), len);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        run(lane, &segment, 0, 6);
    }
}

#[test]
fn stores_survive_reopening_without_a_sync_and_stay_inside() {
    for (device, fs, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 4 * MIB).unwrap();
        let long = vec![4; 2 * MIB as usize + 777];
        segment.store(5, b"first").unwrap();
        segment.store(4090, b"across a page").unwrap();
        segment.store(MIB + 1, &long).unwrap();
        segment.store(segment.len() - 3, b"end").unwrap();
        segment.store(segment.len(), b"").unwrap();
        for (offset, len) in [(segment.len() - 2, 3), (u64::MAX, 1), (segment.len() + 1, 0)] {
            let error = segment.store(offset, &vec![1; len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        drop(segment);
        let read = fs.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; 4 * MIB as usize];
        read.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes[5..10], b"first");
        assert_eq!(&bytes[4090..4103], b"across a page");
        assert!(bytes[MIB as usize + 1..][..long.len()] == long);
        assert!(bytes.ends_with(b"end"));
    }
}

#[test]
fn a_recycled_segment_takes_frames_after_readers_filled_the_page_cache() {
    for (device, fs, dir) in devices() {
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let segment = device.create_segment(&old, 2 * MIB).unwrap();
        segment.store(0, &vec![1; 2 * MIB as usize]).unwrap();
        drop(segment);
        fs.rename(&old, &new).unwrap();
        let mut stream = fs.open_stream(&new).unwrap();
        stream.read(0..2 * MIB).unwrap();
        let segment = device.open_segment(&new).unwrap();
        let mut lanes = device.lanes().unwrap();
        let mut model = vec![1; 2 * MIB as usize];
        let block = segment.block_size() as u64;
        for index in (0..2 * MIB / block).step_by(3) {
            run(&mut lanes[0], &segment, index * block, 2);
            model[(index * block) as usize..][..block as usize].fill(2);
            segment.store((index + 1) * block % (2 * MIB), b"xyz").unwrap();
            model[((index + 1) * block % (2 * MIB)) as usize..][..3].copy_from_slice(b"xyz");
        }
        segment.sync().unwrap();
        assert!(from_medium(&new) == model);
    }
}

/// A thread that has pages ready for the stores of another, whose position it is told. It ends when
/// that is the largest number.
fn prepare_beside(segment: &Arc<dyn LogSegment>) -> (Arc<AtomicU64>, std::thread::JoinHandle<()>) {
    let position = Arc::new(AtomicU64::new(0));
    let (segment, told) = (Arc::clone(segment), Arc::clone(&position));
    let helper = std::thread::spawn(move || {
        loop {
            match told.load(Ordering::Relaxed) {
                u64::MAX => return,
                offset => segment.prepare_stores(offset),
            }
        }
    });
    (position, helper)
}

#[test]
fn prepared_stores_arrive_and_leave_no_pages_mapped_behind_them() {
    for (device, _, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 32 * MIB).unwrap();
        let before = mapped_bytes(&path);
        let mut model = Vec::new();
        while model.len() < 24 << 20 {
            if model.len() % (256 << 10) == 0 {
                segment.prepare_stores(model.len() as u64);
            }
            let data = vec![(model.len() >> 12) as u8; 4 << 10];
            segment.store(model.len() as u64, &data).unwrap();
            model.extend_from_slice(&data);
        }
        let mapped = mapped_bytes(&path).saturating_sub(before);
        assert!(mapped <= 4 * MIB, "{mapped} bytes are mapped");
        segment.sync().unwrap();
        assert!(from_medium(&path)[..model.len()] == model);
    }
}

/// Bytes of the file that are in memory through a map of this process.
fn mapped_bytes(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let name = path.to_str().unwrap();
    let of_file = maps.split(name).skip(1);
    let kib = of_file.filter_map(|rest| {
        let line = rest.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    kib.sum::<u64>() << 10
}

/// A log as a database writes it: stores and frames in turn, several frames in flight, syncs at any
/// time, and now and then a look back.
#[test]
fn frames_and_stores_in_one_segment_never_undo_each_other() {
    let mut random = Random::from_env();
    for (device, _, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 8 * MIB).unwrap();
        let block = segment.block_size() as u64;
        let mut lanes = device.lanes().unwrap();
        lanes.truncate(4);
        let mut busy: Vec<bool> = vec![false; lanes.len()];
        let mut model = vec![0; 8 * MIB as usize];
        let mut cursor = 0;
        let mut written = 0_u8;
        let (position, helper) = prepare_beside(&segment);
        while cursor + 300_000 < segment.len() {
            written = written.wrapping_add(1);
            if random.below(100) < 60 {
                // A run of stores, short or long, sometimes leaving part of a block behind.
                let longest = if random.below(8) == 0 { 200_000 } else { 300 };
                let len = 1 + random.below(longest);
                let data = vec![written; len as usize];
                segment.store(cursor, &data).unwrap();
                model[cursor as usize..][..len as usize].copy_from_slice(&data);
                cursor += len;
                position.store(cursor, Ordering::Relaxed);
            } else {
                cursor = cursor.next_multiple_of(block);
                let len = block * (1 + random.below(4));
                let number = random.below(lanes.len() as u64) as usize;
                if std::mem::replace(&mut busy[number], true) {
                    lanes[number].wait().1.unwrap();
                }
                lanes[number].submit(&segment, cursor, frame(written, len as usize));
                model[cursor as usize..][..len as usize].fill(written);
                cursor += len;
            }
            if random.below(50) == 0 {
                segment.sync().unwrap();
            }
        }
        for (lane, _) in lanes.iter_mut().zip(&busy).filter(|(_, busy)| **busy) {
            lane.wait().1.unwrap();
        }
        position.store(u64::MAX, Ordering::Relaxed);
        helper.join().unwrap();
        segment.sync().unwrap();
        let medium = from_medium(&path);
        if let Some(at) = (0..model.len()).find(|&at| medium[at] != model[at]) {
            panic!("byte {at} differs, {}", device.description());
        }
    }
}

/// The worst neighbours: one thread stores into every even block again and again, jumping so far
/// that its window has to move each time, others write frames into the odd blocks and read each
/// back at once, and yet another syncs all the time.
#[test]
fn frames_survive_stores_into_the_blocks_beside_them() {
    for (device, _, dir) in devices() {
        let path = dir.path().join("segment");
        let segment = device.create_segment(&path, 2 * MIB).unwrap();
        let block = segment.block_size() as u64;
        let blocks = 2 * MIB / block;
        let rounds = std::env::var("RUSTLITE_TEST_ROUNDS").map_or(2, |n| n.parse().unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (segment, done) = (&segment, &done);
            scope.spawn(move || {
                let mut round = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    for index in (0..blocks / 2).step_by(2).flat_map(|at| [at, at + blocks / 2]) {
                        segment.store(index * block + round % 4000, &[1; 90]).unwrap();
                    }
                }
            });
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    segment.sync().unwrap();
                }
            });
            let mut lanes = device.lanes().unwrap();
            lanes.truncate(4);
            let writers: Vec<_> = lanes
                .into_iter()
                .enumerate()
                .map(|(number, lane)| {
                    let check = open::open_regular(&path, OFlags::RDONLY).unwrap();
                    scope.spawn(move || hammer(lane, segment, number as u64, rounds, &check))
                })
                .collect();
            let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok), "{}", device.description());
        });
        segment.sync().unwrap();
        let medium = from_medium(&path);
        for index in (1..blocks).step_by(2) {
            let content = &medium[(index * block) as usize..][..block as usize];
            let expected = 100 + (rounds - 1) as u8 % 100;
            assert!(content.iter().all(|&byte| byte == expected), "block {index} was undone");
        }
    }
}

fn hammer(
    mut lane: Box<dyn LogLane>,
    segment: &Arc<dyn LogSegment>,
    number: u64,
    rounds: u64,
    check: &std::os::fd::OwnedFd,
) {
    let block = segment.block_size() as u64;
    let blocks = segment.len() / block;
    let mut seen = vec![0; block as usize];
    for round in 0..rounds {
        for index in (1 + 2 * number..blocks).step_by(8) {
            let byte = 100 + round as u8 % 100;
            run(&mut lane, segment, index * block, byte);
            file::read_full(check, index * block, &mut seen).unwrap();
            assert!(seen.iter().all(|&seen| seen == byte), "block {index} reads old bytes");
        }
    }
}

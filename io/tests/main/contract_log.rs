//! What `LogDevice` promises about segments, frames and stores, checked in every world.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustlite_io::LogSegment;

use crate::support::{Random, frame, in_every_world, log_options, read_all, seed};

#[test]
fn a_new_segment_is_all_zeros_and_of_the_right_length() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(3)).unwrap();
        assert!(!device.description().is_empty());
        assert_eq!(device.lanes().unwrap().len(), 3);
        let path = world.path("wal-1");
        let segment = device.create_segment(&path, 1 << 20).unwrap();
        assert_eq!((segment.len(), segment.path()), (1 << 20, path.clone()));
        let block = segment.block_size();
        assert!(block.is_power_of_two() && (512..=65_536).contains(&block), "{block}");
        assert!(read_all(&*world.fs, &path) == vec![0; 1 << 20]);
        let error = device.create_segment(&path, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(device.open_segment(&world.path("wal-2")).unwrap_err().is_not_found());

        world.fs.rename(&path, &world.path("wal-2")).unwrap();
        let recycled = device.open_segment(&world.path("wal-2")).unwrap();
        assert_eq!((recycled.len(), recycled.block_size()), (1 << 20, block));
    });
}

#[test]
fn segments_are_not_opened_through_symbolic_links() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(1)).unwrap();
        let (target, link) = (world.path("wal-1"), world.path("wal-2"));
        device.create_segment(&target, 1 << 16).unwrap();
        world.symlink(&target, &link);
        assert!(device.open_segment(&link).is_err());
        assert!(device.create_segment(&link, 1 << 16).is_err());
    });
}

#[test]
fn frames_of_all_lanes_arrive_and_give_their_buffers_back() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(8)).unwrap();
        let path = world.path("wal-1");
        let segment = device.create_segment(&path, 4 << 20).unwrap();
        let block = segment.block_size();
        let mut lanes = device.lanes().unwrap();
        let mut random = Random(seed());
        let mut model = vec![0; 4 << 20];
        let mut next = 0;
        for round in 0..6_u8 {
            for (index, lane) in lanes.iter_mut().enumerate() {
                let len = block * (1 + random.below(5) as usize);
                let fill = round * 8 + index as u8 + 1;
                lane.submit(&segment, next as u64, frame(len, fill));
                model[next..next + len].fill(fill);
                next += len;
            }
            // Waiting in another order than submitting must not matter.
            for (index, lane) in lanes.iter_mut().enumerate().rev() {
                let (buffer, result) = lane.wait();
                result.unwrap();
                assert_eq!(buffer[0], round * 8 + index as u8 + 1, "each lane its own buffer");
            }
        }
        assert!(read_all(&*world.fs, &path) == model);
    });
}

#[test]
fn lanes_work_on_their_own_threads() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(8)).unwrap();
        let path = world.path("wal-1");
        let segment = device.create_segment(&path, 2 << 20).unwrap();
        let block = segment.block_size();
        let rounds = 8;
        std::thread::scope(|scope| {
            for (thread, mut lane) in device.lanes().unwrap().into_iter().enumerate() {
                let segment: &Arc<dyn LogSegment> = &segment;
                scope.spawn(move || {
                    let mut buffer = frame(block, thread as u8 + 1);
                    for round in 0..rounds {
                        let offset = ((round * 8 + thread) * block) as u64;
                        lane.submit(segment, offset, buffer);
                        let (returned, result) = lane.wait();
                        result.unwrap();
                        buffer = returned;
                    }
                });
            }
        });
        let bytes = read_all(&*world.fs, &path);
        for (index, piece) in bytes.chunks(block).take(rounds * 8).enumerate() {
            assert!(piece.iter().all(|&byte| usize::from(byte) == index % 8 + 1), "{index}");
        }
    });
}

#[test]
fn stores_are_visible_at_once_and_mix_with_frames() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(2)).unwrap();
        let path = world.path("wal-1");
        let len = 4_usize << 20;
        let segment = device.create_segment(&path, len as u64).unwrap();
        let block = segment.block_size();
        let mut lanes = device.lanes().unwrap();
        let mut random = Random(seed());
        let mut model = vec![0; len];
        let mut next = 0;
        let mut frames = 0;
        while next + 20 * block < len {
            let stored = 1 + random.below(3000) as usize;
            let data = random.bytes(stored);
            segment.store(next as u64, &data).unwrap();
            model[next..next + stored].copy_from_slice(&data);
            next += stored;
            if random.below(8) == 0 {
                // A frame starts at the next block, so that it shares none with the stores.
                next = next.next_multiple_of(block);
                let len = block * (1 + random.below(4) as usize);
                let lane = &mut lanes[frames % 2];
                lane.submit(&segment, next as u64, frame(len, 0xf0));
                // Stores go on behind the frame in flight.
                segment.store((next + len) as u64, b"behind").unwrap();
                lane.wait().1.unwrap();
                model[next..next + len].fill(0xf0);
                model[next + len..][..6].copy_from_slice(b"behind");
                next += len + 6;
                frames += 1;
            }
            if random.below(16) == 0 {
                segment.sync().unwrap();
            }
        }
        segment.sync().unwrap();
        assert!(frames > 10, "the test must really mix: {frames} frames");
        assert!(read_all(&*world.fs, &path) == model, "{}", world.name);
    });
}

#[test]
fn recycled_segments_are_overwritten() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(1)).unwrap();
        let path = world.path("wal-1");
        let block = {
            let segment = device.create_segment(&path, 1 << 18).unwrap();
            segment.store(0, &vec![1; 1 << 18]).unwrap();
            segment.sync().unwrap();
            segment.block_size()
        };
        world.fs.rename(&path, &world.path("wal-9")).unwrap();
        let segment = device.open_segment(&world.path("wal-9")).unwrap();
        let mut lane = device.lanes().unwrap().remove(0);
        lane.submit(&segment, block as u64, frame(block, 2));
        lane.wait().1.unwrap();
        segment.store(0, &[3; 10]).unwrap();
        let mut expected = vec![1; 1 << 18];
        expected[block..2 * block].fill(2);
        expected[..10].fill(3);
        assert!(read_all(&*world.fs, &world.path("wal-9")) == expected);
    });
}

#[test]
fn a_lane_dropped_with_a_frame_in_flight_completes_it() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(1)).unwrap();
        let path = world.path("wal-1");
        let segment = device.create_segment(&path, 1 << 18).unwrap();
        let mut lane = device.lanes().unwrap().remove(0);
        lane.submit(&segment, 0, frame(segment.block_size() * 4, 5));
        drop(lane);
        assert_eq!(read_all(&*world.fs, &path)[segment.block_size() * 4 - 1], 5);
    });
}

#[test]
fn waiting_without_a_frame_is_a_programming_error() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(1)).unwrap();
        let mut lane = device.lanes().unwrap().remove(0);
        let waited = catch_unwind(AssertUnwindSafe(|| lane.wait().0.len()));
        assert!(waited.is_err(), "{}", world.name);
    });
}

#[test]
fn stores_past_the_end_of_a_segment_are_refused() {
    in_every_world(|world| {
        let device = world.fs.log_device(log_options(1)).unwrap();
        let path = world.path("wal-1");
        let segment = device.create_segment(&path, 1 << 16).unwrap();
        segment.store((1 << 16) - 3, b"end").unwrap();
        assert!(segment.store((1 << 16) - 3, b"over").is_err());
        assert!(segment.store(u64::MAX, b"far").is_err());
        assert_eq!(read_all(&*world.fs, &path).len(), 1 << 16);
    });
}

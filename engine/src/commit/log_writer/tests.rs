//! Which commits are stored and which are framed, what becomes durable when, and which segments are let go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustlite_io::{FileSystem, LogDeviceOptions, SimFileSystem};

use super::{LeadFrame, LogWriter, NewEntry, Placement};
use crate::error::{Error, ErrorKind, Result};
use crate::file_name::FileNumber;
use crate::wal::Lsn;
use crate::wal::entry::payload_hash;
use crate::wal::segment::{PoolConfig, SegmentPool, SegmentRegistry};

const BLOCK: u64 = 4096;
const SEGMENT: u64 = 256 << 10;

/// Counts numbers, remembers nothing; with `full`, has no room for one more.
struct Numbers {
    next: AtomicU64,
    full: AtomicBool,
}

impl SegmentRegistry for Numbers {
    fn new_number(&self) -> FileNumber {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn add(&self, _: FileNumber) -> Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::DiskFull, "no room for a number"));
        }
        Ok(())
    }

    fn remove(&self, _: Vec<FileNumber>) -> Result<()> {
        Ok(())
    }
}

struct Fixture {
    sim: Arc<SimFileSystem>,
    numbers: Arc<Numbers>,
    log: LogWriter,
    next: u64,
}

impl Fixture {
    fn new(lanes: usize) -> Self {
        let sim = SimFileSystem::new(1);
        let directory = Path::new("/db");
        sim.create_dir_all(directory).unwrap();
        let file_system: Arc<dyn FileSystem> = Arc::<SimFileSystem>::clone(&sim);
        let options = LogDeviceOptions { lanes: lanes + 1, ..LogDeviceOptions::default() };
        let device = sim.log_device(options).unwrap();
        let mut all = device.lanes().unwrap();
        let numbers = Arc::new(Numbers { next: AtomicU64::new(1), full: AtomicBool::new(false) });
        let pool = Arc::new(SegmentPool::new(PoolConfig {
            file_system,
            device,
            directory: directory.to_path_buf(),
            database_id: 9,
            segment_bytes: SEGMENT,
            log_bytes_max: 4 * SEGMENT,
            registry: Arc::<Numbers>::clone(&numbers),
            mostly_stores: false,
            lane: all.pop().unwrap(),
            largest_bytes: 0,
            spares: Vec::new(),
        }));
        Self { sim, numbers, log: LogWriter::new(pool, all, 0, []), next: 0 }
    }

    fn place_bytes(&mut self, sync: bool, len: usize) -> Result<Placement> {
        let payload = vec![7; len];
        let entry = NewEntry {
            payload: &payload,
            payload_hash: payload_hash(&payload),
            sequence: self.next + 1,
            count: 1,
            ticket: self.next,
            sync,
        };
        self.next += 1;
        self.log.place(&entry)
    }

    fn place(&mut self, sync: bool) -> Placement {
        self.place_bytes(sync, 100).unwrap()
    }

    /// Leads one frame to its end; gives the durable LSN.
    fn write_frame(&mut self) -> Lsn {
        let mut frame = self.log.lead_frame().unwrap();
        frame.submit();
        frame.wait().unwrap();
        self.log.frame_done(frame).0
    }
}

#[test]
fn segments_are_prepared_for_what_the_last_one_was_used_for() {
    let mut fixture = Fixture::new(2);
    let mut uses = |sync: bool| {
        let begin = fixture.log.end();
        while fixture.log.end() - begin < 5 * SEGMENT {
            match fixture.place_bytes(sync, 40_000).unwrap() {
                Placement::Frame { .. } => {
                    fixture.write_frame();
                }
                Placement::Store(_) => {
                    let done = fixture.log.begin_sync().unwrap();
                    fixture.log.sync_done(&done);
                }
            }
        }
        fixture.log.pool.mostly_stores()
    };
    assert!(uses(false), "stores");
    assert!(!uses(true), "frames");
    assert!(uses(false), "stores again");
}

#[test]
fn a_segment_that_cannot_be_recorded_on_a_full_disk_leaves_no_file() {
    let mut fixture = Fixture::new(2);
    let files = |fixture: &Fixture| fixture.sim.list(Path::new("/db")).unwrap();
    fixture.place(false);
    let before = files(&fixture);
    fixture.numbers.full.store(true, Ordering::Relaxed);
    let refused = (0..100).filter_map(|_| fixture.place_bytes(false, 40_000).err());
    assert!(refused.map(|error| assert_eq!(error.kind(), ErrorKind::DiskFull)).count() > 10);
    assert_eq!(files(&fixture), before);
    fixture.numbers.full.store(false, Ordering::Relaxed);
    fixture.place_bytes(false, 40_000).unwrap();
    assert_eq!(files(&fixture).len(), before.len() + 1);
}

#[test]
fn buffered_commits_are_stored_and_synced_commits_framed() {
    let mut fixture = Fixture::new(2);
    assert!(matches!(fixture.place(true), Placement::Frame { .. }));
    assert_eq!(fixture.write_frame(), BLOCK);
    assert!(matches!(fixture.place(false), Placement::Store(_)));
    assert!(fixture.log.lead_frame().is_none(), "a store needs no frame");
}

#[test]
fn a_synced_commit_behind_unsynced_stores_is_stored_and_synced_with_them() {
    let mut fixture = Fixture::new(2);
    fixture.place(false);
    let Placement::Store(needs) = fixture.place(true) else { panic!("it must not overtake") };
    assert!(needs.is_multiple_of(BLOCK), "frames can follow");
    let sync = fixture.log.lead_sync().unwrap();
    assert!(fixture.log.lead_sync().is_none(), "one sync at a time");
    let late = fixture.place(false);
    sync.segments.iter().for_each(|segment| segment.file.sync().unwrap());
    let (durable, ask) = fixture.log.sync_done(&sync);
    assert_eq!((durable, ask), (needs, None));
    assert!(matches!(late, Placement::Store(lsn) if lsn > durable));
    assert!(fixture.log.has_unsynced_stores(), "the late store came after the sync had begun");
}

#[test]
fn a_buffered_commit_that_finds_frames_under_way_joins_the_next() {
    let mut fixture = Fixture::new(2);
    fixture.place(true);
    let mut first = fixture.log.lead_frame().unwrap();
    first.submit();
    let Placement::Frame { end: needs, first_ticket } = fixture.place(false) else {
        panic!("frames are in flight")
    };
    assert_eq!(first_ticket, 1, "it began the frame");
    let joined = fixture.place(true);
    assert!(matches!(joined, Placement::Frame { end, first_ticket: 1 } if end > needs));
    first.wait().unwrap();
    let (durable, ask) = fixture.log.frame_done(first);
    assert_eq!((durable, ask), (BLOCK, Some(1)), "the waiting frame's first ticket is to lead");
    assert!(needs > durable && fixture.write_frame() >= needs);
}

#[test]
fn the_log_is_durable_up_to_the_first_frame_that_is_not() {
    let mut fixture = Fixture::new(3);
    let mut frames: Vec<_> = (0..3)
        .map(|_| {
            fixture.place_bytes(true, 20_000).unwrap();
            let mut frame = fixture.log.lead_frame().unwrap();
            frame.submit();
            frame
        })
        .collect();
    assert!(fixture.log.lead_frame().is_none(), "no lane is idle");
    let mut finish = |fixture: &mut Fixture, index: usize| {
        let mut frame = frames.remove(index);
        frame.wait().unwrap();
        fixture.log.frame_done(frame).0
    };
    assert_eq!(finish(&mut fixture, 2), 0);
    let frame = 5 * BLOCK;
    assert_eq!(finish(&mut fixture, 0), frame);
    assert_eq!(finish(&mut fixture, 0), 3 * frame);
}

#[test]
fn a_small_frame_waits_for_another_small_one_and_not_for_a_large_one() {
    let mut fixture = Fixture::new(2);
    fixture.place(true);
    let small = fixture.log.lead_frame().unwrap();
    fixture.place(true);
    assert!(!fixture.log.may_lead() && fixture.log.lead_frame().is_none(), "it fills");
    fixture.place_bytes(true, 20_000).unwrap();
    let mut large = fixture.log.lead_frame().expect("it has grown large");
    large.submit();
    fixture.place(true);
    assert!(fixture.log.lead_frame().is_none(), "no lane is idle");
    let finish = |fixture: &mut Fixture, mut frame: LeadFrame| {
        frame.wait().unwrap();
        fixture.log.frame_done(frame)
    };
    assert_eq!(finish(&mut fixture, small), (BLOCK, Some(3)));
    let beside_large = fixture.log.lead_frame().expect("the large one is no reason to wait");
    let (durable, _) = finish(&mut fixture, beside_large);
    assert_eq!(durable, BLOCK, "the large one comes first");
    assert_eq!(finish(&mut fixture, large).0, 7 * BLOCK);
    assert!(fixture.log.may_lead());
    // A single lane is for both.
    let mut fixture = Fixture::new(1);
    for len in [100, 20_000, 100] {
        fixture.place_bytes(true, len).unwrap();
        fixture.write_frame();
    }
}

#[test]
fn segments_are_released_in_order_once_their_end_is_in_tables() {
    let mut fixture = Fixture::new(1);
    let mut ends = Vec::new();
    while fixture.log.live_bytes() < 3 * SEGMENT {
        fixture.place_bytes(false, 50_000).unwrap();
        ends.push(fixture.log.end());
    }
    assert!(fixture.log.release_below(ends[0]).is_empty(), "the first segment holds more");
    let before_last = ends[ends.len() - 2];
    let released = fixture.log.release_below(before_last);
    assert_eq!(released.iter().map(|segment| segment.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(fixture.log.live_bytes(), SEGMENT);
    let sync = fixture.log.begin_sync().unwrap();
    let synced: Vec<_> = sync.segments.iter().map(|segment| segment.number).collect();
    assert_eq!(synced, [3], "what was released is let go, although segments behind it are not");
}

#[test]
fn a_batch_that_finds_no_space_for_a_segment_leaves_the_log_as_it_was() {
    let mut fixture = Fixture::new(1);
    fixture.place(false);
    let end = fixture.log.end();
    fixture.sim.set_disk_capacity(Some(SEGMENT + 1000));
    let error = fixture.place_bytes(false, 300_000).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::DiskFull);
    assert_eq!(fixture.log.end(), end);
    assert!(matches!(fixture.place(false), Placement::Store(lsn) if lsn > end));
    fixture.sim.set_disk_capacity(None);
    fixture.place_bytes(false, 300_000).unwrap();
}

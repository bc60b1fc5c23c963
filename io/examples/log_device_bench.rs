//! Measures the log device of a directory: durable 4 KiB frames per second with 1 to 16 lanes, and
//! the cost of stores.
//!
//! ```text
//! cargo run --release -p rustlite-io --example log_device_bench -- [directory] [seconds per line]
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustlite_io::{
    AlignedBuffer, Backend, FileSystem, LogDevice, LogDeviceOptions, LogSegment, LogSync,
    RealFileSystem,
};

const SEGMENT_LEN: u64 = 64 << 20;
const RECORD_LEN: usize = 128;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let dir = parent.join(format!("log_device_bench.{}", std::process::id()));
    let span = Duration::from_secs_f64(seconds);
    for backend in [Backend::Uring, Backend::Threads] {
        for sync in [LogSync::Auto, LogSync::Flush] {
            match RealFileSystem::new(Some(backend)) {
                Ok(fs) => measure(&*fs, &dir, sync, span)?,
                Err(error) => println!("{error}"),
            }
        }
    }
    std::fs::remove_dir(&dir)?;
    Ok(())
}

fn measure(fs: &dyn FileSystem, dir: &Path, sync: LogSync, span: Duration) -> Result<(), Failure> {
    fs.create_dir_all(dir)?;
    let path = dir.join("segment");
    let device = fs.log_device(LogDeviceOptions { sync, ..LogDeviceOptions::default() })?;
    let segment = device.create_segment(&path, SEGMENT_LEN)?;
    println!("{}", device.description());
    for lanes in [1, 4, 8, 16] {
        let overlapped = frames_per_second(fs, &*device, &segment, (lanes, true), span)?;
        let at_once = frames_per_second(fs, &*device, &segment, (lanes, false), span)?;
        println!(
            "  {lanes:>2} lanes: {overlapped:>6.0} durable 4 KiB frames/s by submit and wait, \
             {at_once:>6.0} by write"
        );
    }
    let (bandwidth, cost) = stores(fs, &*segment)?;
    println!("  stores of {RECORD_LEN} bytes: {cost:.1} ns each, {bandwidth:.0} MB/s");
    segment.sync()?;
    fs.remove(&path)?;
    Ok(())
}

fn frames_per_second(
    fs: &dyn FileSystem,
    device: &dyn LogDevice,
    segment: &Arc<dyn LogSegment>,
    (lanes, overlapped): (usize, bool),
    span: Duration,
) -> Result<f64, Failure> {
    let clock = fs.clock();
    let start = clock.monotonic();
    let next = AtomicU64::new(0);
    let frame_len = segment.block_size().max(4096);
    std::thread::scope(|scope| {
        let workers: Vec<_> = device
            .lanes()?
            .into_iter()
            .take(lanes)
            .map(|mut lane| {
                let (clock, next) = (&clock, &next);
                scope.spawn(move || {
                    let mut frame = AlignedBuffer::with_capacity(frame_len);
                    frame.resize(frame_len);
                    while clock.monotonic() < start + span {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let offset = number * frame_len as u64 % SEGMENT_LEN;
                        let (buffer, result) = if overlapped {
                            lane.submit(segment, offset, frame);
                            lane.wait()
                        } else {
                            lane.write(segment, offset, frame)
                        };
                        result?;
                        frame = buffer;
                    }
                    Ok::<_, rustlite_io::IoError>(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        Ok::<_, Failure>(())
    })?;
    let elapsed = clock.monotonic() - start;
    Ok(next.into_inner() as f64 / elapsed.as_secs_f64())
}

/// Megabytes per second and nanoseconds per record.
fn stores(fs: &dyn FileSystem, segment: &dyn LogSegment) -> Result<(f64, f64), Failure> {
    let clock = fs.clock();
    let record = [7; RECORD_LEN];
    let start = clock.monotonic();
    for number in 0..SEGMENT_LEN / RECORD_LEN as u64 {
        segment.store(number * RECORD_LEN as u64, &record)?;
    }
    let elapsed = (clock.monotonic() - start).as_secs_f64();
    let records = SEGMENT_LEN as f64 / RECORD_LEN as f64;
    Ok((SEGMENT_LEN as f64 / 1e6 / elapsed, elapsed * 1e9 / records))
}

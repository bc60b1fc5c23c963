//! Measures random reads of single pages that are not in memory: by page faults in a map, by faults
//! of pages that were requested together before, and by direct reads through a ring.
//!
//! ```text
//! cargo run --release -p rustlite-io --example read_device_bench -- [directory] [MiB] [seconds per line]
//! ```
//!
//! The ring's buffers hold nothing afterwards, so its figure is what a cache above it gets on a miss.

#![expect(unsafe_code, reason = "hands buffers to the kernel")]
#![expect(clippy::disallowed_methods, reason = "measures what the file system would hide")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use rustlite_io::{Advice, AlignedBuffer, Clock, FileSystem, Mapping, RealFileSystem, SystemClock};

const PAGE: usize = 4096;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mib: usize = arguments.next().map_or(Ok(512), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let path = parent.join(format!("read_device_bench.{}", std::process::id()));
    let result = write(&path, mib).and_then(|()| measure(&path, Duration::from_secs_f64(seconds)));
    std::fs::remove_file(&path)?;
    result
}

fn write(path: &Path, mib: usize) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let content: Vec<u8> =
        (0..1 << 20).map(|at: u32| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    for _ in 0..mib {
        file.write_all(&content)?;
    }
    Ok(file.sync_all()?)
}

/// The pages of a file, each once, far from one another.
struct Pages {
    count: u64,
    taken: u64,
}

impl Pages {
    fn next(&mut self) -> usize {
        // About the golden section of the file further each time; odd, and the count is a power of two.
        let stride = (self.count * 79 / 128) | 1;
        self.taken += 1;
        (self.taken.wrapping_mul(stride) % self.count) as usize
    }

    fn is_empty(&self) -> bool {
        self.taken >= self.count
    }
}

fn measure(path: &Path, span: Duration) -> Result<(), Failure> {
    let count = std::fs::metadata(path)?.len() / PAGE as u64;
    let count = 1 << count.ilog2();
    for batch in [1, 16, 32] {
        let pages = || Pages { count, taken: 0 };
        let faults = by_map(path, pages(), (batch, false), span)?;
        let requested = by_map(path, pages(), (batch, true), span)?;
        let ring = by_ring(path, pages(), batch, span)?;
        println!(
            "  {batch:>2} at a time: {faults:>7.0} pages/s by faults, {requested:>7.0} by faults after requests, \
             {ring:>7.0} by direct reads through a ring"
        );
    }
    Ok(())
}

/// A map of the file, none of which is in memory.
fn cold_map(path: &Path) -> Result<Mapping, Failure> {
    let file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(RealFileSystem::new(None)?.map(path)?)
}

fn by_map(
    path: &Path,
    mut pages: Pages,
    (batch, requests): (usize, bool),
    span: Duration,
) -> Result<f64, Failure> {
    let map = cold_map(path)?;
    let start = SystemClock.monotonic();
    let (mut read, mut sum) = (0_usize, 0_u64);
    while !pages.is_empty() && SystemClock.monotonic() - start < span {
        let chosen: Vec<usize> = (0..batch).map(|_| pages.next() * PAGE).collect();
        if requests {
            for &at in &chosen {
                map.advise(Advice::WillNeed, at..at + PAGE);
            }
        }
        sum +=
            chosen.iter().filter_map(|&at| map.get(at)).map(|&byte| u64::from(byte)).sum::<u64>();
        read += batch;
    }
    std::hint::black_box(sum);
    Ok(read as f64 / (SystemClock.monotonic() - start).as_secs_f64())
}

fn by_ring(path: &Path, mut pages: Pages, batch: usize, span: Duration) -> Result<f64, Failure> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = File::options().read(true).custom_flags(direct).open(path)?;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(u32::try_from(batch)?)?;
    let mut buffer = AlignedBuffer::with_capacity(batch * PAGE);
    buffer.resize(batch * PAGE);
    let start = SystemClock.monotonic();
    let mut read = 0_usize;
    while !pages.is_empty() && SystemClock.monotonic() - start < span {
        for slot in buffer.chunks_exact_mut(PAGE) {
            let target = types::Fd(file.as_raw_fd());
            let entry = opcode::Read::new(target, slot.as_mut_ptr(), PAGE as u32)
                .offset((pages.next() * PAGE) as u64)
                .build();
            // SAFETY: the buffer and the file live until all completions were taken, below.
            unsafe { ring.submission().push(&entry) }?;
        }
        ring.submit_and_wait(batch)?;
        for completion in ring.completion() {
            if completion.result() != PAGE as i32 {
                return Err(format!("a read gave {}", completion.result()).into());
            }
        }
        read += batch;
    }
    Ok(read as f64 / (SystemClock.monotonic() - start).as_secs_f64())
}

//! The machine a run was made on: what a reader of the numbers must know to judge or to repeat
//! them.
//!
//! Whatever can't be found out is `null` in JSON and "unknown" in text; nothing here can fail a
//! run.

use std::fs::OpenOptions;
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::ReadWriteFlags;
use serde::Serialize;

/// The unit of the latency measurement: what most devices and file systems write at once.
const BLOCK_BYTES: usize = 4096;

/// Blocks of the file that is overwritten.
const FILE_BLOCKS: u64 = 64;

/// Overwrites measured, unless the device is so slow that the time limit comes first.
const OVERWRITES: usize = 200;

/// Time limit of each of the two measurements.
const TIME_LIMIT: Duration = Duration::from_millis(700);

/// What [`Machine::journal`] says of a file system that has one.
pub const JOURNAL: &str = "journal";

/// What it says of one that has none.
pub const NO_JOURNAL: &str = "no journal";

/// Everything known about the machine and the storage below the data.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processor model.
    pub cpu: Option<String>,
    /// Processors this process may use.
    pub cores: usize,
    /// Main memory.
    pub memory_bytes: Option<u64>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Type of the file system that holds the data.
    pub file_system: Option<String>,
    /// Its mount options.
    pub mount_options: Option<String>,
    /// Whether the file system has a journal, which every appended block then goes through twice.
    pub journal: Option<&'static str>,
    /// The device below it.
    pub device: Option<String>,
    /// The device's cache: `write back` loses acknowledged writes at a power loss unless flushed,
    /// `write through` doesn't.
    pub device_write_cache: Option<String>,
    /// Median latency of one durable overwrite of 4 KiB, by the faster of the two ways below: the F
    /// that a lone committer can't beat.
    pub durable_overwrite_us: Option<f64>,
    /// The same by `O_DIRECT` and `RWF_DSYNC`, where the file system has them.
    pub direct_dsync_us: Option<f64>,
    /// The same by a buffered write and `fdatasync`.
    pub fdatasync_us: Option<f64>,
    /// Version of the harness, which is RustLite's.
    pub ycsb_version: &'static str,
}

/// Where a path is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the device.
    pub device_number: String,
    /// File system type.
    pub file_system: String,
    /// Device name.
    pub device: String,
    /// Options of this mount.
    pub options: String,
}

impl Machine {
    /// Describes the machine as seen from `directory`, in which two small files are written and
    /// removed.
    #[must_use]
    pub fn describe(directory: &Path) -> Self {
        let mount = Mount::of(directory);
        let direct = overwrite_latency_us(directory, Method::DirectDsync);
        let fdatasync = overwrite_latency_us(directory, Method::Fdatasync);
        let faster = match (direct, fdatasync) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (left, right) => left.or(right),
        };
        Self {
            cpu: first_value("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: first_value("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kib| kib * 1024),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            device_write_cache: mount.as_ref().and_then(device_write_cache),
            file_system: mount.as_ref().map(|mount| mount.file_system.clone()),
            journal: mount.as_ref().and_then(Mount::journal),
            mount_options: mount.as_ref().map(|mount| mount.options.clone()),
            device: mount.map(|mount| mount.device),
            durable_overwrite_us: faster,
            direct_dsync_us: direct,
            fdatasync_us: fdatasync,
            ycsb_version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl Mount {
    /// The mount that holds `path`, which must exist.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        Self::find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
    }

    /// Whether it has a journal, as far as the kernel shows it.
    fn journal(&self) -> Option<&'static str> {
        match self.file_system.as_str() {
            "ext4" | "ext3" => {
                // The journal's thread shows itself as `<device>-<inode>`.
                let name = self.device.rsplit('/').next()?;
                let mut running =
                    std::fs::read_dir("/proc/fs/jbd2").into_iter().flatten().flatten();
                let own = format!("{name}-");
                let has_one = |entry: std::fs::DirEntry| {
                    entry.file_name().to_string_lossy().starts_with(&own)
                };
                Some(if running.any(has_one) { JOURNAL } else { NO_JOURNAL })
            }
            "xfs" => Some(JOURNAL),
            "tmpfs" | "ramfs" => Some(NO_JOURNAL),
            _ => None,
        }
    }

    fn find(mountinfo: &str, path: &Path) -> Option<Self> {
        let mut best: Option<(usize, Self)> = None;
        for line in mountinfo.lines() {
            let Some((point, mount)) = Self::parse(line) else { continue };
            // Of mounts on the same point the last one hides the others.
            let length = point.len();
            if path.starts_with(&point) && best.as_ref().is_none_or(|(other, _)| length >= *other) {
                best = Some((length, mount));
            }
        }
        best.map(|(_, mount)| mount)
    }

    /// Parses `id parent major:minor root mount-point options optional-fields... - type device
    /// super-options`.
    fn parse(line: &str) -> Option<(String, Self)> {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(2);
        let device_number = fields.next()?.to_owned();
        let point = fields.nth(1)?.replace("\\040", " ");
        let options = fields.next()?.to_owned();
        let mut fields = right.split(' ');
        let file_system = fields.next()?.to_owned();
        let device = fields.next()?.to_owned();
        Some((point, Self { device_number, file_system, device, options }))
    }
}

/// The cache mode of the block device, or of the whole disk if the device is a partition.
fn device_write_cache(mount: &Mount) -> Option<String> {
    let device = format!("/sys/dev/block/{}", mount.device_number);
    read_line(&format!("{device}/queue/write_cache"))
        .or_else(|| read_line(&format!("{device}/../queue/write_cache")))
}

fn read_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// The first `name : value` line of a file in `/proc`.
fn first_value(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// A way to make an overwrite durable.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    DirectDsync,
    Fdatasync,
}

/// Median latency of durable overwrites of already written blocks, or `None` if the file system
/// doesn't offer the method.
fn overwrite_latency_us(directory: &Path, method: Method) -> Option<f64> {
    // The file is removed on return, whatever happens in between.
    let file = tempfile::Builder::new().prefix("ycsb-latency-").tempfile_in(directory).ok()?;
    // Direct writes need memory aligned to the block size: cut it out of a buffer twice as large.
    let buffer = vec![0x5A; 2 * BLOCK_BYTES];
    let start = buffer.as_ptr().align_offset(BLOCK_BYTES);
    let block = buffer.get(start..start + BLOCK_BYTES)?;
    for number in 0..FILE_BLOCKS {
        file.as_file().write_all_at(block, number * BLOCK_BYTES as u64).ok()?;
    }
    file.as_file().sync_all().ok()?;
    let flags = if method == Method::DirectDsync { rustix::fs::OFlags::DIRECT.bits() } else { 0 };
    let opened =
        OpenOptions::new().write(true).custom_flags(flags.cast_signed()).open(file.path()).ok()?;
    let mut latencies = Vec::with_capacity(OVERWRITES);
    let begun = Instant::now();
    while latencies.len() < OVERWRITES && begun.elapsed() < TIME_LIMIT {
        let offset = (latencies.len() as u64 % FILE_BLOCKS) * BLOCK_BYTES as u64;
        let started = Instant::now();
        match method {
            Method::DirectDsync => {
                let slices = [IoSlice::new(block)];
                let flags = ReadWriteFlags::DSYNC;
                let written = rustix::io::pwritev2(&opened, &slices, offset, flags).ok()?;
                (written == BLOCK_BYTES).then_some(())?;
            }
            Method::Fdatasync => {
                opened.write_all_at(block, offset).ok()?;
                opened.sync_data().ok()?;
            }
        }
        latencies.push(started.elapsed().as_nanos() as u64);
    }
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).map(|ns| *ns as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:25 / /tmp rw,nosuid shared:5 - tmpfs tmpfs rw,size=1g
31 30 259:2 / /tmp/my\\040disk rw,noatime - xfs /dev/nvme0n1p2 rw
a line that is none
";

    #[test]
    fn mount_of_a_path_is_the_longest_that_contains_it() {
        let find = |path: &str| Mount::find(MOUNTINFO, Path::new(path)).unwrap();
        assert_eq!(find("/home/x").file_system, "ext4");
        assert_eq!(find("/tmp/a/b").file_system, "tmpfs");
        assert_eq!(find("/tmpfiles").file_system, "ext4");
        let disk = find("/tmp/my disk/data");
        assert_eq!(
            (disk.device.as_str(), disk.device_number.as_str()),
            ("/dev/nvme0n1p2", "259:2")
        );
        assert_eq!(disk.options, "rw,noatime");
        assert_eq!((disk.journal(), find("/tmp/a").journal()), (Some(JOURNAL), Some(NO_JOURNAL)));
        assert_eq!(Mount::find("", Path::new("/")), None);
    }

    #[test]
    fn description_leaves_no_file_behind_and_measures_a_plausible_latency() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::describe(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(machine.cores >= 1);
        assert!(machine.memory_bytes.unwrap() > 1 << 20);
        let latency = machine.durable_overwrite_us.unwrap();
        assert!((0.1..1_000_000.0).contains(&latency), "{latency}");
    }

    #[test]
    fn a_missing_directory_gives_no_latency_rather_than_an_error() {
        let machine = Machine::describe(Path::new("/nonexistent/ycsb"));
        assert_eq!(machine.durable_overwrite_us, None);
    }
}

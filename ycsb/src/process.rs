//! What the kernel says this process has used: CPU time, memory, bytes written; and what a
//! directory occupies.
//!
//! The numbers are of the whole process, which is why each step of a comparison runs in a process
//! of its own.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};

/// Resources used by this process since its start.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time of all threads, those that ended included.
    pub cpu_seconds: f64,
    /// Largest resident set so far, mapped files included.
    pub peak_rss_bytes: Option<u64>,
    /// Memory resident now that isn't backed by a file.
    pub anonymous_rss_bytes: Option<u64>,
    /// Bytes this process caused to be sent to storage: dirtied pages of the page cache and direct
    /// writes alike. Unknown where the kernel doesn't account for it, and always zero on tmpfs.
    pub bytes_written: Option<u64>,
}

impl Usage {
    /// The usage now.
    #[must_use]
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            peak_rss_bytes: field(&status, "VmHWM:").map(|kib| kib * 1024),
            anonymous_rss_bytes: field(&status, "RssAnon:").map(|kib| kib * 1024),
            bytes_written: field(&io, "write_bytes:"),
        }
    }
}

/// The first number behind `name` in a file of `name value` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that the files below `directory` occupy on disk: allocated blocks, as `du` counts, so that
/// holes of sparse files are free and preallocated space isn't.
///
/// # Errors
/// The directory can't be read. Files that vanish meanwhile are no error.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let entries = std::fs::read_dir(directory)
        .map_err(|source| Error::io("listing the directory", directory, source))?;
    for entry in entries {
        let entry =
            entry.map_err(|source| Error::io("listing the directory", directory, source))?;
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total += disk_bytes(&path)?,
            Ok(metadata) => total += metadata.blocks() * 512,
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::io("looking at", &path, source)),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_counts_cpu_and_memory_of_this_process() {
        let before = Usage::now();
        let mut block = vec![0u8; 32 << 20];
        crate::rng::Rng::new(1, 1).fill(&mut block);
        let after = Usage::now();
        assert!(after.cpu_seconds > before.cpu_seconds);
        assert!(after.peak_rss_bytes.unwrap() >= 32 << 20);
        assert!(after.anonymous_rss_bytes.unwrap() >= 32 << 20);
        assert!(block.iter().any(|byte| *byte != 0));
    }

    #[test]
    fn disk_bytes_counts_allocated_blocks_of_the_whole_tree_but_no_holes() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("nested");
        std::fs::create_dir(&nested).unwrap();
        std::fs::write(nested.join("full"), vec![1u8; 100_000]).unwrap();
        let sparse = std::fs::File::create(directory.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let bytes = disk_bytes(directory.path()).unwrap();
        assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
        assert!(disk_bytes(&directory.path().join("missing")).is_err());
    }
}

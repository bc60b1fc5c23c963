//! Less memory than data: a control group that bounds what a worker process and the page cache of
//! its files may take together.
//!
//! Pages count for the group whose process brought them in. So a store is loaded outside of the
//! group, its files are put out of the page cache with [`evict`], and the worker process enters the
//! group before it opens the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::error::{Error, Result};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// How often, and how far apart, removing the group is tried: a process that was killed leaves it a
/// moment later.
const REMOVALS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// A control group with a memory limit. It goes away when this is dropped.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
}

impl MemoryLimit {
    /// A group of at most `bytes`.
    ///
    /// # Errors
    /// [`Error::Usage`] if this system doesn't let us, with the reason.
    pub fn new(bytes: u64) -> Result<Self> {
        Self::below(Path::new(MOUNT), bytes)
    }

    fn below(mount: &Path, bytes: u64) -> Result<Self> {
        let name = format!("rustlite-bench-{}", std::process::id());
        // Version 2 has one hierarchy for all controllers, version 1 a directory for each.
        let is_unified = mount.join("cgroup.controllers").exists();
        let (parent, limit) = if is_unified {
            (mount.to_path_buf(), "memory.max")
        } else {
            (mount.join("memory"), "memory.limit_in_bytes")
        };
        let refused = |action: &str, error: &std::io::Error| {
            Error::Usage(format!(
                "a memory limit needs root and the memory controller of control groups (version 1 \
                 or 2) below {}; {action} failed: {error}",
                mount.display()
            ))
        };
        if is_unified {
            // It may be on already, or refuse because processes are there: then the limit's file is
            // missing, and that is what is reported.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let group = parent.join(name);
        fs::create_dir(&group).map_err(|error| refused("making a group", &error))?;
        let made = Self { group };
        write(&made.group.join(limit), &bytes.to_string())
            .map_err(|error| refused("setting the limit", &error))?;
        // Otherwise memory would go there instead; without swap the file may be missing.
        let _ = write(&made.group.join("memory.swap.max"), "0");
        Ok(made)
    }

    /// The group's directory.
    #[must_use]
    pub fn group(&self) -> &Path {
        &self.group
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.group) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVAL_PAUSE);
                }
                // Nothing can be done about any other error, and an empty group costs nothing.
                _ => return,
            }
        }
    }
}

/// Writes a file that is there: the kernel's, not one of ours.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Moves this process into a group.
///
/// # Errors
/// The group is gone or full.
pub fn enter(group: &Path) -> Result<()> {
    let processes = group.join("cgroup.procs");
    write(&processes, &std::process::id().to_string())
        .map_err(|source| Error::io("entering the control group", &processes, source))
}

/// Puts the files below `directory` out of the page cache. They stay there as far as processes have
/// them mapped.
///
/// # Errors
/// A file can't be read or made durable.
pub fn evict(directory: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::io("evicting", &path, source)
    };
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if metadata.is_dir() {
            evict(&path)?;
        } else if metadata.is_file() {
            let file = fs::File::open(&path).map_err(failed(&path))?;
            // Only clean pages can go.
            file.sync_data().map_err(failed(&path))?;
            fadvise(&file, 0, None, Advice::DontNeed)
                .map_err(|errno| failed(&path)(errno.into()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_in_the_group_get_no_more_than_the_limit() {
        let limit = match MemoryLimit::new(16 << 20) {
            Ok(limit) => limit,
            Err(error) => {
                assert_eq!(error.exit_code(), 2);
                assert!(error.to_string().contains("needs root"), "{error}");
                return;
            }
        };
        let group = limit.group().to_path_buf();
        // The command allocates a buffer of that size and fills it.
        let run = |mib: u32| {
            let script = format!(
                "echo $$ > {}/cgroup.procs && exec dd if=/dev/zero of=/dev/null bs={mib}M count=1",
                group.display()
            );
            Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
        };
        assert!(run(4), "less than the limit");
        assert!(!run(64), "more than the limit");
        drop(limit);
        assert!(!group.exists());
    }

    #[test]
    fn a_system_without_control_groups_is_refused_with_the_reason() {
        let nothing = tempfile::tempdir().unwrap();
        let error = MemoryLimit::below(nothing.path(), 1 << 20).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("needs root"), "{error}");
        fs::write(nothing.path().join("cgroup.controllers"), "cpu").unwrap();
        let error = MemoryLimit::below(nothing.path(), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("setting the limit"), "{error}");
        let left = fs::read_dir(nothing.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(left.count(), 0, "the group is removed again");
        assert!(enter(nothing.path()).is_err());
    }

    #[test]
    fn everything_below_a_directory_is_evicted_and_stays_readable() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("nested");
        fs::create_dir(&nested).unwrap();
        fs::write(nested.join("file"), vec![7; 100_000]).unwrap();
        evict(directory.path()).unwrap();
        assert_eq!(fs::read(nested.join("file")).unwrap(), vec![7; 100_000]);
        assert!(evict(&nested.join("missing")).is_err());
    }
}

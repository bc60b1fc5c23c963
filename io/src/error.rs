//! The error of every operation that reaches the kernel (or the simulator).
//!
//! It keeps what an operator needs to act: the operation, the path, the byte range, and the operating system's own error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of an operation that reaches the kernel.
pub type Result<T> = std::result::Result<T, IoError>;

/// A failed operation: which one, on what, where, and why.
#[derive(Debug, Clone)]
pub struct IoError {
    operation: &'static str,
    path: PathBuf,
    range: Option<(u64, usize)>,
    kind: io::ErrorKind,
    raw_os_error: Option<i32>,
    message: String,
}

impl IoError {
    /// Wraps `source`, the failure of `operation` (a verb such as `"read"`) on `path`.
    #[must_use]
    pub fn new(operation: &'static str, path: &Path, source: &io::Error) -> Self {
        Self {
            operation,
            path: path.to_path_buf(),
            range: None,
            kind: source.kind(),
            raw_os_error: source.raw_os_error(),
            message: source.to_string(),
        }
    }

    /// Adds the byte range that the operation covered.
    #[must_use]
    pub fn at(mut self, offset: u64, len: usize) -> Self {
        self.range = Some((offset, len));
        self
    }

    /// The verb that failed, such as `"read"`.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The file or directory that the operation was on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Offset and length in bytes, where the operation had a range.
    #[must_use]
    pub fn range(&self) -> Option<(u64, usize)> {
        self.range
    }

    /// The standard library's class of this error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// The operating system's error number, if it was the one that refused.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.raw_os_error
    }

    /// True if the file or directory does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == io::ErrorKind::NotFound
    }

    /// True if the device, the quota or the file-size limit is exhausted.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self.kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// True if the medium forbids writing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.kind == io::ErrorKind::ReadOnlyFilesystem
    }

    /// True if the operating system's permissions forbid the operation.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.kind == io::ErrorKind::PermissionDenied
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.operation, self.path.display())?;
        if let Some((offset, len)) = self.range {
            write!(f, " at offset {offset} ({len} bytes)")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for IoError {}

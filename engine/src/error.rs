//! The one error type of the public API.
//!
//! A caller matches on [`Error::kind`] to decide what to do; a person reads the message, which says what to do next.
//! Values never appear in error texts, and keys only where they must be known: a conflict and a violated unique index say which key they
//! are about.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustlite_io::IoError;

/// Result of a database operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure, that is: what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key, value, batch, name or option is outside its limits. Correct the call.
    InvalidArgument,
    /// The directory does not exist and creating it was not asked for; or there is no such generation of a backup, no such named
    /// snapshot, or nobody has kept the state asked for.
    NotFound,
    /// There is a database already, and `error_if_exists` was set; or something is where a checkpoint or restored database
    /// should go, or a snapshot has that name.
    AlreadyExists,
    /// The directory holds something, but not a database.
    NotADatabase,
    /// Another process, or another handle in this process, has the database open.
    Locked,
    /// The files were written by a newer version of RustLite. Upgrade.
    UnsupportedFormat,
    /// The database was opened read-only, or the medium is.
    ReadOnly,
    /// The operating system's permissions forbid it.
    PermissionDenied,
    /// The device is full. Reads go on; writes go on as soon as there is space.
    DiskFull,
    /// Bytes on the medium are not what was written. See `Error::corruption_details`.
    Corruption,
    /// The operating system refused an operation.
    Io,
    /// An earlier write failed and nobody knows what reached the medium: reads go on, writes don't. Reopen the database.
    Poisoned,
    /// The database was closed.
    Closed,
    /// The keyspace does not exist (any more).
    KeyspaceNotFound,
    /// A keyspace of that name exists already with other options.
    KeyspaceExists,
    /// There is no index of that name (any more).
    IndexNotFound,
    /// There is an index of that name already.
    IndexExists,
    /// The index is still being built, or was when the snapshot or transaction began.
    IndexBuilding,
    /// Code that gives the index keys of rows is not registered in the options; see `Options::index_extractor`.
    ExtractorMissing,
    /// Two rows would have the same key in a unique index; the text names index and key.
    UniqueViolation,
    /// Another transaction or write got in first; the text names the key. Run the transaction again.
    Conflict,
    /// Transactions wait for each other's locks in a circle, and this one was chosen to give up. Run it again.
    Deadlock,
    /// A lock was not free in time. The transaction can go on without it, or be run again.
    LockTimeout,
    /// The transaction has used up its time.
    DeadlineExceeded,
    /// A keyspace was created with a merge operator that this program has not registered. See `Options::merge_operator`.
    OperatorNotRegistered,
    /// A merge operator could not apply an operand of the key that was read, or panicked. Set or delete the key, or correct the
    /// operator.
    OperatorFailed,
    /// A bug in RustLite. Please report it.
    Internal,
}

/// Where bytes were found wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// Which structure.
    pub what: &'static str,
    /// What was expected and what was found.
    pub detail: String,
}

/// A failed database operation.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    corruption: Option<Corruption>,
    source: Option<Source>,
}

enum Source {
    Io(IoError),
    Cause(Error),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), corruption: None, source: None }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        debug_assert!(false, "internal error: {message}");
        Self::new(ErrorKind::Internal, message)
    }

    /// `what` of `file` at `offset` is damaged; `detail` says what was expected and what was found.
    pub(crate) fn corruption(
        file: &Path,
        offset: u64,
        what: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let corruption =
            Corruption { file: file.to_path_buf(), offset, what, detail: detail.into() };
        Self(Arc::new(Inner {
            kind: ErrorKind::Corruption,
            message: String::new(),
            corruption: Some(corruption),
            source: None,
        }))
    }

    /// The same kind of failure, told in the words of what was being done.
    pub(crate) fn context(self, doing: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            message: doing.into(),
            corruption: self.0.corruption.clone(),
            source: Some(Source::Cause(self)),
        }))
    }

    /// What later writes get after `first` went wrong.
    pub(crate) fn poisoned(first: &Self) -> Self {
        Self(Arc::new(Inner {
            kind: ErrorKind::Poisoned,
            message:
                "an earlier write failed, so writes are refused until the database is reopened"
                    .into(),
            corruption: None,
            source: Some(Source::Cause(first.clone())),
        }))
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if the same transaction, run again from its beginning, may well succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Conflict | ErrorKind::Deadlock | ErrorKind::LockTimeout)
    }

    /// Where bytes were found wrong, for [`ErrorKind::Corruption`].
    #[must_use]
    pub fn corruption_details(&self) -> Option<&Corruption> {
        self.0.corruption.as_ref()
    }

    /// The failed system operation underneath, if there was one.
    #[must_use]
    pub fn io_error(&self) -> Option<&IoError> {
        match &self.0.source {
            Some(Source::Io(error)) => Some(error),
            Some(Source::Cause(error)) => error.io_error(),
            None => None,
        }
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        let kind = if error.is_disk_full() {
            ErrorKind::DiskFull
        } else if error.is_read_only() {
            ErrorKind::ReadOnly
        } else if error.is_permission_denied() {
            ErrorKind::PermissionDenied
        } else {
            ErrorKind::Io
        };
        Self(Arc::new(Inner {
            kind,
            message: String::new(),
            corruption: None,
            source: Some(Source::Io(error)),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut parts: Vec<String> = Vec::new();
        if !inner.message.is_empty() {
            parts.push(inner.message.clone());
        }
        match (&inner.corruption, &inner.source) {
            (_, Some(Source::Cause(cause))) => parts.push(cause.to_string()),
            (Some(at), _) => parts.push(format!(
                "corruption in {} at offset {}: {}: {}",
                at.file.display(),
                at.offset,
                at.what,
                at.detail
            )),
            (_, Some(Source::Io(error))) => parts.push(error.to_string()),
            (None, None) => {}
        }
        f.write_str(&parts.join(": "))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(Source::Io(error)) => Some(error),
            Some(Source::Cause(error)) => Some(error),
            None => None,
        }
    }
}

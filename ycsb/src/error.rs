//! What can go wrong in the harness, sorted by who can help: the person at the keyboard, an engine,
//! or the machine.

use std::fmt;
use std::path::{Path, PathBuf};

/// What an engine's adapter reports: the engine's own error, whatever its type.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Shorthand for results of the harness.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the harness.
#[derive(Debug)]
pub enum Error {
    /// The request can't be carried out as given; the text says what to change. Exit code 2.
    Usage(String),
    /// An engine reported an error.
    Engine {
        /// The engine's name.
        engine: &'static str,
        /// What the harness asked of it.
        action: &'static str,
        /// Its own error.
        source: Failure,
    },
    /// The operating system reported an error.
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A step in a worker process failed; the text is the worker's own.
    Worker(String),
    /// Engines gave wrong answers: the numbers were printed, but they don't count.
    WrongAnswers(String),
}

impl Error {
    /// An error of the operating system on `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// The exit code that tells a script whom to blame: 2 for the request, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Worker(text) | Self::WrongAnswers(text) => f.write_str(text),
            Self::Engine { engine, action, source } => {
                write!(f, "{engine}: {action} failed: {source}")?;
                let mut cause = source.source();
                while let Some(inner) = cause {
                    write!(f, ": {inner}")?;
                    cause = inner.source();
                }
                Ok(())
            }
            Self::Io { action, path, source } => {
                write!(f, "{action} {} failed: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Engine { source, .. } => Some(source.as_ref()),
            Self::Io { source, .. } => Some(source),
            Self::Usage(_) | Self::Worker(_) | Self::WrongAnswers(_) => None,
        }
    }
}

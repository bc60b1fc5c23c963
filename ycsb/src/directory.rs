//! The directory that a measurement works in, with a marker file that tells what is loaded in it.
//!
//! Guarantees: nothing that `ycsb` didn't make itself is ever touched; a directory made by default
//! is removed at the end.
//!
//! ```text
//! DIR/ycsb.json      the marker: which engine holds how many records of which size
//! DIR/<engine>/      each engine's own files
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::interrupt;
use crate::keys::KeyShape;
use crate::machine::Mount;

/// Name of the marker file.
const MARKER: &str = "ycsb.json";

/// Version of the marker's content.
const MARKER_FORMAT: u32 = 1;

/// What is loaded in an engine's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Records.
    pub records: u64,
    /// Size of a record.
    pub value_size: usize,
    /// What its keys look like; YCSB's in markers of earlier versions.
    #[serde(default)]
    pub keys: KeyShape,
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    engines: BTreeMap<String, Loaded>,
}

/// The working directory.
#[derive(Debug)]
pub struct WorkDirectory {
    path: PathBuf,
    marker: Marker,
    /// Present if the directory is ours to remove.
    temporary: Option<tempfile::TempDir>,
}

impl WorkDirectory {
    /// The directory asked for, or a fresh one that is removed on drop.
    ///
    /// # Errors
    /// [`Error::Usage`] if the directory holds something that `ycsb` didn't make.
    pub fn open(asked: Option<&Path>) -> Result<Self> {
        let empty = Marker { format: MARKER_FORMAT, engines: BTreeMap::new() };
        let Some(path) = asked else {
            let base = temporary_base();
            let made = tempfile::Builder::new().prefix("ycsb-").tempdir_in(&base);
            let made = made.map_err(|source| Error::io("making a directory in", &base, source))?;
            interrupt::remove_on_signal(made.path());
            let path = made.path().to_path_buf();
            let directory = Self { path, marker: empty, temporary: Some(made) };
            directory.write_marker()?;
            return Ok(directory);
        };
        fs::create_dir_all(path).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => Error::Usage(format!(
                "--dir {} is not a directory; give one that is empty or doesn't exist yet",
                path.display()
            )),
            _ => Error::io("creating the directory", path, source),
        })?;
        let marker = match fs::read_to_string(path.join(MARKER)) {
            Ok(text) => Self::parse_marker(path, &text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_unless_empty(path)?;
                empty
            }
            Err(source) => return Err(Error::io("reading", &path.join(MARKER), source)),
        };
        let directory = Self { path: path.to_path_buf(), marker, temporary: None };
        directory.write_marker()?;
        Ok(directory)
    }

    fn parse_marker(path: &Path, text: &str) -> Result<Marker> {
        let file = path.join(MARKER);
        let marker: Marker = serde_json::from_str(text).map_err(|error| {
            Error::Usage(format!("{} is not readable ({error}); use another --dir", file.display()))
        })?;
        if marker.format != MARKER_FORMAT {
            return Err(Error::Usage(format!(
                "{} has format {}, this version of ycsb knows {MARKER_FORMAT}; use another --dir",
                file.display(),
                marker.format
            )));
        }
        Ok(marker)
    }

    fn write_marker(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.marker).expect("keys are strings");
        let file = self.path.join(MARKER);
        fs::write(&file, text).map_err(|source| Error::io("writing", &file, source))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes away at the end.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// What `engine` holds, if it was loaded here.
    #[must_use]
    pub fn loaded(&self, engine: &str) -> Option<&Loaded> {
        self.marker.engines.get(engine)
    }

    /// The directory of `engine`.
    #[must_use]
    pub fn engine_path(&self, engine: &str) -> PathBuf {
        self.path.join(engine)
    }

    /// Empties the engine's directory, for a fresh load. The marker forgets the engine first, so
    /// that a load that is broken off is never taken for a complete one.
    ///
    /// # Errors
    /// The directory can't be removed or made.
    pub fn reset(&mut self, engine: &str) -> Result<PathBuf> {
        self.marker.engines.remove(engine);
        self.write_marker()?;
        let path = self.engine_path(engine);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(Error::io("removing the old store", &path, source));
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(|source| Error::io("creating", &path, source))?;
        Ok(path)
    }

    /// Notes that `engine` holds `loaded` now.
    ///
    /// # Errors
    /// The marker can't be written.
    pub fn record(&mut self, engine: &str, loaded: Loaded) -> Result<()> {
        self.marker.engines.insert(engine.to_owned(), loaded);
        self.write_marker()
    }
}

fn refuse_unless_empty(path: &Path) -> Result<()> {
    let mut entries =
        fs::read_dir(path).map_err(|source| Error::io("listing the directory", path, source))?;
    if entries.next().is_none() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--dir {} is not empty and wasn't made by ycsb (there is no {MARKER} in it); \
         give an empty or a new directory",
        path.display()
    )))
}

/// Where directories made by default go: the system's place for temporary files, or the current
/// directory if that place is in memory, because durability measured in memory means nothing.
fn temporary_base() -> PathBuf {
    let system = std::env::temp_dir();
    let in_memory = Mount::of(&system)
        .is_some_and(|mount| matches!(mount.file_system.as_str(), "tmpfs" | "ramfs"));
    let current = std::env::current_dir();
    match current {
        Ok(current) if in_memory => current,
        _ => system,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_directory_is_fresh_and_goes_away() {
        let directory = WorkDirectory::open(None).unwrap();
        let path = directory.path().to_path_buf();
        assert!(directory.is_temporary() && path.join(MARKER).exists());
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn foreign_directories_and_files_are_refused_untouched() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("precious");
        fs::write(&file, "data").unwrap();
        for path in [base.path(), &file] {
            let error = WorkDirectory::open(Some(path)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn reopened_directory_knows_complete_loads_only() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("new");
        let mut directory = WorkDirectory::open(Some(&path)).unwrap();
        directory.reset("rustlite").unwrap();
        let loaded = Loaded { records: 5, value_size: 10, keys: KeyShape::Uuid };
        directory.record("rustlite", loaded.clone()).unwrap();
        drop(directory);
        let mut directory = WorkDirectory::open(Some(&path)).unwrap();
        assert!(!directory.is_temporary());
        assert_eq!(directory.loaded("rustlite"), Some(&loaded));
        fs::write(directory.engine_path("rustlite").join("old"), "x").unwrap();
        let engine = directory.reset("rustlite").unwrap();
        assert_eq!(fs::read_dir(engine).unwrap().count(), 0);
        drop(directory);
        assert_eq!(WorkDirectory::open(Some(&path)).unwrap().loaded("rustlite"), None);
    }

    #[test]
    fn markers_of_another_format_or_rotten_ones_are_refused() {
        let base = tempfile::tempdir().unwrap();
        for text in ["{\"format\": 2, \"engines\": {}}", "{", ""] {
            fs::write(base.path().join(MARKER), text).unwrap();
            let error = WorkDirectory::open(Some(base.path())).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}

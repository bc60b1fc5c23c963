//! What the test modules share: the setups to run in, small options, and pictures of directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustlite::{Database, ErrorKind, IoBackend, Iter, Options};

/// Options under which a few thousand records already flush, compact, and recycle log segments.
pub(crate) fn small_options() -> Options {
    Options::new()
        .memtable_bytes(64 << 10)
        .log_segment_bytes(256 << 10)
        .log_bytes_max(512 << 10)
        .table_bytes(32 << 10)
        .level_base_bytes(128 << 10)
        .l0_compaction_trigger(2)
        .block_cache_bytes(1 << 20)
}

/// Where a database lives and how it reaches the kernel.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    /// `None` for a database in memory.
    directory: Option<tempfile::TempDir>,
    pub(crate) backend: IoBackend,
}

impl Setup {
    /// A new directory on the disk.
    pub(crate) fn on_disk(name: &'static str, backend: IoBackend) -> Self {
        // On purpose not the system's temporary directory, which may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { name, directory: Some(directory), backend }
    }

    fn on_tmpfs(name: &'static str, backend: IoBackend) -> Option<Self> {
        let directory = tempfile::tempdir_in("/dev/shm").ok();
        if directory.is_none() {
            println!("{name}: skipped, /dev/shm cannot be written");
        }
        directory.map(|directory| Self { name, directory: Some(directory), backend })
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.directory.is_some()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.as_ref().unwrap().path().join("db")
    }

    pub(crate) fn options(&self) -> Options {
        small_options().io_backend(self.backend)
    }

    pub(crate) fn open(&self) -> Database {
        self.open_with(self.options())
    }

    pub(crate) fn open_with(&self, options: Options) -> Database {
        if self.is_persistent() {
            Database::open_with(self.path(), options).unwrap()
        } else {
            Database::in_memory_with(options).unwrap()
        }
    }
}

/// True if the kernel lets us use io_uring; says so if it doesn't.
pub(crate) fn has_io_uring() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(probe_io_uring)
}

fn probe_io_uring() -> bool {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options::new().io_backend(IoBackend::Uring);
    match Database::open_with(directory.path().join("probe"), options) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            println!("io_uring: skipped: {error}");
            false
        }
    }
}

/// The backends of this machine.
pub(crate) fn backends() -> Vec<(&'static str, IoBackend)> {
    let mut all = vec![("threads", IoBackend::Threads)];
    if has_io_uring() {
        all.push(("io_uring", IoBackend::Uring));
    }
    all
}

/// Runs a test on every backend, on disk, on tmpfs and in memory, and names the setup.
pub(crate) fn on_each_setup(test: impl Fn(&Setup)) {
    let mut setups = vec![Setup { name: "memory", directory: None, backend: IoBackend::Auto }];
    for (name, backend) in backends() {
        setups.push(Setup::on_disk(name, backend));
        setups.extend(Setup::on_tmpfs("tmpfs", backend));
    }
    for setup in setups {
        println!("setup: {}, {:?}", setup.name, setup.backend);
        test(&setup);
    }
}

/// Where the data of a test is when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In the memtable and the log.
    Memtable,
    /// In tables of level 0.
    Flushed,
    /// In one sorted run.
    Compacted,
    /// As recovery finds it.
    Reopened,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] =
        [Self::Memtable, Self::Flushed, Self::Compacted, Self::Reopened];

    /// Brings what was written so far there. Handles to keyspaces must be got again.
    pub(crate) fn reach(self, setup: &Setup, db: Database) -> Database {
        match self {
            Self::Memtable => {}
            Self::Flushed => db.flush().unwrap(),
            Self::Compacted => {
                for name in db.list_keyspaces().unwrap() {
                    db.keyspace(&name).unwrap().compact().unwrap();
                }
            }
            Self::Reopened if setup.is_persistent() => {
                db.close().unwrap();
                return setup.open();
            }
            Self::Reopened => {}
        }
        db
    }
}

/// Everything that an iterator yields, as text.
pub(crate) fn texts(
    items: impl Iterator<Item = rustlite::Result<rustlite::KeyValue>>,
) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    items.map(|item| item.map(|(key, value)| (text(key), text(value))).unwrap()).collect()
}

/// The keys that an iterator yields, as text separated by blanks.
pub(crate) fn keys(items: impl Iterator<Item = rustlite::Result<rustlite::KeyValue>>) -> String {
    let keys: Vec<String> = texts(items).into_iter().map(|(key, _)| key).collect();
    keys.join(" ")
}

/// Everything that an iterator yields.
pub(crate) fn collect(items: Iter) -> BTreeMap<Vec<u8>, Vec<u8>> {
    items.map(Result::unwrap).collect()
}

/// Every file of a directory with its content.
pub(crate) fn picture(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let content = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        files.insert(path, content);
    }
    files
}

/// The files of a database that is open, once its background threads have come to rest.
pub(crate) fn picture_at_rest(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let sizes = || -> BTreeMap<PathBuf, u64> {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        entries.map(|entry| (entry.path(), entry.metadata().map_or(0, |data| data.len()))).collect()
    };
    let mut last = BTreeMap::new();
    loop {
        let now = sizes();
        if now == last {
            return picture(directory);
        }
        last = now;
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
}

/// Checks that a directory is as it was, and names what changed otherwise.
pub(crate) fn assert_untouched(before: &BTreeMap<PathBuf, Vec<u8>>, directory: &Path) {
    let after = picture(directory);
    let names = |picture: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
        picture.keys().cloned().collect()
    };
    assert_eq!(names(before), names(&after), "files came or went");
    for (path, content) in before {
        assert!(after[path] == *content, "{} was changed", path.display());
    }
}

/// Checks kind and text of a failure: the text is what a person has to go by.
#[track_caller]
pub(crate) fn assert_fails<T>(result: rustlite::Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = match result {
        Ok(_) => panic!("this should have failed with {kind:?}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text:?}");
    }
}

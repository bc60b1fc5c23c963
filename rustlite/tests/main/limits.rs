//! Numbers that a server may reach: a thousand threads, and many more tables than file handles.

use std::ffi::OsStr;
use std::path::Path;

use rustlite::{Database, Durability, Options};

use crate::child;
use crate::support::{backends, on_each_setup, small_options};

const THREADS: usize = 1_000;

/// File handles that the process with many tables may have.
const HANDLES: &str = "128";

#[test]
fn a_thousand_threads_write_and_read_at_once() {
    on_each_setup(|setup| {
        let db = setup.open();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let db = db.clone();
                let work = move || {
                    let key = format!("{thread:04}");
                    db.put(&key, &key).unwrap();
                    assert_eq!(db.get(&key).unwrap().as_deref(), Some(key.as_bytes()));
                };
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, work)
                    .unwrap();
            }
        });
        assert_eq!(db.iter().unwrap().count(), THREADS);
        db.close().unwrap();
    });
}

#[test]
fn tables_take_no_file_handles() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = format!("ulimit -n {HANDLES} && exec \"$@\"");
    let launcher = ["sh", "-c", &script, "sh"].map(OsStr::new);
    let output = child::command(&launcher, "make many tables", directory.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}", String::from_utf8_lossy(&output.stdout));
}

/// The role of the process that has few file handles.
pub(crate) fn make_many_tables(directory: &Path) {
    for (name, backend) in backends() {
        let options: Options = small_options()
            .table_bytes(16 << 10)
            .memtable_bytes(1 << 20)
            .durability(Durability::Buffered)
            .io_backend(backend);
        let path = directory.join(name);
        let db = Database::open_with(&path, options.clone()).unwrap();
        for number in 0..6_000_u32 {
            db.put(number.to_be_bytes(), vec![b'v'; 1_500]).unwrap();
        }
        db.compact().unwrap();
        db.close().unwrap();
        let db = Database::open_with(&path, options).unwrap();
        let tables: usize = db.stats().unwrap().levels.iter().map(|level| level.tables).sum();
        assert!(tables > 3 * HANDLES.parse::<usize>().unwrap(), "only {tables} tables");
        assert_eq!(db.iter().unwrap().count(), 6_000);
        db.close().unwrap();
    }
}

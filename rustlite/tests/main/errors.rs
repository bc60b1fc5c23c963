//! Every wrong call and every wrong directory gives its own clear error, and nothing on disk is harmed by it.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustlite::{Database, Durability, ErrorKind, KeyspaceOptions, Options, WriteBatch};

use crate::child;
use crate::support::{
    Setup, assert_fails, assert_untouched, keys, on_each_setup, picture, picture_at_rest,
    small_options,
};

/// Runs a test on every setup that has files, with a small database that was closed.
fn on_each_closed_database(test: impl Fn(&Setup)) {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        let db = setup.open();
        for number in 0..100 {
            db.put(format!("{number:02}"), "value").unwrap();
        }
        db.close().unwrap();
        test(setup);
    });
}

#[test]
fn keys_and_values_outside_the_limits_are_refused() {
    on_each_setup(|setup| {
        let db = setup.open();
        db.put("present", "x").unwrap();
        let before = setup.is_persistent().then(|| picture_at_rest(&setup.path()));
        let invalid = ErrorKind::InvalidArgument;
        let (empty, long) = (Vec::new(), vec![b'k'; 65_537]);
        let wrong = [(&empty, "key is empty"), (&long, "65537 bytes; the most is 65536")];
        for (key, words) in wrong {
            assert_fails(db.put(key, "v"), invalid, &[words]);
            assert_fails(db.delete(key), invalid, &[words]);
            assert_fails(db.get(key), invalid, &[words]);
            assert_fails(db.get_pinned(key), invalid, &[words]);
            assert_fails(db.contains_key(key), invalid, &[words]);
            assert_fails(db.multi_get(&[b"present".as_slice(), key]), invalid, &[words]);
            let snapshot = db.snapshot().unwrap();
            assert_fails(snapshot.get(key), invalid, &[words]);
            assert_fails(snapshot.contains_key(key), invalid, &[words]);
            let mut batch = WriteBatch::new();
            batch.put("good", "x").put(key, "x").put("also good", "x");
            assert_fails(db.write(batch), invalid, &[words]);
        }
        assert_fails(db.delete_range(&long, "z"), invalid, &["bound", "65536"]);
        assert_fails(db.delete_range("a", &long), invalid, &["bound", "65536"]);
        // The system gives zeroed memory lazily, so these cost nothing.
        let gigabyte = vec![0; (1 << 30) + 1];
        assert_fails(db.put("k", &gigabyte), invalid, &["1073741825 bytes", "1073741824"]);
        let mut batch = WriteBatch::new();
        batch.put("good", "x").put("k", &gigabyte);
        assert_fails(db.write(batch), invalid, &["1073741825 bytes"]);
        let mut batch = WriteBatch::new();
        batch.put("k", &gigabyte[..2 << 20]).put("k", &gigabyte[..1 << 30]);
        assert_fails(db.write(batch), invalid, &["batch is larger than", "split it"]);
        assert_eq!(keys(db.iter().unwrap()), "present", "a refused batch leaves nothing behind");
        if let Some(before) = before {
            assert_untouched(&before, &setup.path());
        }
    });
}

#[test]
fn options_outside_their_bounds_are_refused_by_name() {
    let bad: [(Options, &str); 18] = [
        (Options::new().memtable_bytes(65_535), "memtable_bytes"),
        (Options::new().memtable_bytes((4 << 30) + 1), "memtable_bytes"),
        (Options::new().memtables_max(1), "memtables_max"),
        (Options::new().memtables_max(17), "memtables_max"),
        (Options::new().log_segment_bytes(128 << 10), "log_segment_bytes"),
        (Options::new().log_segment_bytes((1 << 20) + 1), "log_segment_bytes"),
        (Options::new().log_bytes_max((32 << 20) - 1), "log_bytes_max"),
        (Options::new().log_frames_in_flight(0), "log_frames_in_flight"),
        (Options::new().log_frames_in_flight(64), "log_frames_in_flight"),
        (Options::new().table_bytes(0), "table_bytes"),
        (Options::new().level_base_bytes(1), "level_base_bytes"),
        (Options::new().level_ratio(1), "level_ratio"),
        (Options::new().l0_compaction_trigger(0), "l0_compaction_trigger"),
        (Options::new().l0_slowdown_trigger(1), "l0_slowdown_trigger"),
        (Options::new().l0_stop_trigger(12), "l0_stop_trigger"),
        (Options::new().background_threads(0), "background_threads"),
        (Options::new().durability(Durability::Periodic(Duration::ZERO)), "durability"),
        (Options::new().default_keyspace(KeyspaceOptions::new().block_bytes(0)), "block_bytes"),
    ];
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("db");
    for (options, name) in bad {
        let invalid = ErrorKind::InvalidArgument;
        assert_fails(options.validate(), invalid, &["option", name]);
        assert_fails(Database::open_with(&path, options.clone()), invalid, &[name]);
        assert_fails(Database::in_memory_with(options), invalid, &[name]);
        assert!(!path.exists(), "a refused open created {}", path.display());
    }
}

#[test]
fn paths_that_cannot_be_a_database_are_told_apart() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = directory.path();
    let (file, photos, empty) = (root.join("file"), root.join("photos"), root.join("empty"));
    std::fs::write(&file, "text").unwrap();
    std::fs::create_dir(&photos).unwrap();
    std::fs::write(photos.join("cat.jpg"), "a cat").unwrap();
    std::fs::create_dir(&empty).unwrap();
    let before = picture(root);
    let inside = picture(&photos);
    for (_, backend) in crate::support::backends() {
        let options = Options::new().io_backend(backend);
        let open = |path: &Path| Database::open_with(path, options.clone());
        let foreign = ErrorKind::NotADatabase;
        assert_fails(open(&file), foreign, &["file", "not a directory"]);
        assert_fails(open(&photos), foreign, &["photos", "not those of a database"]);
        let missing = ErrorKind::NotFound;
        assert_fails(open(&file.join("below")), missing, &["file is not a directory"]);
        assert_fails(open(&root.join("no/such")), missing, &["no", "does not exist"]);
        let shy = options.clone().create_if_missing(false);
        let path = root.join("absent");
        assert_fails(Database::open_with(&path, shy.clone()), missing, &["absent"]);
        assert_fails(Database::open_with(&empty, shy), missing, &["holds no database"]);
        let reader = options.clone().read_only(true);
        assert_fails(Database::open_with(&path, reader.clone()), missing, &["absent"]);
        assert_fails(Database::open_with(&empty, reader.clone()), missing, &["empty"]);
        assert_fails(Database::open_with(&photos, reader), foreign, &["photos"]);
    }
    assert_untouched(&before, root);
    assert_untouched(&inside, &photos);
    assert!(picture(&empty).is_empty());
    // An empty directory that exists is as good as one that doesn't.
    Database::open(&empty).unwrap().close().unwrap();
}

#[test]
fn an_existing_database_is_an_error_where_a_new_one_was_asked_for() {
    on_each_closed_database(|setup| {
        let before = picture(&setup.path());
        let new = setup.options().error_if_exists(true);
        let opened = Database::open_with(setup.path(), new.clone());
        assert_fails(opened, ErrorKind::AlreadyExists, &["database", "already"]);
        assert_untouched(&before, &setup.path());
        let other = setup.path().with_file_name("other");
        Database::open_with(other, new).unwrap();
    });
}

#[test]
fn a_second_open_is_refused_in_this_process_and_while_another_one_lives() {
    on_each_closed_database(|setup| {
        let db = setup.open();
        let before = picture_at_rest(&setup.path());
        let locked = ErrorKind::Locked;
        let again = || Database::open_with(setup.path(), setup.options());
        assert_fails(again(), locked, &["open already", "db"]);
        assert_untouched(&before, &setup.path());
        let clone = db.clone();
        drop(db);
        assert_fails(again(), locked, &["clone the handle"]);
        clone.close().unwrap();
        again().unwrap().close().unwrap();

        let mut holder = child::command(&[], "hold the lock", &setup.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"locked\n") {
            let mut byte = [0];
            holder.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
            heard.push(byte[0]);
        }
        let before = picture_at_rest(&setup.path());
        assert_fails(again(), locked, &["another"]);
        // A reader needs no lock.
        let reader = Database::open_with(setup.path(), setup.options().read_only(true)).unwrap();
        assert_eq!(reader.iter().unwrap().count(), 101);
        drop(reader);
        assert_untouched(&before, &setup.path());
        holder.kill().unwrap();
        holder.wait().unwrap();
        let db = again().unwrap();
        assert_eq!(db.get("of the holder").unwrap().as_deref(), Some(&b"value"[..]));
        db.close().unwrap();
    });
}

/// The role of the process that has the database open.
pub(crate) fn hold_the_lock(directory: &Path) {
    let db = Database::open_with(directory, small_options()).unwrap();
    db.put("of the holder", "value").unwrap();
    println!("locked");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_read_only_database_refuses_every_change_and_writes_nothing() {
    on_each_closed_database(|setup| {
        let before = picture(&setup.path());
        let db = Database::open_with(setup.path(), setup.options().read_only(true)).unwrap();
        let read_only = ErrorKind::ReadOnly;
        let mut batch = WriteBatch::new();
        batch.put("k", "v");
        let refused = [
            db.put("k", "v"),
            db.delete("k"),
            db.delete_range("a", "b"),
            db.clear(),
            db.write(batch),
            db.flush(),
            db.compact(),
            db.compact_range("a".."b"),
            db.drop_keyspace("default"),
            db.keyspace("new").map(drop),
        ];
        for (number, result) in refused.into_iter().enumerate() {
            println!("change {number}");
            // The default keyspace cannot be dropped by anybody.
            let kind = if number == 8 { ErrorKind::InvalidArgument } else { read_only };
            assert_fails(result, kind, &[]);
        }
        assert_eq!(db.iter().unwrap().count(), 100);
        assert_eq!(db.list_keyspaces().unwrap(), ["default"]);
        db.stats().unwrap();
        db.close().unwrap();
        assert_untouched(&before, &setup.path());
    });
}

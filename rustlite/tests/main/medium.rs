//! Media that cannot be written: full ones and read-only ones, real ones, mounted in a namespace of a child process.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustlite::{Database, ErrorKind};

use crate::child;
use crate::support::{assert_fails, backends, collect, picture, picture_at_rest, small_options};

/// Runs a role in a mount namespace of its own, after the shell commands `mount` (with the directory as `$0`). Prints why it
/// doesn't, where the system does not let it.
fn in_namespace(mount: &str, role: &str, directory: &Path) {
    for user in ["--mount", "--map-root-user --mount"] {
        let mut probe = Command::new("unshare");
        probe.args(user.split(' ')).args(["sh", "-c", mount]).arg(directory);
        let probe = probe.stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            continue;
        }
        let script = format!("{mount} && exec \"$@\"");
        let words = ["unshare"].into_iter().chain(user.split(' ')).chain(["sh", "-c", &script]);
        let mut launcher: Vec<&OsStr> = words.map(OsStr::new).collect();
        launcher.push(directory.as_os_str());
        let output = child::command(&launcher, role, directory).output().unwrap();
        let heard = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role}: {heard}\n{told}");
        assert!(heard.contains("role played"), "{role}: {heard}\n{told}");
        return;
    }
    println!("{role}: skipped, this system does not allow mounts in namespaces");
}

#[test]
fn a_full_disk_is_told_and_writes_resume_when_there_is_space() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    in_namespace("mount -t tmpfs -o size=8m tmpfs \"$0\"", "fill the disk", directory.path());
}

/// The role of the process on a disk of 8 MiB.
pub(crate) fn fill_the_disk(directory: &Path) {
    // Different sizes, so that different files are the first that do not fit.
    for (number, (name, backend)) in backends().into_iter().cycle().take(6).enumerate() {
        let path = directory.join(name);
        let ballast = directory.join("ballast");
        std::fs::write(&ballast, vec![1; (3 << 20) + number * 300_000]).unwrap();
        let options = small_options().io_backend(backend);
        let db = Database::open_with(&path, options.clone()).unwrap();
        let mut acknowledged = 0;
        let error = loop {
            match db.put(format!("{acknowledged:06}"), vec![b'v'; 2_000]) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        println!("{name}: full after {acknowledged} writes: {error}");
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        assert!(error.to_string().to_lowercase().contains("no space"), "{error}");
        assert!(acknowledged > 100);
        // Reads go on, and so do refusals that say why.
        assert_fails(db.put("one more", vec![b'v'; 2_000]), ErrorKind::DiskFull, &[]);
        assert_eq!(db.iter().unwrap().count(), acknowledged);
        assert_eq!(db.get("000000").unwrap().unwrap().len(), 2_000);
        std::fs::remove_file(&ballast).unwrap();
        let begun = Instant::now();
        while let Err(error) = db.put("after", "space came back") {
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            assert!(begun.elapsed() < Duration::from_secs(10), "writes did not resume: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for number in 0..100 {
            db.put(format!("later {number:06}"), vec![b'v'; 2_000]).unwrap();
        }
        db.close().unwrap();
        let db = Database::open_with(&path, options).unwrap();
        assert_eq!(db.iter().unwrap().count(), acknowledged + 101);
        db.close().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }
    println!("role played");
}

#[test]
fn opening_on_a_disk_without_any_space_fails_cleanly_and_works_later() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mount = "mount -t tmpfs -o size=8m tmpfs \"$0\"";
    in_namespace(mount, "open on a full disk", directory.path());
}

/// The role of the process that finds a disk of 8 MiB full.
pub(crate) fn open_on_a_full_disk(directory: &Path) {
    for (name, backend) in backends() {
        let options = small_options().io_backend(backend);
        let (old, new) = (directory.join("old"), directory.join("new"));
        let db = Database::open_with(&old, options.clone()).unwrap();
        for number in 0..500 {
            db.put(format!("{number:03}"), "value").unwrap();
        }
        // Not closed: the log has to be replayed at the next open.
        let crashed = directory.join("crashed");
        std::fs::create_dir(&crashed).unwrap();
        for (path, content) in picture_at_rest(&old) {
            std::fs::write(crashed.join(path.file_name().unwrap()), content).unwrap();
        }
        db.close().unwrap();
        let ballast = directory.join("ballast");
        // Fails at the end, with everything full.
        std::fs::write(&ballast, vec![1; 8 << 20]).unwrap_err();
        let opened = Database::open_with(&new, options.clone());
        assert_fails(opened, ErrorKind::DiskFull, &[]);
        let count = |db: &Database| db.iter().unwrap().count();
        let reader = Database::open_with(&crashed, options.clone().read_only(true)).unwrap();
        assert_eq!(count(&reader), 500);
        drop(reader);
        match Database::open_with(&crashed, options.clone()) {
            Ok(db) => assert_eq!(count(&db), 500),
            Err(error) => assert_eq!(error.kind(), ErrorKind::DiskFull, "{name}: {error}"),
        }
        std::fs::remove_file(&ballast).unwrap();
        for path in [&new, &old, &crashed] {
            let db = Database::open_with(path, options.clone()).unwrap();
            assert_eq!(count(&db), if path == &new { 0 } else { 500 }, "{}", path.display());
            db.put("writable", "again").unwrap();
            db.close().unwrap();
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    println!("role played");
}

#[test]
fn a_read_only_medium_is_told_and_can_be_read() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Not closed, so that some of it is in the log only.
    let db = Database::open_with(directory.path().join("live"), small_options()).unwrap();
    for number in 0..500 {
        db.put(format!("{number:03}"), "value").unwrap();
    }
    let path = directory.path().join("db");
    std::fs::create_dir(&path).unwrap();
    for (file, content) in picture_at_rest(&directory.path().join("live")) {
        std::fs::write(path.join(file.file_name().unwrap()), content).unwrap();
    }
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    in_namespace(mount, "use a read-only medium", directory.path());
}

/// The role of the process that finds `directory` read-only.
pub(crate) fn use_a_read_only_medium(directory: &Path) {
    let path: PathBuf = directory.join("db");
    let before = picture(&path);
    for (_, backend) in backends_without_probe() {
        let options = small_options().io_backend(backend);
        let opened = Database::open_with(&path, options.clone());
        assert_fails(opened, ErrorKind::ReadOnly, &["Read-only file system"]);
        let created = Database::open_with(directory.join("new"), options.clone());
        assert_fails(created, ErrorKind::ReadOnly, &["Read-only file system"]);
        let db = Database::open_with(&path, options.read_only(true)).unwrap();
        assert_eq!(collect(db.iter().unwrap()).len(), 500);
        assert_fails(db.put("k", "v"), ErrorKind::ReadOnly, &["read-only"]);
        db.close().unwrap();
    }
    crate::support::assert_untouched(&before, &path);
    println!("role played");
}

/// The probe for io_uring makes a database, which it cannot do here.
fn backends_without_probe() -> [(&'static str, rustlite::IoBackend); 2] {
    [("threads", rustlite::IoBackend::Threads), ("any", rustlite::IoBackend::Auto)]
}

//! What reaches the kernel, as `strace` sees it: a lone sync commit is one durable write, a large group of them is one ring submission,
//! none is an fsync, and a cached get is nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustlite::{Database, IoBackend, Options};

use crate::child;
use crate::support::has_io_uring;

/// A path that nothing else looks at: asking for it marks a place in the trace.
const MARKER: &str = "/rustlite-marker";

const COMMITS: usize = 200;
const GETS: usize = 10_000;

fn mark() {
    let _ = std::fs::symlink_metadata(MARKER);
}

/// The system calls between the two marks: of the thread that set them, and of all threads. `None` if they cannot be traced here.
fn trace(role: &str) -> Option<(Vec<String>, Vec<String>)> {
    let works = Command::new("strace").arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("{role}: skipped, strace is missing or not allowed");
        return None;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("trace");
    let launcher = ["strace", "-f", "-qq", "-o"].map(OsStr::new);
    let launcher: Vec<&OsStr> = launcher.into_iter().chain([file.as_os_str()]).collect();
    let output = child::command(&launcher, role, &directory.path().join("db")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let marks: Vec<usize> =
        (0..lines.len()).filter(|&number| lines[number].contains(MARKER)).collect();
    let (first, last) = (marks[0], *marks.last().unwrap());
    assert!(first < last, "the second mark is missing");
    let thread = lines[first].split(' ').next().unwrap();
    let all: Vec<String> = lines[first + 1..last].iter().map(|line| (*line).to_owned()).collect();
    let is_own = |line: &&String| line.split(' ').next() == Some(thread);
    // The second mark may be told in two lines.
    let own = all.iter().filter(is_own).filter(|line| !line.contains("resumed")).cloned();
    Some((own.collect(), all.clone()))
}

fn count(lines: &[String], name: &str) -> usize {
    lines.iter().filter(|line| line.contains(&format!(" {name}("))).count()
}

fn count_syncs(lines: &[String]) -> usize {
    ["fsync", "fdatasync", "msync", "sync_file_range"].iter().map(|name| count(lines, name)).sum()
}

#[test]
fn a_lone_sync_commit_is_one_durable_write_and_no_fsync() {
    if !has_io_uring() {
        return;
    }
    let Some((own, all)) = trace("commit alone") else { return };
    let (writes, syncs) = (count(&own, "pwritev2"), count_syncs(&all));
    println!("{COMMITS} commits: {writes} durable writes, {syncs} syncs, {} calls", own.len());
    assert!(writes >= COMMITS, "{writes} durable writes: {:?}", own.get(..20));
    assert!(own.iter().filter(|line| line.contains("pwritev2")).all(|l| l.contains("RWF_DSYNC")));
    assert!(own.len() < 2 * COMMITS, "{} system calls: {:?}", own.len(), own.get(..30));
    // Preparing the next log segment may take a few.
    assert!(syncs < COMMITS / 10, "{syncs} syncs");
}

/// The role of the process whose lone commits are traced.
pub(crate) fn commit_alone(directory: &Path) {
    let db = open_with_ring(directory);
    mark();
    for number in 0..COMMITS {
        db.put(format!("{number:06}"), "value").unwrap();
    }
    mark();
    db.close().unwrap();
}

#[test]
fn a_large_group_of_sync_commits_is_a_ring_submission_and_no_fsync() {
    if !has_io_uring() {
        return;
    }
    let Some((_, all)) = trace("commit in groups") else { return };
    let (submissions, syncs) = (count(&all, "io_uring_enter"), count_syncs(&all));
    println!("{COMMITS} commits: {submissions} calls of rings, {syncs} syncs");
    // Submitting and waiting are two calls.
    assert!((2..COMMITS).contains(&submissions), "{submissions} calls of rings");
    assert!(syncs < COMMITS / 10, "{syncs} syncs");
}

/// The role of the process whose commits in flight are traced.
pub(crate) fn commit_in_groups(directory: &Path) {
    let db = open_with_ring(directory);
    mark();
    let commits: Vec<_> = (0..COMMITS)
        .map(|number| {
            let mut batch = rustlite::WriteBatch::new();
            batch.put(format!("{number:06}"), [0_u8; 1024]);
            db.write_async(batch)
        })
        .collect();
    for commit in commits {
        commit.wait().unwrap();
    }
    mark();
    db.close().unwrap();
}

fn open_with_ring(directory: &Path) -> Database {
    let options = Options::new().io_backend(IoBackend::Uring);
    let db = Database::open_with(directory, options).unwrap();
    db.put("warm", "up").unwrap();
    db
}

#[test]
fn a_cached_get_is_no_system_call() {
    let Some((own, _)) = trace("get what is cached") else { return };
    assert!(own.is_empty(), "{} system calls for {GETS} gets: {:?}", own.len(), own.get(..20));
}

/// The role of the process whose reads are traced: of tables, of memtables, and of keys that are missing.
pub(crate) fn get_what_is_cached(directory: &Path) {
    let db = Database::open(directory).unwrap();
    let key = |number: usize| format!("{:06}", number * 7 % 1_000);
    for number in 0..1_000 {
        let mut batch = rustlite::WriteBatch::new();
        batch.put(key(number), vec![b'v'; 100]);
        db.write(batch).unwrap();
        if number == 600 {
            db.flush().unwrap();
        }
    }
    let read = |times: usize| {
        for number in 0..times {
            assert_eq!(db.get(key(number)).unwrap().map(|value| value.len()), Some(100));
            assert!(db.get_pinned(key(number)).unwrap().is_some());
            assert!(!db.contains_key(format!("{number:07}")).unwrap());
        }
    };
    read(1_000);
    mark();
    read(GETS);
    mark();
    db.close().unwrap();
}

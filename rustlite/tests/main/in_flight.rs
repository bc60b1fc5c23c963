//! One thread keeps many durable commits in flight, and the process is killed: every acknowledged commit is there, every other is there as
//! a whole or not at all, and none is there whose predecessor is not.
//!
//! The process either acknowledges each commit as soon as it is done, or first starts all of them and keeps their futures. It tells
//! its parent, which kills it after a random number of acknowledgements, or at a random moment.
//!
//! `RUSTLITE_IN_FLIGHT` sets the number of commits and `RUSTLITE_KILL_ROUNDS` that of rounds; see `scripts/kill-loop`.
//! `RUSTLITE_TEST_SEED` replays a run, but for the moments of kills.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{ChildStdout, Stdio};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustlite::{Database, Durability, IoBackend, IsolationLevel, Options, TransactionCommit};

use crate::child;
use crate::random::{Random, seed};
use crate::support::backends;

/// Environment variables that tell the process what to do.
const COMMITS: &str = "RUSTLITE_IN_FLIGHT";
const EAGER: &str = "RUSTLITE_IN_FLIGHT_EAGER";
const BACKEND: &str = "RUSTLITE_IN_FLIGHT_BACKEND";

/// What a commit in flight may take of the process's memory, beside what the options allow.
const BYTES_EACH: u64 = 512;

/// What the allocator and the threads may take besides.
const BYTES_SPARE: u64 = 16 << 20;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn commits() -> u64 {
    variable(COMMITS, 20_000)
}

fn options(backend: IoBackend) -> Options {
    Options::new().durability(Durability::Sync).memtable_bytes(1 << 20).io_backend(backend)
}

/// The two records of a commit.
fn keys(number: u64) -> [String; 2] {
    [format!("first {number:08}"), format!("second {number:08}")]
}

fn start(db: &Database, number: u64) -> TransactionCommit {
    let mut txn = db.begin_with(IsolationLevel::Serializable).unwrap();
    for key in keys(number) {
        assert!(!txn.contains_key(&key).unwrap());
        txn.put(key, number.to_be_bytes()).unwrap();
    }
    txn.commit_async()
}

/// Memory of this process that no file backs, in bytes.
fn private_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Writes a line with one system call, so that a line is whole or not there.
fn say(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The role of the process that is killed.
pub(crate) fn commit_until_killed(directory: &Path) {
    let name = std::env::var(BACKEND).unwrap();
    let backend = backends().into_iter().find(|(known, _)| *known == name).unwrap().1;
    let eager = variable(EAGER, 0) == 1;
    let db = Database::open_with(directory, options(backend)).unwrap();
    let before = private_memory();
    say("\nbegun\n");
    let mut in_flight: VecDeque<(u64, TransactionCommit)> = VecDeque::new();
    for number in 0..commits() {
        in_flight.push_back((number, start(&db, number)));
        while eager && let Some((number, commit)) = in_flight.front_mut() {
            match Pin::new(commit).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(result) => acknowledge(*number, result),
            }
            in_flight.pop_front();
        }
    }
    let taken = private_memory().saturating_sub(before);
    let bound = db.stats().unwrap().memory_bound_bytes + BYTES_SPARE + commits() * BYTES_EACH;
    say(&format!("memory {} KiB for {} in flight\n", taken >> 10, in_flight.len()));
    if taken > bound {
        say(&format!("failed: that is more than {} KiB\n", bound >> 10));
    }
    in_flight.drain(..).for_each(|(number, commit)| acknowledge(number, commit.wait()));
    say("done\n");
    loop {
        std::thread::park();
    }
}

fn acknowledge(number: u64, result: rustlite::Result<u64>) {
    match result {
        Ok(_) => say(&format!("ack {number}\n")),
        Err(error) => say(&format!("failed: {error}\n")),
    }
}

/// When to kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After so many acknowledgements.
    Acknowledged(u64),
    /// So long after the process has begun.
    After(Duration),
    /// When everything is done.
    Done,
}

/// Hears out the process until it is to be killed, and gives the number of acknowledged commits so far.
fn listen(lines: &mut BufReader<ChildStdout>, until: impl Fn(u64, &str) -> bool) -> u64 {
    let mut acknowledged = 0;
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        let text = std::mem::take(&mut line);
        assert!(!text.contains("failed: "), "{text}");
        if let Some(number) = text.strip_prefix("ack ").filter(|_| text.ends_with('\n')) {
            assert_eq!(number.trim().parse::<u64>().unwrap(), acknowledged, "in order");
            acknowledged += 1;
        } else if text.starts_with("memory") {
            print!("    {text}");
        }
        if until(acknowledged, text.trim()) {
            break;
        }
    }
    acknowledged
}

fn run_and_kill(directory: &Path, backend: &str, eager: bool, moment: Moment) -> u64 {
    let mut process = child::command(&[], "keep commits in flight until killed", directory)
        .env(COMMITS, commits().to_string())
        .env(EAGER, u8::from(eager).to_string())
        .env(BACKEND, backend)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    let mut acknowledged = listen(&mut lines, |acknowledged, line| match moment {
        Moment::Acknowledged(count) => acknowledged >= count,
        Moment::After(_) => line == "begun",
        Moment::Done => line == "done",
    });
    if let Moment::After(time) = moment {
        // Its acknowledgements fill the pipe meanwhile, so it is slowed down, but not held up for ever.
        std::thread::sleep(time);
    }
    process.kill().unwrap();
    process.wait().unwrap();
    // What it said before it died counts as well.
    acknowledged += listen_on(&mut lines, acknowledged);
    acknowledged
}

/// The acknowledgements that are still in the pipe, after the first `known`.
fn listen_on(lines: &mut BufReader<ChildStdout>, known: u64) -> u64 {
    let numbers = lines.lines().map_while(Result::ok);
    let later = numbers.filter_map(|line| line.strip_prefix("ack ")?.parse::<u64>().ok());
    later.filter(|number| *number >= known).count() as u64
}

/// Checks what is there after a kill; gives the number of commits.
fn inspect(db: &Database, acknowledged: u64) -> u64 {
    let [first, second] = ["first ", "second "].map(|prefix| {
        let records = db.prefix(prefix).unwrap().map(Result::unwrap);
        let numbers = records.map(|(key, value)| {
            let number = u64::from_be_bytes(value.as_slice().try_into().unwrap());
            assert_eq!(key, format!("{prefix}{number:08}").as_bytes());
            number
        });
        numbers.collect::<Vec<u64>>()
    });
    assert_eq!(first, second, "a commit is torn");
    let count = first.len() as u64;
    assert!(first.into_iter().eq(0..count), "a commit is there and one before it is not");
    assert!(count >= acknowledged, "{acknowledged} are acknowledged and only {count} there");
    count
}

#[test]
fn every_acknowledgement_of_commits_in_flight_holds_after_a_kill() {
    let seed = seed();
    println!("RUSTLITE_TEST_SEED={seed}");
    let rounds = variable("RUSTLITE_KILL_ROUNDS", 6);
    let backends = backends();
    let mut total = 0;
    for round in 0..rounds {
        let mut random = Random::new(&[seed, round]);
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("db");
        let (eager, backend) =
            (round % 2 == 1, |number: u64| backends[(number % backends.len() as u64) as usize]);
        let moment = match round {
            0 | 1 => Moment::Done,
            _ if random.one_in(3) => Moment::After(Duration::from_micros(random.below(300_000))),
            _ => Moment::Acknowledged(random.below(commits())),
        };
        let acknowledged = run_and_kill(&path, backend(round / 2).0, eager, moment);
        let db = Database::open_with(&path, options(backend(round / 3).1)).unwrap();
        let count = inspect(&db, acknowledged);
        println!("round {}/{rounds}: {acknowledged} acknowledged, {count} there", round + 1);
        if matches!(moment, Moment::Done) {
            assert_eq!((acknowledged, count), (commits(), commits()));
        }
        db.close().unwrap();
        total += acknowledged;
    }
    assert!(total > 0 || rounds == 0);
}

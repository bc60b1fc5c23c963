//! A bank: sixteen tellers move money between a thousand accounts while an auditor adds up all of them, and the process is killed at random
//! moments. The sum never changes, no acknowledged transfer is lost, and none is torn. An index of the accounts by their coins, built
//! while they work, always agrees with the accounts.
//!
//! Each transfer also counts itself in a record of its teller, in the same transaction, and is acknowledged to the parent process by that
//! number. `RUSTLITE_BANK_KILLS` and `RUSTLITE_BANK_SECONDS` (for each level, all kills together) make it longer; see `scripts/bank`.
//! `RUSTLITE_TEST_SEED` replays a run, but for the schedules of threads and the moments of kills.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustlite::{
    Database, Durability, Error, ErrorKind, IndexSource, IndexType, IoBackend, IsolationLevel,
    Options, Result, Transaction, TransactionOptions,
};

use crate::child;
use crate::random::{Random, seed};
use crate::support::{backends, small_options};

const ACCOUNTS: u64 = 1000;
const TELLERS: usize = 16;

/// The index of accounts.
const BY_COINS: &str = "by coins";

/// What every account begins with.
const COINS: u64 = 1000;

/// Environment variables that hand the process its level, seed and backend.
const LEVEL: &str = "RUSTLITE_BANK_LEVEL";
const ROUND_SEED: &str = "RUSTLITE_BANK_ROUND_SEED";
const BACKEND: &str = "RUSTLITE_BANK_BACKEND";

const LEVELS: [(&str, IsolationLevel); 2] = [
    ("repeatable read", IsolationLevel::RepeatableRead),
    ("serializable", IsolationLevel::Serializable),
];

fn account(number: u64) -> String {
    format!("account {number:04}")
}

fn teller_name(teller: usize) -> String {
    format!("teller {teller:02}")
}

fn number(stored: &[u8]) -> u64 {
    u64::from_be_bytes(stored.try_into().unwrap())
}

fn found(db: &Database, key: String) -> u64 {
    db.get(key).unwrap().map_or(0, |stored| number(&stored))
}

fn options(round_seed: u64, backend: IoBackend) -> Options {
    let mut random = Random::new(&[round_seed, 1]);
    // Most transfers in the least time, which is where races are; some wait for the device.
    let durability = if random.one_in(4) { Durability::Sync } else { Durability::Buffered };
    small_options().durability(durability).io_backend(backend).index_extractor(
        "coins",
        |key, stored, keys| {
            if key.starts_with(b"account") {
                keys.add(stored);
            }
        },
    )
}

/// Creates the index of accounts by their coins, which knows nothing of tellers. A build that a kill has interrupted goes on by itself.
fn index_accounts(db: &Database) {
    let source = IndexSource::extractor("coins");
    match db.create_index(BY_COINS, db, IndexType::BTree, source) {
        Err(error) if error.kind() != ErrorKind::IndexExists => report::<()>(&Err(error)),
        _ => {}
    }
}

/// The sum of all accounts by the index; `None` while it is built.
fn total_by_index(db: &Database) -> Result<Option<u64>> {
    match db.index(BY_COINS).and_then(|index| index.iter()) {
        Err(error)
            if matches!(error.kind(), ErrorKind::IndexBuilding | ErrorKind::IndexNotFound) =>
        {
            Ok(None)
        }
        entries => {
            entries?.map(|entry| entry.map(|entry| number(&entry.key))).sum::<Result<_>>().map(Some)
        }
    }
}

/// Opens the accounts, if that was not done before.
fn found_the_bank(db: &Database) -> Result<()> {
    db.transact(|txn| {
        if !txn.contains_key(account(0))? {
            for number in 0..ACCOUNTS {
                txn.put(account(number), COINS.to_be_bytes())?;
            }
        }
        Ok(())
    })
}

fn total(balances: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>)>>) -> Result<u64> {
    balances.map(|item| item.map(|(_, stored)| number(&stored))).sum()
}

/// Moves coins to another account, or to the poorest of ten neighbours, which makes the transaction depend on a range.
fn transfer(txn: &mut Transaction, random: &mut Random) -> Result<()> {
    let hot = random.one_in(5);
    let choose = |random: &mut Random| account(random.below(if hot { 20 } else { ACCOUNTS }));
    let from = choose(random);
    let had = if random.one_in(4) { txn.get_for_update(&from)? } else { txn.get(&from)? };
    let had = number(&had.unwrap());
    let to = if random.one_in(3) {
        let neighbours = txn.range(choose(random)..)?.take(10);
        let mut accounts = neighbours.collect::<Result<Vec<_>>>()?;
        accounts.retain(|(key, _)| key.starts_with(b"account"));
        let poorest = accounts.into_iter().min_by_key(|(_, stored)| number(stored));
        String::from_utf8(poorest.unwrap().0).unwrap()
    } else {
        choose(random)
    };
    let coins = had.min(1 + random.below(50));
    txn.put(&from, (had - coins).to_be_bytes())?;
    let has = number(&txn.get(&to)?.unwrap());
    txn.put(&to, (has + coins).to_be_bytes())
}

/// The role of the process that is killed.
pub(crate) fn run_until_killed(directory: &Path) {
    let variable = |name: &str| std::env::var(name).unwrap();
    let round_seed: u64 = variable(ROUND_SEED).parse().unwrap();
    let backend = backends().into_iter().find(|(name, _)| *name == variable(BACKEND)).unwrap().1;
    let level = LEVELS.into_iter().find(|(name, _)| *name == variable(LEVEL)).unwrap().1;
    let db = Database::open_with(directory, options(round_seed, backend)).unwrap();
    found_the_bank(&db).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| index_accounts(&db));
        for teller in 0..TELLERS {
            let db = &db;
            scope.spawn(move || {
                let mut random = Random::new(&[round_seed, 10 + teller as u64]);
                let mut done = found(db, teller_name(teller));
                loop {
                    let moved = db.transact_with(level, |txn| {
                        transfer(txn, &mut random)?;
                        txn.put(teller_name(teller), (done + 1).to_be_bytes())
                    });
                    report(&moved);
                    done += 1;
                    say(&format!("ack {teller} {done}\n"));
                }
            });
        }
        scope.spawn(|| {
            loop {
                let audit = || {
                    let looking = TransactionOptions::new().read_only(true);
                    let transaction = total(db.begin_with(looking)?.prefix("account")?)?;
                    let snapshot = total(db.snapshot()?.prefix("account").rev())?;
                    let indexed = total_by_index(&db)?.unwrap_or(snapshot);
                    Ok::<_, Error>([transaction, snapshot, indexed])
                };
                let sums = audit();
                report(&sums);
                if sums.is_ok_and(|sums| sums != [ACCOUNTS * COINS; 3]) {
                    say("failed: the auditor found another sum\n");
                }
                say("audit 0 0\n");
            }
        });
    });
}

fn report<T>(result: &Result<T>) {
    if let Err(error) = result {
        say(&format!("failed: {error}\n"));
    }
}

/// Writes a line with one system call, so that a line is whole or not there.
fn say(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// What the process told before it was killed.
#[derive(Default)]
struct Heard {
    /// For each teller, the number of the last acknowledged transfer.
    acknowledged: [u64; TELLERS],
    audits: u64,
}

fn listen(lines: impl BufRead) -> Heard {
    let mut heard = Heard::default();
    for line in lines.split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        assert!(!line.contains("failed: "), "{line}");
        heard.audits += u64::from(line.contains("audit "));
        let Some((_, numbers)) = line.split_once("ack ") else { continue };
        let (teller, number) = numbers.split_once(' ').unwrap();
        heard.acknowledged[teller.parse::<usize>().unwrap()] = number.parse().unwrap();
    }
    heard
}

fn run_and_kill(directory: &Path, level: &str, backend: &str, seed: u64, time: Duration) -> Heard {
    let mut process = child::command(&[], "run the bank until killed", directory)
        .env(LEVEL, level)
        .env(ROUND_SEED, seed.to_string())
        .env(BACKEND, backend)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap());
    std::thread::scope(|scope| {
        let listener = scope.spawn(move || listen(lines));
        std::thread::sleep(time);
        process.kill().unwrap();
        process.wait().unwrap();
        listener.join().unwrap()
    })
}

/// Checks the books after a kill.
fn inspect(db: &Database, heard: &Heard) {
    if !db.contains_key(account(0)).unwrap() {
        assert_eq!(db.iter().unwrap().count(), 0, "the bank was founded in part");
        return;
    }
    assert_eq!(db.prefix("account").unwrap().count() as u64, ACCOUNTS);
    assert_eq!(total(db.prefix("account").unwrap()).unwrap(), ACCOUNTS * COINS);
    for (teller, &acknowledged) in heard.acknowledged.iter().enumerate() {
        let done = found(db, teller_name(teller));
        // The transfer under way may have happened too.
        let possible = acknowledged == 0 || (acknowledged..=acknowledged + 1).contains(&done);
        assert!(possible, "teller {teller}: {acknowledged} acknowledged, {done} there");
    }
    let entries = db.verify().unwrap().index_entries;
    assert!(entries == 0 || entries == ACCOUNTS, "the index has {entries} entries");
    let indexed = total_by_index(db).unwrap();
    assert!(indexed.is_none_or(|coins| coins == ACCOUNTS * COINS), "{indexed:?}");
}

fn run_bank(level: &str) {
    let number =
        |name: &str, short: u64| std::env::var(name).map_or(short, |text| text.parse().unwrap());
    let kills = number("RUSTLITE_BANK_KILLS", 4);
    let millis = number("RUSTLITE_BANK_SECONDS", 2) * 1000;
    let seed = seed();
    println!("RUSTLITE_TEST_SEED={seed}");
    let backends = backends();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("db");
    let begun = Instant::now();
    let (mut transfers, mut audits) = (0, 0);
    for kill in 0..kills {
        let mut random = Random::new(&[seed, kill]);
        // Half of the average to one and a half of it.
        let share = millis / kills.max(1);
        let time = Duration::from_millis(share / 2 + random.below(share.max(1)));
        let backend = |kill: u64| backends[(kill % backends.len() as u64) as usize];
        let heard = run_and_kill(&path, level, backend(kill).0, random.next(), time);
        let db = Database::open_with(&path, options(seed, backend(kill / 2).1)).unwrap();
        inspect(&db, &heard);
        transfers = (0..TELLERS).map(|teller| found(&db, teller_name(teller))).sum();
        audits += heard.audits;
        db.close().unwrap();
    }
    println!(
        "{level}: {transfers} transfers and {audits} audits in {:.1?} and {kills} kills",
        begun.elapsed()
    );
    assert!(transfers > 0 && audits > 0, "nothing was done before a kill");
}

#[test]
fn the_bank_neither_makes_nor_loses_money_at_repeatable_read() {
    run_bank(LEVELS[0].0);
}

#[test]
fn the_bank_neither_makes_nor_loses_money_at_serializable() {
    run_bank(LEVELS[1].0);
}

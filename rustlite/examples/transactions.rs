//! A small bank: transfers from several threads that retry on conflict, an audit, a transfer that is taken back in part, and a rule over
//! two accounts that only serializable transactions keep.
//!
//! `cargo run --example transactions`

use rustlite::{
    Database, Durability, Error, ErrorKind, IsolationLevel, Options, Transaction,
    TransactionOptions,
};

const ACCOUNTS: u64 = 10;

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-transactions");
    let db = Database::open_with(&directory, Options::new().durability(Durability::Buffered))?;
    db.transact(|txn| (0..ACCOUNTS).try_for_each(|number| set(txn, number, 100)))?;

    // Transfers run at the same time. `transact` runs one again when another was faster.
    std::thread::scope(|scope| {
        let tellers: Vec<_> = (0..4)
            .map(|teller| {
                let db = &db;
                scope.spawn(move || {
                    (0..500).try_for_each(|round| {
                        let from = (teller + round) % ACCOUNTS;
                        db.transact(|txn| transfer(txn, from, (from * 7 + 3) % ACCOUNTS, 1))
                    })
                })
            })
            .collect();
        tellers.into_iter().try_for_each(|teller| teller.join().expect("tellers do not panic"))
    })?;
    let audit = db.begin_with(TransactionOptions::new().read_only(true))?;
    let total: u64 = (0..ACCOUNTS).map(|number| balance(&audit, number)).sum::<Result<_, _>>()?;
    println!("after 2000 transfers there are {total} coins");

    // A savepoint takes back a part of a transaction.
    let mut txn = db.begin()?;
    transfer(&mut txn, 0, 1, 1)?;
    let savepoint = txn.set_savepoint()?;
    transfer(&mut txn, 0, 2, 1_000_000)?;
    if balance(&txn, 0)? == 0 {
        txn.rollback_to(&savepoint)?;
    }
    txn.commit()?;

    // Two doctors are on call. Each may leave if the other stays; both ask at the same time.
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        db.put("on call: alice", "yes")?;
        db.put("on call: bob", "yes")?;
        let (mut alice, mut bob) = (db.begin_with(level)?, db.begin_with(level)?);
        leave(&mut alice, "alice")?;
        leave(&mut bob, "bob")?;
        alice.commit()?;
        let outcome = match bob.commit() {
            Ok(_) => "nobody is on call".to_owned(),
            Err(error) if error.kind() == ErrorKind::Conflict => format!("refused: {error}"),
            Err(error) => return Err(error),
        };
        println!("{level:?}: {outcome}");
    }
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

fn account(number: u64) -> String {
    format!("account {number}")
}

fn balance(txn: &Transaction, number: u64) -> Result<u64, Error> {
    let stored = txn.get(account(number))?.expect("accounts are never removed here");
    Ok(u64::from_be_bytes(stored.try_into().expect("balances have eight bytes")))
}

fn set(txn: &mut Transaction, number: u64, coins: u64) -> Result<(), Error> {
    txn.put(account(number), coins.to_be_bytes())
}

/// Moves up to so many coins.
fn transfer(txn: &mut Transaction, from: u64, to: u64, coins: u64) -> Result<(), Error> {
    let moved = coins.min(balance(txn, from)?);
    set(txn, from, balance(txn, from)? - moved)?;
    set(txn, to, balance(txn, to)? + moved)
}

fn leave(txn: &mut Transaction, doctor: &str) -> Result<(), Error> {
    let on_call = txn.prefix("on call: ")?.collect::<Result<Vec<_>, _>>()?;
    if on_call.len() > 1 {
        txn.delete(format!("on call: {doctor}"))?;
    }
    Ok(())
}

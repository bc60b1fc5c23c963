//! Reads a consistent state while another thread moves money between two accounts.
//!
//! `cargo run --example snapshots`

use rustlite::{Database, Durability, Error, Options, WriteBatch};

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-snapshots");
    let db = Database::open_with(&directory, Options::new().durability(Durability::Buffered))?;
    write_balances(&db, 100, 200)?;

    let teller = std::thread::spawn({
        let db = db.clone();
        move || {
            (0..10_000).try_for_each(|round| write_balances(&db, round % 300, 300 - round % 300))
        }
    });
    for _ in 0..5 {
        // Two reads, one moment. Without the snapshot a transfer could slip between them.
        let snapshot = db.snapshot()?;
        let (alice, bob) = (balance(snapshot.get("alice")?), balance(snapshot.get("bob")?));
        println!("alice {alice:>3}, bob {bob:>3}, total {}", alice + bob);
        assert_eq!(alice + bob, 300);
    }
    teller.join().expect("the teller does not panic")?;

    // A snapshot keeps what it sees, whatever happens later.
    let before = db.snapshot()?;
    db.clear()?;
    println!("now {} accounts, then {}", db.iter()?.count(), before.iter().count());

    // One with a name outlives the process: it is kept until it is dropped.
    write_balances(&db, 120, 180)?;
    db.create_named_snapshot("end of day")?;
    write_balances(&db, 0, 300)?;
    db.close()?;
    drop((db, before));
    let db = Database::open(&directory)?;
    let then = db.named_snapshot("end of day")?;
    println!("alice had {} at the end of the day", balance(then.get("alice")?));
    for holder in db.stats()?.snapshot_holders {
        println!("held: {:?} at sequence number {}", holder.name, holder.sequence);
    }
    drop(then);
    db.drop_named_snapshot("end of day")?;
    let freed = db.gc()?;
    println!("{} bytes of tables, {} before", freed.table_bytes_after, freed.table_bytes_before);
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

fn write_balances(db: &Database, alice: u32, bob: u32) -> Result<(), Error> {
    let mut batch = WriteBatch::new();
    batch.put("alice", alice.to_be_bytes()).put("bob", bob.to_be_bytes());
    db.write(batch)
}

fn balance(stored: Option<Vec<u8>>) -> u32 {
    let bytes = stored.expect("accounts are never removed here");
    u32::from_be_bytes(bytes.try_into().expect("balances have four bytes"))
}

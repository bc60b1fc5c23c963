//! Backs up a database in generations, and restores one of them.
//!
//! `cargo run --example backup`

use rustlite::{Backup, Database, Error, WriteBatch};

fn main() -> Result<(), Error> {
    let place = std::env::temp_dir().join(format!("rustlite-backup-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("the temporary directory can be written");
    let db = Database::open(place.join("orders"))?;
    let backup = Backup::open(place.join("backup"))?;

    add_orders(&db, 0..1000)?;
    let first = backup.create(&db)?;
    println!("generation {} has {} orders", first.generation, db.iter()?.count());

    // Later generations copy only tables that are new.
    add_orders(&db, 1000..1100)?;
    let second = backup.create(&db)?;
    println!(
        "generation {}: {} of {} bytes are new",
        second.generation, second.new_bytes, second.bytes
    );

    // Somebody makes a mistake.
    db.clear()?;
    println!("now there are {} orders", db.iter()?.count());

    backup.verify()?;
    backup.restore(first.generation, place.join("restored"))?;
    let restored = Database::open(place.join("restored"))?;
    println!("restored {} orders", restored.iter()?.count());

    // A checkpoint is a database at once, made of links: cheap enough to take before anything risky.
    restored.checkpoint(place.join("before-migration"))?;

    restored.close()?;
    db.close()?;
    std::fs::remove_dir_all(&place).ok();
    Ok(())
}

fn add_orders(db: &Database, numbers: std::ops::Range<u32>) -> Result<(), Error> {
    let mut batch = WriteBatch::new();
    for number in numbers {
        batch.put(format!("order {number:06}"), format!("{number} parcels"));
    }
    db.write(batch)
}

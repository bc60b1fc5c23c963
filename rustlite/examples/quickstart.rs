//! Opens a database, writes, reads, scans, and writes a batch.
//!
//! `cargo run --example quickstart`

use rustlite::{Database, Error, WriteBatch};

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-quickstart");
    let db = Database::open(&directory)?;

    // Durable when it returns: a power cut does not take it back.
    db.put("user:1", "Ada")?;
    db.put("user:2", "Grace")?;
    db.put("visits", "1")?;

    if let Some(name) = db.get("user:1")? {
        println!("user 1 is {}", String::from_utf8_lossy(&name));
    }

    // All of a batch happens, or nothing.
    let mut batch = WriteBatch::new();
    batch.delete("user:1").put("user:3", "Barbara").put("visits", "2");
    db.write(batch)?;

    println!("users, last first:");
    for item in db.prefix("user:")?.rev() {
        let (key, value) = item?;
        println!("  {} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }

    println!("\n{}", db.stats()?);
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

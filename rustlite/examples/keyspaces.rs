//! Keeps users and an index of their addresses in two keyspaces that change together.
//!
//! `cargo run --example keyspaces`

use rustlite::{Compression, Database, Error, Keyspace, KeyspaceOptions, WriteBatch};

struct Users {
    db: Database,
    by_id: Keyspace,
    by_email: Keyspace,
}

impl Users {
    fn open(db: &Database) -> Result<Self, Error> {
        // Each keyspace has options of its own: rows compress well, and index entries are read often.
        let rows = KeyspaceOptions::new().compression(Compression::Lz4);
        Ok(Self {
            by_id: db.create_keyspace("users", rows)?,
            by_email: db.keyspace("users by email")?,
            db: db.clone(),
        })
    }

    /// The row and its index entry are written together, or not at all.
    fn add(&self, id: u64, email: &str) -> Result<(), Error> {
        let id = id.to_be_bytes();
        let mut batch = WriteBatch::new();
        batch.put_in(&self.by_id, id, email).put_in(&self.by_email, email, id);
        self.db.write(batch)
    }

    fn find(&self, email: &str) -> Result<Option<u64>, Error> {
        let stored = self.by_email.get(email)?;
        Ok(stored.and_then(|id| id.try_into().ok()).map(u64::from_be_bytes))
    }
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-keyspaces");
    let db = Database::open(&directory)?;
    let users = Users::open(&db)?;
    users.add(7, "ada@example.org")?;
    users.add(8, "grace@example.org")?;

    println!("ada@example.org is user {:?}", users.find("ada@example.org")?);
    println!("users by number:");
    for item in users.by_id.iter()? {
        let (_, email) = item?;
        println!("  {}", String::from_utf8_lossy(&email));
    }
    println!("keyspaces: {}", db.list_keyspaces()?.join(", "));

    // Dropping a keyspace drops its files, however much is in it.
    db.drop_keyspace("users by email")?;
    println!("keyspaces: {}", db.list_keyspaces()?.join(", "));
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

//! A cache whose entries disappear by themselves.
//!
//! `cargo run --example ttl`

#![expect(clippy::disallowed_methods, reason = "the example waits for time to pass")]

use std::time::Duration;

use rustlite::{Database, Error, KeyspaceOptions};

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-ttl");
    let db = Database::open(&directory)?;

    // Everything in this keyspace lives for a minute, unless it says otherwise. The keyspace remembers that.
    let options = KeyspaceOptions::new().default_ttl(Duration::from_secs(60));
    let sessions = db.create_keyspace("sessions", options)?;
    sessions.put("ada", "logged in")?;
    sessions.put_expiring("grace", "logged in", Duration::from_millis(500))?;
    sessions.put_expiring("root", "logged in", Duration::MAX)?; // for ever
    println!("at first: {}", names(&sessions)?);

    std::thread::sleep(Duration::from_millis(600));
    println!("later: {}", names(&sessions)?);
    assert_eq!(sessions.get("grace")?, None);

    // Compactions free the space of what has expired. They come by themselves; nobody needs to ask for one.
    sessions.compact()?;
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

fn names(sessions: &rustlite::Keyspace) -> Result<String, Error> {
    let names: Result<Vec<_>, _> = sessions
        .iter()?
        .map(|item| item.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()))
        .collect();
    Ok(names?.join(", "))
}

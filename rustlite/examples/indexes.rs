//! People by city, by e-mail address and by language: an index over declared bytes, a unique one and one with many entries a row.
//!
//! `cargo run --example indexes`

use rustlite::{Database, Error, ErrorKind, Index, IndexSource, IndexType, Options, WriteBatch};

/// A row: city (10 bytes), e-mail address, languages, all separated by semicolons.
fn person(city: &str, email: &str, languages: &str) -> String {
    format!("{city:<10};{email};{languages}")
}

fn field(row: &[u8], number: usize) -> &[u8] {
    row.split(|byte| *byte == b';').nth(number).unwrap_or_default()
}

fn names(index: &Index, key: &str) -> Result<String, Error> {
    let found = index.find(key)?;
    Ok(found.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(", "))
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-indexes");
    // Code that gives index keys is registered at every open. What it gives must follow from the row alone.
    let options = Options::new()
        .index_extractor("email", |_name, row, keys| keys.add(field(row, 1)))
        .index_extractor("languages", |_name, row, keys| {
            field(row, 2).split(|byte| *byte == b',').for_each(|language| keys.add(language));
        });
    let db = Database::open_with(&directory, options)?;
    let people = db.keyspace("people")?;
    people.put("Ada", person("London", "ada@example.org", "English,French"))?;

    // Rows that are there get their entries now, later ones with every write.
    let by_city =
        db.create_index("by city", &people, IndexType::BTree, IndexSource::value_bytes(0..10))?;
    let by_email = db.create_unique_index(
        "by email",
        &people,
        IndexType::Hash,
        IndexSource::extractor("email"),
    )?;
    let by_language = db.create_index(
        "by language",
        &people,
        IndexType::BTree,
        IndexSource::extractor("languages"),
    )?;
    let mut batch = WriteBatch::new();
    batch.put_in(&people, "Alan", person("London", "alan@example.org", "English"));
    batch.put_in(&people, "Emilie", person("Paris", "emilie@example.org", "French"));
    db.write(batch)?;

    println!("in London: {}", names(&by_city, &format!("{:<10}", "London"))?);
    println!("speaks French: {}", names(&by_language, "French")?);
    for entry in by_city.range("M".."Z")?.rev() {
        println!("in a city from M to Z: {}", String::from_utf8_lossy(&entry?.primary_key));
    }

    // Nobody else can have the address.
    match people.put("Eve", person("Paris", "ada@example.org", "French")) {
        Err(error) if error.kind() == ErrorKind::UniqueViolation => println!("refused: {error}"),
        other => other?,
    }

    // A transaction finds its own writes, others don't.
    let mut txn = db.begin()?;
    txn.put_in(&people, "Alan", person("Manchester", "alan@example.org", "English"))?;
    let manchester = format!("{:<10}", "Manchester");
    assert_eq!(by_city.within(&txn)?.find(&manchester)?, [b"Alan"]);
    assert!(by_city.find(&manchester)?.is_empty());
    drop(txn);

    let (name, row) = by_email.rows("emilie@example.org")?.swap_remove(0);
    println!("{}: {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&row));
    for name in db.list_indexes()? {
        println!("{:?}", db.index_info(&name)?);
    }
    println!("{} entries agree with their rows", db.verify_indexes()?);
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

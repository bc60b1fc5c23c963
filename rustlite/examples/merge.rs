//! Changes values without reading them: counters, and a merge operator of one's own.
//!
//! `cargo run --example merge`

use rustlite::{Database, Error, KeyspaceOptions, MergeOperator, OperatorError, Options, U64Add};

/// Smallest and largest temperature seen: a value is two bytes, an operand one.
struct Span;

impl MergeOperator for Span {
    fn name(&self) -> &str {
        "example.span"
    }

    fn full_merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Vec<u8>, OperatorError> {
        let seen = || base.iter().chain(operands).flat_map(|bytes| bytes.iter());
        match (seen().min(), seen().max()) {
            (Some(&low), Some(&high)) => Ok(vec![low, high]),
            _ => Err("an empty temperature".into()),
        }
    }
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join("rustlite-merge");
    // Code cannot be stored: it is given again each time the database is opened. The keyspace remembers the name.
    let db = Database::open_with(&directory, Options::new().merge_operator(Span))?;

    let hits = db.create_keyspace("hits", KeyspaceOptions::new().merge_operator(U64Add::NAME))?;
    std::thread::scope(|scope| {
        let count = |page: &'static str, times: u64| {
            let hits = &hits;
            scope.spawn(move || (0..times).try_for_each(|_| hits.merge(page, 1_u64.to_le_bytes())))
        };
        // No lock, no read, nothing lost.
        let threads = [count("/", 30), count("/", 20), count("/about", 7)];
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    for item in hits.iter()? {
        let (page, count) = item?;
        let count = u64::from_le_bytes(count.try_into().expect("sums have eight bytes"));
        println!("{} was seen {count} times", String::from_utf8_lossy(&page));
    }

    let weather =
        db.create_keyspace("weather", KeyspaceOptions::new().merge_operator("example.span"))?;
    for temperature in [18_u8, 12, 25, 21] {
        weather.merge("today", [temperature])?;
    }
    println!("today: {:?}", weather.get("today")?.unwrap_or_default());
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

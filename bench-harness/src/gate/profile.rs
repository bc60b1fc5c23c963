//! Instructions by function, from the files that callgrind writes.
//!
//! ```text
//! fn=<name>                   what follows belongs to this function
//! <line> <instructions>       its own instructions
//! calls=<count> <line>        the next line is the inclusive cost of a call, which isn't its own
//! <line> <instructions>
//! ```
//!
//! The runner of the benchmarks asks for files without compressed names and positions, so nothing
//! else of the format matters.

use std::collections::BTreeMap;
use std::path::Path;

use rustlite_ycsb::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Functions with less than this share of a benchmark's instructions are left out: a baseline is
/// read and reviewed by people.
const SHARE_MIN: f64 = 0.002;

/// What one benchmark cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// All instructions.
    pub instructions: u64,
    /// Those of each function alone, without what it calls.
    pub functions: BTreeMap<String, u64>,
}

impl Profile {
    /// Reads the text of a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let mut function = "";
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = name;
                is_call = false;
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let cost = line.split_whitespace().next_back();
                let cost: u64 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
                if !is_call && cost > 0 {
                    profile.instructions += cost;
                    *profile.functions.entry(plain(function)).or_default() += cost;
                }
                is_call = false;
            }
        }
        profile
    }

    /// Adds another thread's costs.
    fn add(&mut self, other: Self) {
        self.instructions += other.instructions;
        for (name, cost) in other.functions {
            *self.functions.entry(name).or_default() += cost;
        }
    }

    /// Without the functions that hardly count.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        let floor = (self.instructions as f64 * SHARE_MIN) as u64;
        self.functions.retain(|_, cost| *cost > floor);
        self
    }
}

/// A function's name without the hash of its crate's version, which says nothing about the code.
fn plain(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// All benchmarks below `directory`, which the runner has filled: `<file>/<group>/<function>.<id>/`
/// holds a file for each thread.
///
/// # Errors
/// The directory can't be read, or there is nothing in it.
pub fn read_all(directory: &Path) -> Result<BTreeMap<String, Profile>> {
    let mut profiles = BTreeMap::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(path) = pending.pop() {
        let entries = std::fs::read_dir(&path)
            .map_err(|source| Error::io("listing the directory", &path, source))?;
        for entry in entries.flatten() {
            let file = entry.path();
            if file.is_dir() {
                pending.push(file);
            } else if file.extension().is_some_and(|extension| extension == "out") {
                let text = std::fs::read_to_string(&file)
                    .map_err(|source| Error::io("reading", &file, source))?;
                let names = path.iter().rev().take(2).map(|part| part.to_string_lossy());
                let [benchmark, group]: [_; 2] =
                    names.collect::<Vec<_>>().try_into().map_err(|_| {
                        Error::Usage(format!("{} is no directory of counts", directory.display()))
                    })?;
                let profile: &mut Profile =
                    profiles.entry(format!("{group}/{benchmark}")).or_default();
                profile.add(Profile::parse(&text));
            }
        }
    }
    if profiles.is_empty() {
        return Err(Error::Usage(format!(
            "there are no counts in {}; run the benchmarks with scripts/perf-gate",
            directory.display()
        )));
    }
    Ok(profiles.into_iter().map(|(name, profile)| (name, profile.trimmed())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# callgrind format
version: 1
events: Ir
summary: 1000

fl=???
fn=engine::get
10 300
11 50
cfn=engine::find::h0123456789abcdef
calls=5 0
12 600

fn=engine::find::h0123456789abcdef
0 599
1 1
fn=rare
7 1
totals: 951
";

    #[test]
    fn own_instructions_are_counted_and_those_of_calls_are_not() {
        let profile = Profile::parse(FILE);
        assert_eq!(profile.instructions, 951);
        let expected = [("engine::find", 600), ("engine::get", 350), ("rare", 1)];
        let expected = expected.map(|(name, cost)| (name.to_owned(), cost));
        assert_eq!(profile.functions, BTreeMap::from(expected));
        assert!(!profile.trimmed().functions.contains_key("rare"));
    }

    #[test]
    fn threads_of_a_benchmark_are_added_up_and_empty_directories_refused() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(read_all(base.path()).unwrap_err().exit_code(), 2);
        let directory = base.path().join("instructions/reads/get.tables");
        std::fs::create_dir_all(&directory).unwrap();
        for thread in ["t1", "t2"] {
            std::fs::write(directory.join(format!("callgrind.{thread}.out")), FILE).unwrap();
        }
        std::fs::write(directory.join("callgrind.t1.out.old"), FILE).unwrap();
        let profiles = read_all(base.path()).unwrap();
        assert_eq!(profiles["reads/get.tables"].instructions, 2 * 951);
    }
}

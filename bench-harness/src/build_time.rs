//! How long somebody waits who adds an engine to a program: a from-scratch release build of the
//! smallest program that embeds it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustlite_ycsb::error::{Error, Result};

/// The workspace, whose lock file decides the versions of everything.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A program to build.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The engine.
    pub engine: &'static str,
    /// Its line in `Cargo.toml`.
    dependency: &'static str,
    /// What uses it.
    main: &'static str,
}

/// The programs.
pub const PROGRAMS: [Program; 2] = [
    Program {
        engine: "rustlite",
        dependency: concat!(
            "rustlite = { path = \"",
            env!("CARGO_MANIFEST_DIR"),
            "/../rustlite\" }"
        ),
        main: "fn main() {
            let database = rustlite::Database::open(\"data\").unwrap();
            database.put(\"key\", \"value\").unwrap();
        }",
    },
    Program {
        engine: "rocksdb",
        dependency: "rocksdb = { version = \"0.25\", default-features = false, \
                     features = [\"bindgen-runtime\", \"lz4\"] }",
        main: "fn main() {
            let database = rocksdb::DB::open_default(\"data\").unwrap();
            database.put(\"key\", \"value\").unwrap();
        }",
    },
];

impl Program {
    /// The program of that engine.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none.
    pub fn of(engine: &str) -> Result<&'static Self> {
        PROGRAMS.iter().find(|program| program.engine == engine).ok_or_else(|| {
            let names: Vec<&str> = PROGRAMS.iter().map(|program| program.engine).collect();
            Error::Usage(format!("{engine:?} is not timed; {} are", names.join(", ")))
        })
    }

    /// Builds the program in `directory`, which is empty, with nothing built before; gives the
    /// seconds. Downloads nothing while the clock runs.
    ///
    /// # Errors
    /// It can't be written, or doesn't build.
    pub fn build(&self, directory: &Path) -> Result<f64> {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(|source| Error::io("writing", &path, source))
        };
        let sources = directory.join("src");
        std::fs::create_dir(&sources).map_err(|source| Error::io("making", &sources, source))?;
        write("src/main.rs", self.main)?;
        let manifest = format!(
            "[package]\nname = \"embeds\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
             [dependencies]\n{}\n\n[workspace]\n",
            self.dependency
        );
        write("Cargo.toml", &manifest)?;
        let lock = Path::new(WORKSPACE).join("Cargo.lock");
        std::fs::copy(&lock, directory.join("Cargo.lock"))
            .map_err(|source| Error::io("copying", &lock, source))?;
        self.cargo(directory, &["fetch"])?;
        let started = Instant::now();
        self.cargo(directory, &["build", "--release", "--offline"])?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn cargo(&self, directory: &Path, arguments: &[&str]) -> Result<()> {
        let output = Command::new("cargo")
            .args(arguments)
            .current_dir(directory)
            .env("CARGO_TARGET_DIR", directory.join("target"))
            .output()
            .map_err(|source| Error::io("running cargo in", directory, source))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Worker(format!(
            "a program with {} does not build:\n{}",
            self.engine,
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_without_a_program_are_refused() {
        assert_eq!(Program::of("rustlite").unwrap().engine, "rustlite");
        assert_eq!(Program::of("oracle").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn versions_are_those_that_the_workspace_compares_with() {
        let manifest = std::fs::read_to_string(Path::new(WORKSPACE).join("Cargo.toml")).unwrap();
        let rocksdb = Program::of("rocksdb").unwrap().dependency;
        assert!(manifest.contains(rocksdb), "{rocksdb}");
    }
}

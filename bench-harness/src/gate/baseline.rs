//! The counts that are right, and the tools they were made with.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rustlite_ycsb::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::profile::Profile;

/// Processor features by which the C library and the engine choose among versions of a function.
const FEATURES: [&str; 6] = ["avx2", "avx512vl", "bmi2", "erms", "fsrm", "rtm"];

/// What decides counts beside the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// The compiler.
    pub rustc: String,
    /// Flags given to it beside those of the workspace.
    pub rustflags: String,
    /// The counter.
    pub valgrind: String,
    /// The C library.
    pub libc: String,
    /// Features of the processor.
    pub features: String,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// With which tools.
    pub tools: Tools,
    /// Benchmarks by name.
    pub benchmarks: BTreeMap<String, Profile>,
}

impl Tools {
    /// The tools of this machine.
    ///
    /// # Errors
    /// One of them isn't there.
    pub fn here() -> Result<Self> {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let present = |feature: &&&str| flags.split_whitespace().any(|flag| flag == **feature);
        let features: Vec<&str> = FEATURES.iter().filter(present).copied().collect();
        Ok(Self {
            rustc: first_line("rustc", &["--version"])?,
            rustflags: std::env::var("RUSTFLAGS").unwrap_or_default(),
            valgrind: first_line("valgrind", &["--version"])?,
            libc: first_line("getconf", &["GNU_LIBC_VERSION"])?,
            features: features.join(" "),
        })
    }

    /// What differs, in words; empty if nothing does.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |tools: &Self| {
            [
                ("rustc", tools.rustc.clone()),
                ("RUSTFLAGS", tools.rustflags.clone()),
                ("valgrind", tools.valgrind.clone()),
                ("C library", tools.libc.clone()),
                ("processor features", tools.features.clone()),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        pairs
            .filter(|(mine, theirs)| mine != theirs)
            .map(|((name, mine), (_, theirs))| format!("{name}: {mine:?} there, {theirs:?} here"))
            .collect()
    }
}

fn first_line(program: &'static str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().map_err(|source| {
        Error::Usage(format!("{program} can't be run ({source}); the gate needs it"))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    /// It isn't there or isn't one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            Error::io(
                "reading the baseline (make one with scripts/perf-gate --update)",
                path,
                source,
            )
        })?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Usage(format!("{} is no baseline: {error}", path.display())))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("all keys are strings") + "\n";
        std::fs::write(path, text).map_err(|source| Error::io("writing", path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_are_read_back_and_other_tools_are_named() {
        let tools = Tools {
            rustc: "rustc 1.90.0".into(),
            rustflags: String::new(),
            valgrind: "valgrind-3.19.0".into(),
            libc: "glibc 2.36".into(),
            features: "avx2".into(),
        };
        let profile = Profile { instructions: 5, functions: BTreeMap::new() };
        let benchmarks = BTreeMap::from([("reads/get".to_owned(), profile)]);
        let baseline = Baseline { tools: tools.clone(), benchmarks };
        let file = tempfile::NamedTempFile::new().unwrap();
        baseline.write(file.path()).unwrap();
        assert_eq!(Baseline::read(file.path()).unwrap(), baseline);
        let newer = Tools { rustc: "rustc 1.95.0".into(), ..tools.clone() };
        assert_eq!(tools.differences(&tools), Vec::<String>::new());
        let differences = tools.differences(&newer);
        assert_eq!(differences, ["rustc: \"rustc 1.90.0\" there, \"rustc 1.95.0\" here"]);
        std::fs::write(file.path(), "{").unwrap();
        assert_eq!(Baseline::read(file.path()).unwrap_err().exit_code(), 2);
    }
}

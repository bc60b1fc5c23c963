//! The only place that makes and reads the names of a database's files.
//!
//! ```text
//! LOCK              held while the database is open
//! CURRENT           names the manifest in force
//! MANIFEST-000007   which tables are the database, and where its log begins
//! wal-000012.log    a log segment
//! spare-000013.log  a log segment that is free for use
//! 000042.sst        a table
//! 000043.val        large values
//! *.tmp             unfinished; removed at open
//! ```
//!
//! All of them share one counter, so a number is never used twice.

use std::path::{Path, PathBuf};

/// A number that no other file of this database has or had.
pub(crate) type FileNumber = u64;

/// What a file name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileName {
    Lock,
    Current,
    Manifest(FileNumber),
    Log(FileNumber),
    SpareLog(FileNumber),
    Table(FileNumber),
    Values(FileNumber),
    Temporary,
}

impl FileName {
    /// Reads a name; `None` if it is none of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let number = |digits: &str| -> Option<FileNumber> {
            let canonical = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if canonical { digits.parse().ok() } else { None }
        };
        match name {
            "LOCK" => return Some(Self::Lock),
            "CURRENT" => return Some(Self::Current),
            _ => {}
        }
        if let Some(digits) = name.strip_prefix("MANIFEST-") {
            return if digits.ends_with(".tmp") {
                Some(Self::Temporary)
            } else {
                number(digits).map(Self::Manifest)
            };
        }
        let (stem, extension) = name.rsplit_once('.')?;
        match extension {
            "sst" => number(stem).map(Self::Table),
            "val" => number(stem).map(Self::Values),
            "log" => match stem.split_once('-')? {
                ("wal", digits) => number(digits).map(Self::Log),
                ("spare", digits) => number(digits).map(Self::SpareLog),
                _ => None,
            },
            "tmp" if stem == "CURRENT" || number(stem).is_some() => Some(Self::Temporary),
            _ => None,
        }
    }

    /// The path of this file in `directory`.
    pub(crate) fn path(self, directory: &Path) -> PathBuf {
        directory.join(match self {
            Self::Lock => "LOCK".to_owned(),
            Self::Current => "CURRENT".to_owned(),
            Self::Manifest(number) => format!("MANIFEST-{number:06}"),
            Self::Log(number) => format!("wal-{number:06}.log"),
            Self::SpareLog(number) => format!("spare-{number:06}.log"),
            Self::Table(number) => format!("{number:06}.sst"),
            Self::Values(number) => format!("{number:06}.val"),
            Self::Temporary => "CURRENT.tmp".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_foreign_names_are_left_alone() {
        use FileName::{Current, Lock, Log, Manifest, SpareLog, Table, Temporary, Values};
        for name in [
            Lock,
            Current,
            Manifest(7),
            Log(12),
            SpareLog(999_999),
            Table(1_234_567),
            Values(43),
            Temporary,
        ] {
            let path = name.path(Path::new("d"));
            let text = path.file_name().and_then(|text| text.to_str()).unwrap();
            assert_eq!(FileName::parse(text), Some(name), "{text}");
        }
        for foreign in
            ["", "a.sst", "1.sst", "1.val", "-00001.sst", "notes.tmp", "wal-.log", "x.log", "LOCK2"]
        {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
    }
}

//! The only place that makes and reads the names of a backup's files.
//!
//! ```text
//! BACKUP                         says that the directory holds backups
//! LOCK                           held while generations are added or removed
//! generation-000003.rlbk         a generation
//! 00..ff-33554432.data           a file of the database, named by the hash of its content (32 digits) and its length
//! backup.tmp                     unfinished; removed when a generation is added or removed
//! ```

use std::path::{Path, PathBuf};

use crate::backup::copy::ContentHash;

/// The number of a generation: 1 for the first, never used twice while a later one is there.
pub(super) type GenerationNumber = u64;

/// The content of a file, which is also its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Content {
    pub(super) hash: ContentHash,
    pub(super) len: u64,
}

/// What a name in a backup directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackupName {
    Marker,
    Lock,
    Generation(GenerationNumber),
    File(Content),
    Temporary,
}

impl BackupName {
    /// Reads a name; `None` if it is none of ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "BACKUP" => return Some(Self::Marker),
            "LOCK" => return Some(Self::Lock),
            "backup.tmp" => return Some(Self::Temporary),
            _ => {}
        }
        let (stem, extension) = name.rsplit_once('.')?;
        let found = match extension {
            "rlbk" => Self::Generation(stem.strip_prefix("generation-")?.parse().ok()?),
            "data" => {
                let (hash, len) = stem.split_once('-')?;
                let hash = ContentHash::from_str_radix(hash, 16).ok()?;
                Self::File(Content { hash, len: len.parse().ok()? })
            }
            _ => return None,
        };
        // Only the one spelling that is ever written.
        (found.text() == name).then_some(found)
    }

    fn text(self) -> String {
        match self {
            Self::Marker => "BACKUP".to_owned(),
            Self::Lock => "LOCK".to_owned(),
            Self::Generation(number) => format!("generation-{number:06}.rlbk"),
            Self::File(Content { hash, len }) => format!("{hash:032x}-{len}.data"),
            Self::Temporary => "backup.tmp".to_owned(),
        }
    }

    /// The path of this file in `directory`.
    pub(super) fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.text())
    }
}

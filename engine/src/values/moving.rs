//! Which values move to new files when tables that point to them are rewritten.
//!
//! Those of files that are mostly garbage, because their space should come back; and those of small files, because many of them cost
//! file handles, memory maps and entries in the manifest, and each is emptied for itself later. Flushes with few large values leave
//! small files, and so does moving what is left of others.
//!
//! Small files are merged as the sizes of a binary counter are: a file joins smaller ones only if together they hold at least as much as
//! it does. So whenever a small file is written again, what it holds at least doubles, and each value moves a few times until its file
//! is not small any more, however slowly new ones come.

use std::collections::{HashMap, HashSet};

use super::format::ValueShare;
use super::{SMALL_FILES_MIN, full_bytes};
use crate::file_name::FileNumber;

/// A file is small if the values in it that are alive take less than this part of a full one: less than a flush of large values writes.
const SMALL_PART: u64 = 16;

/// The files of a version whose values should move.
#[derive(Debug, Default)]
pub(crate) struct Movable {
    /// Those that are garbage for the most part.
    pub(crate) to_empty: HashSet<FileNumber>,
    /// Others with so little in them that several of them should become one.
    pub(crate) small: HashSet<FileNumber>,
}

/// Whether a value file with so many bytes of live values is a small one.
pub(super) fn is_small(live: u64, table_bytes: u64) -> bool {
    live < full_bytes(table_bytes) / SMALL_PART
}

impl Movable {
    /// Of the files that some tables point to, those whose values move if the tables are rewritten together.
    pub(crate) fn moving<'s>(
        &self,
        shares: impl Iterator<Item = &'s ValueShare>,
    ) -> HashSet<FileNumber> {
        let mut moving = HashSet::new();
        let mut bytes = 0;
        let mut small: HashMap<FileNumber, u64> = HashMap::new();
        for share in shares {
            if self.to_empty.contains(&share.file) {
                moving.insert(share.file);
                bytes += share.bytes;
            } else if self.small.contains(&share.file) {
                *small.entry(share.file).or_default() += share.bytes;
            }
        }
        let mut small: Vec<_> = small.into_iter().map(|(file, bytes)| (bytes, file)).collect();
        small.sort_unstable();
        let mut joining = 0;
        for (others, &(own, _)) in (moving.len()..).zip(&small) {
            if own <= bytes && others + 1 >= SMALL_FILES_MIN {
                joining = others + 1 - moving.len();
            }
            bytes += own;
        }
        moving.extend(small.iter().take(joining).map(|&(_, file)| file));
        moving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn movable(to_empty: &[FileNumber], small: &[FileNumber]) -> Movable {
        Movable {
            to_empty: to_empty.iter().copied().collect(),
            small: small.iter().copied().collect(),
        }
    }

    fn moving(movable: &Movable, shares: &[(FileNumber, u64)]) -> Vec<FileNumber> {
        let shares: Vec<_> =
            shares.iter().map(|&(file, bytes)| ValueShare { file, bytes }).collect();
        let mut moving: Vec<_> = movable.moving(shares.iter()).into_iter().collect();
        moving.sort_unstable();
        moving
    }

    #[test]
    fn garbage_moves_always_and_small_files_where_there_are_several() {
        let both = movable(&[1], &[2, 3, 4, 5]);
        assert_eq!(moving(&both, &[(1, 10), (9, 10)]), [1]);
        assert_eq!(moving(&both, &[(2, 10), (3, 10), (4, 10), (9, 10)]), [0; 0]);
        assert_eq!(moving(&both, &[(2, 10), (3, 10), (4, 10), (5, 10)]), [2, 3, 4, 5]);
        assert_eq!(moving(&both, &[(1, 10), (2, 10), (3, 10), (4, 10)]), [1, 2, 3, 4]);
        let two_tables = [(2, 5), (3, 10), (4, 10), (2, 5), (5, 10)];
        assert_eq!(moving(&both, &two_tables), [2, 3, 4, 5], "a file counts once");
    }

    #[test]
    fn a_file_joins_smaller_ones_only_if_they_hold_as_much_as_it_does() {
        let small = movable(&[], &[1, 2, 3, 4, 5, 6]);
        let four = [(1, 10), (2, 10), (3, 10), (4, 10)];
        assert_eq!(moving(&small, &[&four[..], &[(5, 41)]].concat()), [1, 2, 3, 4]);
        assert_eq!(moving(&small, &[&four[..], &[(5, 40)]].concat()), [1, 2, 3, 4, 5]);
        assert_eq!(moving(&small, &[&four[..], &[(6, 80), (5, 40)]].concat()), [1, 2, 3, 4, 5, 6]);
        let doubling = [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32)];
        assert_eq!(moving(&small, &doubling), [0; 0]);
    }

    #[test]
    fn each_value_moves_a_few_times_however_many_files_come() {
        const FILES: u64 = 1000;
        let mut files: Vec<(FileNumber, u64)> = Vec::new();
        let mut moved = 0;
        for number in 1..=FILES {
            files.push((number, 7));
            let all = movable(&[], &files.iter().map(|file| file.0).collect::<Vec<_>>());
            let moving = moving(&all, &files);
            let bytes: u64 =
                files.iter().filter(|(file, _)| moving.contains(file)).map(|file| file.1).sum();
            moved += bytes;
            files.retain(|(file, _)| !moving.contains(file));
            if bytes > 0 {
                files.push((FILES + number, bytes));
            }
        }
        assert_eq!(files.iter().map(|file| file.1).sum::<u64>(), FILES * 7, "nothing is lost");
        assert!(files.len() < 12, "{files:?}");
        assert!(moved <= FILES * 7 * 10, "{} times each", moved / (FILES * 7));
    }
}

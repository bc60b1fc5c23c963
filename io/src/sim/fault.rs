//! Injected errors, written as one line of text each.
//!
//! ```text
//! rule      = operation [glob] [nth=N] [sticky] [one_in=N] [short] [error=NAME]
//! operation = any | read | write | short | store | submit | frame | sync | syncdir | create
//!           | open | remove | rename | link | list | map | populate | lock
//! glob      = a file name with `*` and `?`; matched against the whole path if it contains `/`
//! NAME      = EIO (the default) | ENOSPC | EROFS | ... | a number
//! ```
//!
//! A rule counts the operations that match it and fails the `nth` (the first, if not given), or
//! with `sticky` that one and all after it, or with `one_in=N` each with that probability, drawn
//! from the file system's seed. `write` also matches `store` and `frame`. `short` lets a part of
//! the bytes reach the file before the error; `short` as the operation is `write` with that flag.

use std::io;
use std::path::Path;

use super::op::Op;
use super::random::Random;

/// When and how an operation fails; see [`FaultRule::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// `None` matches every operation.
    op: Option<Op>,
    glob: String,
    nth: u64,
    sticky: bool,
    one_in: Option<u64>,
    short: bool,
    errno: i32,
    hits: u64,
}

/// What an injected error does to the operation that it hits.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: io::Error,
    /// True if a part of a write's bytes reaches the file all the same.
    pub(super) partial: bool,
    /// True if the power went off, so that a sync had no consequences at all.
    pub(super) power: bool,
}

impl FaultRule {
    /// Reads a rule from its text, such as `write *.sst nth=3 error=ENOSPC` or `sync wal-* sticky
    /// error=EIO`.
    ///
    /// # Errors
    /// A sentence that names the word that is not understood.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut words = text.split_whitespace();
        let operation = words.next().ok_or_else(|| "an empty fault rule".to_owned())?;
        let (op, short) = match operation {
            "any" => (None, false),
            "short" => (Some(Op::Write), true),
            name => {
                let op = Op::from_rule_name(name);
                (Some(op.ok_or_else(|| format!("unknown operation `{name}` in `{text}`"))?), false)
            }
        };
        let mut rule = Self {
            op,
            glob: "*".to_owned(),
            nth: 1,
            sticky: false,
            one_in: None,
            short,
            errno: libc::EIO,
            hits: 0,
        };
        for word in words {
            rule.apply_word(word).ok_or_else(|| format!("cannot read `{word}` in `{text}`"))?;
        }
        Ok(rule)
    }

    fn apply_word(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            Some(("nth", count)) => self.nth = positive(count)?,
            Some(("one_in", count)) => self.one_in = Some(positive(count)?),
            Some(("error", name)) => self.errno = errno(name)?,
            Some(_) => return None,
            None if word == "sticky" => self.sticky = true,
            None if word == "short" => self.short = true,
            None => self.glob = word.to_owned(),
        }
        Some(())
    }

    /// Counts the operation if it matches, and says how it fails if it is its turn.
    pub(super) fn strike(&mut self, op: Op, path: &Path, random: &mut Random) -> Option<Failure> {
        let matches_op = self.op.is_none_or(|wanted| {
            wanted == op || (wanted == Op::Write && matches!(op, Op::Store | Op::Frame))
        });
        if !matches_op || !self.matches_path(path) {
            return None;
        }
        self.hits += 1;
        let fires = match self.one_in {
            Some(bound) => random.below(bound) == 0,
            None if self.sticky => self.hits >= self.nth,
            None => self.hits == self.nth,
        };
        fires.then(|| Failure {
            error: io::Error::from_raw_os_error(self.errno),
            partial: self.short,
            power: false,
        })
    }

    fn matches_path(&self, path: &Path) -> bool {
        let subject = if self.glob.contains('/') {
            path.to_string_lossy()
        } else {
            path.file_name().unwrap_or_default().to_string_lossy()
        };
        glob_matches(self.glob.as_bytes(), subject.as_bytes())
    }
}

fn positive(text: &str) -> Option<u64> {
    text.parse().ok().filter(|&count| count > 0)
}

fn errno(name: &str) -> Option<i32> {
    Some(match name {
        "EIO" => libc::EIO,
        "ENOSPC" => libc::ENOSPC,
        "EDQUOT" => libc::EDQUOT,
        "EFBIG" => libc::EFBIG,
        "EROFS" => libc::EROFS,
        "EACCES" => libc::EACCES,
        "EPERM" => libc::EPERM,
        "ENOENT" => libc::ENOENT,
        "EMFILE" => libc::EMFILE,
        "ENFILE" => libc::ENFILE,
        "ENOMEM" => libc::ENOMEM,
        "EAGAIN" => libc::EAGAIN,
        "EXDEV" => libc::EXDEV,
        "EMLINK" => libc::EMLINK,
        "EOPNOTSUPP" => libc::EOPNOTSUPP,
        number => number.parse().ok().filter(|&code| code > 0)?,
    })
}

/// Matches `*` (any run) and `?` (any one byte) by going back to the last star on a mismatch, in
/// linear memory.
fn glob_matches(pattern: &[u8], subject: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while position < subject.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, position));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == subject[position] => {
                at += 1;
                position += 1;
            }
            _ => match last_star {
                Some((star, matched)) => {
                    last_star = Some((star, matched + 1));
                    at = star + 1;
                    position = matched + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.sst", "000012.sst", true),
            ("*.sst", "000012.sst.tmp", false),
            ("wal-*", "wal-7.log", true),
            ("w?l-*7*", "wal-171", true),
            ("w?l-*7*", "wal-11", false),
            ("a*b*c", "aXbYbZc", true),
            ("CURRENT", "CURRENT", true),
            ("CURRENT", "CURRENTS", false),
        ] {
            let got = glob_matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(got, expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn rules_fire_on_their_turn() {
        let mut random = Random::new(1);
        let mut strike = |rule: &mut FaultRule, op, path: &str| {
            rule.strike(op, Path::new(path), &mut random).is_some()
        };
        let mut once = FaultRule::parse("write *.sst nth=3 error=ENOSPC").unwrap();
        let fired: Vec<bool> = (0..5).map(|_| strike(&mut once, Op::Write, "/db/1.sst")).collect();
        assert_eq!(fired, [false, false, true, false, false]);
        assert!(!strike(&mut FaultRule::parse("write *.sst").unwrap(), Op::Write, "/db/wal"));
        assert!(!strike(&mut FaultRule::parse("write *.sst").unwrap(), Op::Read, "/db/1.sst"));
        assert!(strike(&mut FaultRule::parse("write").unwrap(), Op::Frame, "/db/wal"));

        let mut sticky = FaultRule::parse("sync /db/wal-* nth=2 sticky").unwrap();
        let fired: Vec<bool> = (0..4).map(|_| strike(&mut sticky, Op::Sync, "/db/wal-1")).collect();
        assert_eq!(fired, [false, true, true, true]);
    }

    #[test]
    fn mistakes_in_rules_are_named() {
        for (text, word) in [
            ("", "empty"),
            ("wriet *.sst", "wriet"),
            ("write nth=0", "nth=0"),
            ("write error=EWHAT", "EWHAT"),
            ("write colour=red", "colour=red"),
        ] {
            let message = FaultRule::parse(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}

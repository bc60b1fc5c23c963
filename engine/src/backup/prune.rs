//! Removes generations, and files that no generation needs.

use std::collections::BTreeSet;

use crate::backup::generation::Generation;
use crate::backup::names::{BackupName, GenerationNumber};
use crate::backup::repository::Backup;
use crate::error::{Error, ErrorKind, Result};

impl Backup {
    /// Removes a generation, and the files that no other generation needs.
    ///
    /// # Errors
    /// `NotFound` if there is no such generation; `Locked` if generations are being added or removed by somebody else; I/O errors. Files
    /// are kept while another generation is damaged, because nobody knows what it needs.
    pub fn delete(&self, generation: u64) -> Result<()> {
        let _lock = self.lock()?;
        if !self.numbers()?.contains(&generation) {
            let shown = self.directory.display();
            let message = format!("the backup in {shown} has no generation {generation}");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        self.remove_generations(&[generation])
    }

    /// Removes all but the newest `count` generations, and the files that only they need. Gives the numbers of those removed.
    ///
    /// # Errors
    /// As [`delete`](Self::delete); `InvalidArgument` if `count` is 0.
    pub fn retain(&self, count: usize) -> Result<Vec<u64>> {
        if count == 0 {
            return Err(Error::invalid("at least one generation has to be retained"));
        }
        let _lock = self.lock()?;
        let mut numbers = self.numbers()?;
        numbers.truncate(numbers.len().saturating_sub(count));
        self.remove_generations(&numbers)?;
        Ok(numbers)
    }

    fn remove_generations(&self, numbers: &[GenerationNumber]) -> Result<()> {
        for &number in numbers {
            self.fs.remove(&self.path(BackupName::Generation(number)))?;
        }
        // Before what they needed goes: a generation that comes back after a crash must be complete.
        self.fs.sync_dir(&self.directory)?;
        self.remove_unneeded()
    }

    /// Removes unfinished files, and tables that no generation needs. The lock is held.
    pub(super) fn remove_unneeded(&self) -> Result<()> {
        let mut needed = BTreeSet::new();
        let mut all_read = true;
        for number in self.numbers()? {
            match Generation::read(&*self.fs, &self.directory, number) {
                Ok(generation) => {
                    needed.extend(generation.files.values().map(|file| file.content));
                }
                Err(error) => {
                    tracing::warn!(%error, "tables are kept, because a generation is damaged");
                    all_read = false;
                }
            }
        }
        for entry in self.fs.list(&self.directory)?.iter().filter(|entry| entry.is_file) {
            let unneeded = match BackupName::parse(&entry.name) {
                Some(BackupName::File(content)) => all_read && !needed.contains(&content),
                Some(BackupName::Temporary) => true,
                _ => false,
            };
            if unneeded {
                self.fs.remove(&self.directory.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

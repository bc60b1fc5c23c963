//! How far an index is: a record in the index's own keyspace, so that it is atomic with the entries that it speaks of.
//!
//! ```text
//! state = version (1 byte: 1) | phase (1 byte: 0 building, 1 ready) | while building: the key of the last row that has its entries
//! ```
//!
//! An index without the record is being built and has done nothing yet.

use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
const BUILDING: u8 = 0;
const READY: u8 = 1;

/// How far an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Rows up to this one (inclusive) have their entries, those behind it have if they were written since the index was created.
    Building(Option<Vec<u8>>),
    Ready,
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Building(last) => {
                [&[VERSION, BUILDING], last.as_deref().unwrap_or_default()].concat()
            }
            Self::Ready => vec![VERSION, READY],
        }
    }

    /// Reads the record of the index of that name.
    ///
    /// # Errors
    /// If it was written by a newer version, or is damaged.
    pub(super) fn decode(index: &str, record: Option<&[u8]>) -> Result<Self> {
        match record {
            None => Ok(Self::Building(None)),
            Some([VERSION, BUILDING, last @ ..]) => {
                Ok(Self::Building((!last.is_empty()).then(|| last.to_vec())))
            }
            Some([VERSION, READY]) => Ok(Self::Ready),
            Some([version, ..]) if *version > VERSION => Err(Error::new(
                ErrorKind::UnsupportedFormat,
                format!("the state of index {index:?} was written by a newer version of RustLite"),
            )),
            Some(_) => Err(Error::new(
                ErrorKind::Corruption,
                format!(
                    "the state of index {index:?} is damaged; drop the index and create it again"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back() {
        let all =
            [Progress::Building(None), Progress::Building(Some(b"k".to_vec())), Progress::Ready];
        for progress in all {
            assert_eq!(Progress::decode("i", Some(&progress.encode())).unwrap(), progress);
        }
        assert_eq!(Progress::decode("i", None).unwrap(), Progress::Building(None));
        let kind = |record: &[u8]| Progress::decode("i", Some(record)).unwrap_err().kind();
        assert_eq!(kind(&[2, 0]), ErrorKind::UnsupportedFormat);
        assert_eq!(kind(&[1, 7]), ErrorKind::Corruption);
        assert_eq!(kind(&[]), ErrorKind::Corruption);
    }
}

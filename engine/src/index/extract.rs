//! From a row to its index keys.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::index::definition::IndexSource;

/// Collects the index keys of a row. The same key twice counts once.
#[derive(Debug, Default)]
pub struct IndexKeys {
    /// All keys, one behind the other.
    bytes: Vec<u8>,
    /// Where each is.
    keys: Vec<Range<usize>>,
}

impl IndexKeys {
    /// Adds an index key; it may be empty.
    pub fn add(&mut self, key: impl AsRef<[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.as_ref());
        self.keys.push(start..self.bytes.len());
    }

    /// Brings the keys into their order, each once.
    fn sort(&mut self) {
        let Self { bytes, keys } = self;
        keys.sort_unstable_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
        keys.dedup_by(|a, b| bytes[a.clone()] == bytes[b.clone()]);
    }
}

/// The index keys of one row: declared bytes of it, or what an extractor has collected, in order.
#[derive(Debug)]
pub(super) enum RowKeys<'r> {
    Bytes(Option<&'r [u8]>),
    Collected(IndexKeys),
}

impl RowKeys<'_> {
    /// Of a row that is not there.
    pub(super) const NONE: Self = Self::Bytes(None);

    /// The keys in their order, each once.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match self {
            Self::Bytes(one) => (*one, None),
            Self::Collected(many) => (None, Some(many)),
        };
        let many = many.into_iter();
        let many = many.flat_map(|many| many.keys.iter().map(|key| &many.bytes[key.clone()]));
        one.into_iter().chain(many)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Bytes(one) => *one == Some(key),
            Self::Collected(many) => {
                many.keys.binary_search_by(|found| many.bytes[found.clone()].cmp(key)).is_ok()
            }
        }
    }
}

/// Gives the index keys of a row: its key, its value, where to put them.
type Extract = dyn Fn(&[u8], &[u8], &mut IndexKeys) + Send + Sync;

/// The extractors that an application has registered, by name.
#[derive(Clone, Default)]
pub(crate) struct Extractors(BTreeMap<String, Arc<Extract>>);

impl Extractors {
    pub(crate) fn register(
        &mut self,
        name: String,
        extract: impl Fn(&[u8], &[u8], &mut IndexKeys) + Send + Sync + 'static,
    ) {
        self.0.insert(name, Arc::new(extract));
    }
}

impl fmt::Debug for Extractors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A source that is ready to use.
pub(super) enum Extractor {
    Bytes(IndexSource),
    Code(Arc<Extract>),
    /// The application has not registered it.
    Missing(String),
    /// Entries are none of our business.
    Manual,
}

impl Extractor {
    pub(super) fn new(source: &IndexSource, registered: &Extractors) -> Self {
        match source {
            IndexSource::Extractor(name) => match registered.0.get(name) {
                Some(extract) => Self::Code(Arc::clone(extract)),
                None => Self::Missing(name.clone()),
            },
            IndexSource::Manual => Self::Manual,
            bytes => Self::Bytes(bytes.clone()),
        }
    }

    /// The index keys of a row.
    ///
    /// # Errors
    /// If the extractor is not registered, or panics.
    pub(super) fn keys<'r>(
        &self,
        index: &str,
        key: &'r [u8],
        value: &'r [u8],
    ) -> Result<RowKeys<'r>> {
        Ok(RowKeys::Bytes(match self {
            Self::Code(extract) => {
                let mut keys = IndexKeys::default();
                // The keys are thrown away after a panic, and what the extractor itself shares is its own business.
                catch_unwind(AssertUnwindSafe(|| extract(key, value, &mut keys))).map_err(
                    |_| {
                        Error::invalid(format!(
                            "the extractor of index {index:?} panicked at a row"
                        ))
                    },
                )?;
                keys.sort();
                return Ok(RowKeys::Collected(keys));
            }
            Self::Missing(_) => {
                self.check_registered(index)?;
                None
            }
            Self::Bytes(IndexSource::KeyBytes(range)) => range.of(key),
            Self::Bytes(IndexSource::ValueBytes(range)) => range.of(value),
            Self::Bytes(_) | Self::Manual => None,
        }))
    }

    /// Says, before anything is read or written, that the extractor is missing if it is.
    pub(super) fn check_registered(&self, index: &str) -> Result<()> {
        let Self::Missing(name) = self else { return Ok(()) };
        Err(Error::new(
            ErrorKind::ExtractorMissing,
            format!(
                "index {index:?} needs the extractor {name:?}; register it with \
                 `Options::index_extractor` when the database is opened"
            ),
        ))
    }
}

//! From a row to its index keys.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::index::definition::IndexSource;

/// Collects the index keys of a row. The same key twice counts once.
#[derive(Debug, Default)]
pub struct IndexKeys {
    keys: Vec<Vec<u8>>,
}

impl IndexKeys {
    /// Adds an index key; it may be empty.
    pub fn add(&mut self, key: impl AsRef<[u8]>) {
        self.keys.push(key.as_ref().to_vec());
    }

    /// The keys in their order, each once.
    fn into_sorted(mut self) -> Vec<Vec<u8>> {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.keys
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

    /// The index keys of a row, in their order, each once.
    ///
    /// # Errors
    /// If the extractor is not registered, or panics.
    pub(super) fn keys(&self, index: &str, key: &[u8], value: &[u8]) -> Result<Vec<Vec<u8>>> {
        let bytes = match self {
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
                return Ok(keys.into_sorted());
            }
            Self::Missing(name) => {
                return Err(Error::new(
                    ErrorKind::ExtractorMissing,
                    format!(
                        "index {index:?} needs the extractor {name:?}; register it with \
                         `Options::index_extractor` when the database is opened"
                    ),
                ));
            }
            Self::Bytes(IndexSource::KeyBytes(range)) => range.of(key),
            Self::Bytes(IndexSource::ValueBytes(range)) => range.of(value),
            Self::Bytes(_) | Self::Manual => None,
        };
        Ok(bytes.map(<[u8]>::to_vec).into_iter().collect())
    }
}

//! LevelDB through its C interface. The safe bindings copy every key and value that an iterator
//! shows and have no bloom filters; both would be unfair to it.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use leveldb_sys::*;

use crate::error::Failure;
use crate::store::{Direction, Durability, OpenSpec, Store};

/// Bloom filter bits for each key, as for the other engines.
const FILTER_BITS: i32 = 10;

/// Tables kept open: all of them.
const OPEN_FILES_MAX: i32 = 5000;

/// How long the compaction statistics must stay the same to call the database settled.
const SETTLED_AFTER: u32 = 10;

/// How often to look at them.
const POLL: Duration = Duration::from_millis(10);

/// The open database with what must outlive it.
struct Raw {
    database: *mut leveldb_t,
    options: *mut leveldb_options_t,
    cache: *mut leveldb_cache_t,
    filter: *mut leveldb_filterpolicy_t,
}

// SAFETY: LevelDB's documentation allows calls on one database from any threads at once; the other
// pointers are only used to destroy what they point to, by the last owner.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Drop for Raw {
    fn drop(&mut self) {
        if !self.database.is_null() {
            // SAFETY: it was opened successfully and is closed once, here; no iterator is left.
            unsafe { leveldb_close(self.database) };
        }
        // SAFETY: made in `open`, destroyed once, and the database that used it is closed.
        unsafe { leveldb_options_destroy(self.options) };
        // SAFETY: as above.
        unsafe { leveldb_cache_destroy(self.cache) };
        // SAFETY: as above.
        unsafe { leveldb_filterpolicy_destroy(self.filter) };
    }
}

/// Options of calls, made for each handle.
struct CallOptions {
    read: *mut leveldb_readoptions_t,
    write: *mut leveldb_writeoptions_t,
}

// SAFETY: plain settings that nobody else has a pointer to.
unsafe impl Send for CallOptions {}

impl CallOptions {
    fn new(sync: bool) -> Self {
        // SAFETY: no preconditions.
        let read = unsafe { leveldb_readoptions_create() };
        // SAFETY: no preconditions.
        let write = unsafe { leveldb_writeoptions_create() };
        // SAFETY: just made.
        unsafe { leveldb_writeoptions_set_sync(write, u8::from(sync)) };
        Self { read, write }
    }
}

impl Drop for CallOptions {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        unsafe { leveldb_readoptions_destroy(self.read) };
        // SAFETY: as above.
        unsafe { leveldb_writeoptions_destroy(self.write) };
    }
}

struct LevelDb {
    // Dropped before the database.
    call: CallOptions,
    raw: Arc<Raw>,
    sync: bool,
    configuration: String,
}

pub(super) fn open(spec: &OpenSpec) -> Result<Box<dyn Store>, Failure> {
    let name = CString::new(spec.directory.as_os_str().as_encoded_bytes())?;
    // SAFETY: no preconditions.
    let options = unsafe { leveldb_options_create() };
    // SAFETY: no preconditions.
    let cache = unsafe { leveldb_cache_create_lru(usize::try_from(spec.cache_bytes)?) };
    // SAFETY: no preconditions.
    let filter = unsafe { leveldb_filterpolicy_create_bloom(FILTER_BITS) };
    let mut raw = Raw { database: ptr::null_mut(), options, cache, filter };
    // SAFETY: just made, as are those below.
    unsafe { leveldb_options_set_create_if_missing(options, 1) };
    // SAFETY: as above.
    unsafe { leveldb_options_set_cache(options, cache) };
    // SAFETY: as above.
    unsafe { leveldb_options_set_filter_policy(options, filter) };
    // SAFETY: as above.
    unsafe { leveldb_options_set_compression(options, Compression::No) };
    // SAFETY: as above.
    unsafe { leveldb_options_set_max_open_files(options, OPEN_FILES_MAX) };
    let memtable_bytes = usize::try_from(spec.memtable_bytes)?;
    // SAFETY: as above.
    unsafe { leveldb_options_set_write_buffer_size(options, memtable_bytes) };
    let mut error = ptr::null_mut();
    // SAFETY: the options are complete, the name ends with a zero, `error` is null.
    raw.database = unsafe { leveldb_open(options, name.as_ptr(), &raw mut error) };
    check(error)?;
    let sync = spec.durability == Durability::Sync;
    // SAFETY: no preconditions.
    let (major, minor) = (unsafe { leveldb_major_version() }, unsafe { leveldb_minor_version() });
    let configuration = format!(
        "LevelDB {major}.{minor}, no compression, cache of {} MiB, bloom filters of {FILTER_BITS} \
         bits a key, memtables of {} MiB, WriteOptions.sync={sync}",
        spec.cache_bytes >> 20,
        spec.memtable_bytes >> 20,
    );
    Ok(Box::new(LevelDb { call: CallOptions::new(sync), raw: Arc::new(raw), sync, configuration }))
}

/// Takes over an error text of LevelDB, if there is one.
fn check(error: *mut c_char) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: LevelDB gives a text that ends with a zero and belongs to the caller.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: as above; it isn't used afterwards.
    unsafe { leveldb_free(error.cast()) };
    Err(text.into())
}

/// An iterator, destroyed on drop; the handle that made it keeps the database open.
struct Iterator<'a> {
    raw: *mut leveldb_iterator_t,
    _handle: &'a LevelDb,
}

impl Drop for Iterator<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `LevelDb::iterator`, destroyed once.
        unsafe { leveldb_iter_destroy(self.raw) };
    }
}

impl Iterator<'_> {
    /// The record it stands on, until it moves.
    fn item(&self) -> Option<(&[u8], &[u8])> {
        // SAFETY: the iterator lives.
        if unsafe { leveldb_iter_valid(self.raw) } == 0 {
            return None;
        }
        let (mut key_bytes, mut value_bytes) = (0, 0);
        // SAFETY: it is valid.
        let key = unsafe { leveldb_iter_key(self.raw, &raw mut key_bytes) };
        // SAFETY: it is valid.
        let value = unsafe { leveldb_iter_value(self.raw, &raw mut value_bytes) };
        // SAFETY: LevelDB's bytes stay until the iterator moves, which needs it mutably.
        let key = unsafe { std::slice::from_raw_parts(key.cast::<u8>(), key_bytes) };
        // SAFETY: as above.
        let value = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), value_bytes) };
        Some((key, value))
    }

    fn step(&mut self, direction: Direction) {
        match direction {
            // SAFETY: callers have seen a record under it.
            Direction::Forward => unsafe { leveldb_iter_next(self.raw) },
            // SAFETY: as above.
            Direction::Backward => unsafe { leveldb_iter_prev(self.raw) },
        }
    }

    /// Whether it stopped at the end, or at an error.
    fn status(self) -> Result<(), Failure> {
        let mut error: *mut c_char = ptr::null_mut();
        // SAFETY: the iterator lives; the function writes the pointer, whatever its signature says.
        unsafe { leveldb_iter_get_error(self.raw, (&raw mut error).cast::<*const c_char>()) };
        check(error)
    }
}

impl LevelDb {
    fn iterator(&self) -> Iterator<'_> {
        // SAFETY: the database is open while `self` lives.
        let raw = unsafe { leveldb_create_iterator(self.raw.database, self.call.read) };
        Iterator { raw, _handle: self }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut error = ptr::null_mut();
        // SAFETY: pointers and lengths are those of living slices, which LevelDB copies.
        unsafe {
            leveldb_put(
                self.raw.database,
                self.call.write,
                key.as_ptr().cast(),
                key.len(),
                value.as_ptr().cast(),
                value.len(),
                &raw mut error,
            );
        }
        check(error)
    }

    /// LevelDB's table of levels and compactions so far.
    fn statistics(&self) -> String {
        // SAFETY: the database is open, the name ends with a zero.
        let text = unsafe { leveldb_property_value(self.raw.database, c"leveldb.stats".as_ptr()) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: LevelDB gives a text that ends with a zero and belongs to the caller.
        let copied = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        // SAFETY: as above; it isn't used afterwards.
        unsafe { leveldb_free(text.cast()) };
        copied
    }
}

impl Store for LevelDb {
    fn configuration(&self) -> String {
        self.configuration.clone()
    }

    fn handle(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(Box::new(Self {
            call: CallOptions::new(self.sync),
            raw: Arc::clone(&self.raw),
            sync: self.sync,
            configuration: String::new(),
        }))
    }

    fn read(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Failure> {
        let (mut error, mut length) = (ptr::null_mut(), 0);
        // SAFETY: pointer and length are those of a living slice.
        let found = unsafe {
            leveldb_get(
                self.raw.database,
                self.call.read,
                key.as_ptr().cast(),
                key.len(),
                &raw mut length,
                &raw mut error,
            )
        };
        check(error)?;
        if found.is_null() {
            return Ok(false);
        }
        value.clear();
        // SAFETY: LevelDB gives so many bytes, which belong to the caller.
        value.extend_from_slice(unsafe { std::slice::from_raw_parts(found.cast(), length) });
        // SAFETY: as above; they aren't used afterwards.
        unsafe { leveldb_free(found.cast()) };
        Ok(true)
    }

    fn update(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.put(key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        let mut error = ptr::null_mut();
        // SAFETY: pointer and length are those of a living slice, which LevelDB copies.
        unsafe {
            leveldb_delete(
                self.raw.database,
                self.call.write,
                key.as_ptr().cast(),
                key.len(),
                &raw mut error,
            );
        }
        check(error)
    }

    fn scan(
        &mut self,
        start: &[u8],
        count: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut iterator = self.iterator();
        // SAFETY: the iterator lives; pointer and length are those of a living slice.
        unsafe { leveldb_iter_seek(iterator.raw, start.as_ptr().cast(), start.len()) };
        for position in 0..count {
            if position > 0 {
                iterator.step(Direction::Forward);
            }
            let Some((key, value)) = iterator.item() else { break };
            visit(key, value);
        }
        iterator.status()
    }

    fn scan_all(
        &mut self,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Failure> {
        let mut iterator = self.iterator();
        match direction {
            // SAFETY: the iterator lives.
            Direction::Forward => unsafe { leveldb_iter_seek_to_first(iterator.raw) },
            // SAFETY: as above.
            Direction::Backward => unsafe { leveldb_iter_seek_to_last(iterator.raw) },
        }
        while let Some((key, value)) = iterator.item() {
            visit(key, value);
            iterator.step(direction);
        }
        iterator.status()
    }

    fn settle(&mut self) -> Result<(), Failure> {
        // LevelDB neither flushes on request nor tells whether it is compacting. An empty range
        // compacted flushes the memtable and touches no other table; then the statistics stand
        // still once no compaction is left.
        // SAFETY: the database is open; pointers and lengths are those of constants.
        unsafe {
            leveldb_compact_range(self.raw.database, c"".as_ptr(), 0, c"".as_ptr(), 0);
        }
        let (mut before, mut unchanged) = (self.statistics(), 0);
        while unchanged < SETTLED_AFTER {
            std::thread::sleep(POLL);
            let now = self.statistics();
            unchanged = if now == before { unchanged + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let Self { raw, call, .. } = *self;
        drop(call);
        // The last reference closes the database.
        Arc::into_inner(raw).map(drop).ok_or("a thread still holds the database".into())
    }
}

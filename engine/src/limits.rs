//! Every hard bound of the engine, in one place, with the relations between them.

/// Longest user key, in bytes. Keys are also never empty.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// Largest batch, in bytes of its encoded form.
pub const BATCH_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// Most records in one batch.
pub const BATCH_RECORDS_MAX: u32 = 1 << 28;

/// Longest keyspace name, in bytes.
pub const KEYSPACE_NAME_BYTES_MAX: usize = 256;

/// Longest name of a merge operator, in bytes.
pub(crate) const OPERATOR_NAME_BYTES_MAX: usize = 256;

/// Most keyspaces alive at once.
pub const KEYSPACES_MAX: usize = 65_536;

/// Most named snapshots at once.
pub const NAMED_SNAPSHOTS_MAX: usize = 1024;

/// Bytes of the keyspace id in front of every key.
pub(crate) const KEYSPACE_PREFIX_BYTES: usize = 4;

/// Longest internal key without its trailer: keyspace id and user key.
pub(crate) const FULL_KEY_BYTES_MAX: usize = KEYSPACE_PREFIX_BYTES + KEY_BYTES_MAX;

/// Levels of the tree, level 0 included.
pub(crate) const LEVELS: usize = 7;

/// Largest sequence number: 56 bits, because the kind shares its word.
pub(crate) const SEQUENCE_MAX: u64 = (1 << 56) - 1;

/// Largest uncompressed size of a data block's entries before the last entry: entry offsets are 16 bits wide.
pub(crate) const BLOCK_BYTES_MAX: usize = 32 * 1024;

/// Largest table block read from a file before its length is believed: one entry of maximal size and its surroundings.
pub(crate) const BLOCK_ENCODED_BYTES_MAX: usize = VALUE_BYTES_MAX + FULL_KEY_BYTES_MAX + (1 << 20);

/// Largest manifest record.
pub(crate) const MANIFEST_RECORD_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(BATCH_BYTES_MAX > VALUE_BYTES_MAX + FULL_KEY_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES_MAX + FULL_KEY_BYTES_MAX < 4 * 65_536);

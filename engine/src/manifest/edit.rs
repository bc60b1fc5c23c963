//! A version edit: one atomic change of what the database consists of, and its bytes.
//!
//! Decoding accepts exactly what encoding produces, plus unknown fields that say they may be ignored; it never allocates more than
//! the input is long.
//!
//! ```text
//! edit   = field*
//! field  = tag (varint) | length (varint) | content
//!          An odd tag must be understood: a reader that does not know it refuses the file as too new. An even one may be skipped.
//!
//! tag 1  database id         u64
//! tag 3  log start           varint   recovery replays from this LSN
//! tag 5  last sequence       varint
//! tag 7  next file number    varint
//! tag 9  next keyspace id    varint
//! tag 11 keyspace created    id | compression | filter bits per key | block bytes (varints) | name (the rest)
//! tag 13 keyspace dropped    id (varint)
//! tag 29 index created       a keyspace that holds the entries of an index: definition (length-prefixed, see `index::definition`)
//!                            | as for tag 11; the name is the index's
//! tag 15 table removed       level | number (varints)
//! tag 19 log segment added   number (varint)   recovery must find it
//! tag 21 log segment removed number (varint)   recovery ignores it
//! tag 25 snapshot named      sequence | created (varints; created in milliseconds since the Unix epoch) | name (the rest)
//! tag 27 snapshot dropped    name
//! tag 17 table added         level | number | file bytes | entries | deletions | range tombstones | raw bytes | flags
//!                            | smallest sequence | sequence span (varints) | smallest key | largest key (length-prefixed)
//!                            flags: bit 0 = the largest key itself is not covered
//!                                   bit 1 = values expire: then how many, and when more than half of the records
//!                                           will have, in Unix milliseconds (varints) follow the keys
//!                                   bit 2 = values lie in value files: then count | (file number | bytes)* (varints)
//!                                           follow
//! tag 23 keyspace settings   id | setting*    of a keyspace that the same edit creates in front of it; only what is not default
//!                            setting = number (varint) | length (varint) | content
//!                            1 = default lifetime of values, in milliseconds (varint)
//!                            2 = name of the merge operator
//!                            3 = values of this length or more are separated (varint)
//! ```

use std::time::Duration;

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::file_name::FileNumber;
use crate::index::definition::IndexDefinition;
use crate::key::{KeyspaceId, Sequence};
use crate::keyspace::check_name;
use crate::limits::{
    BLOCK_BYTES_MAX, FULL_KEY_BYTES_MAX, KEYSPACE_PREFIX_BYTES, LEVELS, SEQUENCE_MAX,
    VALUE_BYTES_MAX,
};
use crate::options::{Compression, KeyspaceOptions, check_operator_name};
use crate::read::snapshot::NamedSnapshot;
use crate::sstable::meta::TableMeta;
use crate::values::SEPARATION_BYTES_MIN;
use crate::values::format::{decode_shares, encode_shares};
use crate::wal::Lsn;

const TAG_DATABASE_ID: u64 = 1;
const TAG_LOG_START: u64 = 3;
const TAG_LAST_SEQUENCE: u64 = 5;
const TAG_NEXT_FILE: u64 = 7;
const TAG_NEXT_KEYSPACE: u64 = 9;
const TAG_KEYSPACE_CREATED: u64 = 11;
const TAG_KEYSPACE_DROPPED: u64 = 13;
const TAG_TABLE_REMOVED: u64 = 15;
const TAG_TABLE_ADDED: u64 = 17;
const TAG_LOG_ADDED: u64 = 19;
const TAG_LOG_REMOVED: u64 = 21;
const TAG_SNAPSHOT_NAMED: u64 = 25;
const TAG_SNAPSHOT_DROPPED: u64 = 27;

const TAG_KEYSPACE_SETTINGS: u64 = 23;
const TAG_INDEX_CREATED: u64 = 29;

const SETTING_DEFAULT_TTL: u64 = 1;
const SETTING_MERGE_OPERATOR: u64 = 2;
const SETTING_VALUE_SEPARATION: u64 = 3;

const FLAG_LARGEST_EXCLUSIVE: u64 = 1;
const FLAG_EXPIRING: u64 = 2;
const FLAG_SEPARATED: u64 = 4;
const FLAGS: u64 = FLAG_LARGEST_EXCLUSIVE | FLAG_EXPIRING | FLAG_SEPARATED;

/// Largest file number: far beyond what a database can use, and far from overflow.
pub(crate) const FILE_NUMBER_MAX: FileNumber = 1 << 62;

/// A keyspace as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyspaceDescriptor {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
    /// Set if this is the hidden keyspace of an index's entries. Its name is the index's then; indexes have names of their own.
    pub(crate) index: Option<IndexDefinition>,
}

/// One atomic change. Removals take effect before additions, so that a table can change its level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VersionEdit {
    /// Tables that now exist, with their level.
    pub(crate) added: Vec<(usize, TableMeta)>,
    /// Tables that are no longer needed, with the level they were in.
    pub(crate) removed: Vec<(usize, FileNumber)>,
    /// Recovery replays the log from here.
    pub(crate) log_start: Option<Lsn>,
    /// Log segments that may hold commits from now on.
    pub(crate) logs_added: Vec<FileNumber>,
    /// Log segments that hold nothing that is not in tables.
    pub(crate) logs_removed: Vec<FileNumber>,
    /// No table holds a newer sequence number.
    pub(crate) last_sequence: Option<Sequence>,
    /// No file has this number or a larger one.
    pub(crate) next_file: Option<FileNumber>,
    pub(crate) keyspaces_created: Vec<KeyspaceDescriptor>,
    /// All tables of these keyspaces go with them.
    pub(crate) keyspaces_dropped: Vec<KeyspaceId>,
    /// No keyspace has or had this id or a larger one.
    pub(crate) next_keyspace: Option<u32>,
    pub(crate) database_id: Option<u64>,
    /// Snapshots that are kept until they are dropped.
    pub(crate) snapshots_named: Vec<NamedSnapshot>,
    /// Names of snapshots that are kept no longer.
    pub(crate) snapshots_dropped: Vec<String>,
}

/// Why bytes are not an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditError {
    /// They are damaged.
    Corrupt(&'static str),
    /// A newer version of RustLite wrote them.
    Unsupported(String),
}

impl VersionEdit {
    /// Appends the edit's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if let Some(id) = self.database_id {
            put_field(out, TAG_DATABASE_ID, &id.to_le_bytes());
        }
        let numbers = [
            (TAG_LOG_START, self.log_start),
            (TAG_LAST_SEQUENCE, self.last_sequence),
            (TAG_NEXT_FILE, self.next_file),
            (TAG_NEXT_KEYSPACE, self.next_keyspace.map(u64::from)),
        ];
        for (tag, number) in numbers {
            if let Some(number) = number {
                put_numbers(out, tag, &[number]);
            }
        }
        for keyspace in &self.keyspaces_created {
            let encoded = encode_keyspace(keyspace);
            match &keyspace.index {
                None => put_field(out, TAG_KEYSPACE_CREATED, &encoded),
                Some(index) => put_field(out, TAG_INDEX_CREATED, &encode_index(index, &encoded)),
            }
            let settings = encode_settings(&keyspace.options);
            if !settings.is_empty() {
                let mut content = Vec::new();
                put_varint(&mut content, u64::from(keyspace.id.0));
                content.extend_from_slice(&settings);
                put_field(out, TAG_KEYSPACE_SETTINGS, &content);
            }
        }
        for id in &self.keyspaces_dropped {
            put_numbers(out, TAG_KEYSPACE_DROPPED, &[u64::from(id.0)]);
        }
        for (tag, logs) in
            [(TAG_LOG_REMOVED, &self.logs_removed), (TAG_LOG_ADDED, &self.logs_added)]
        {
            logs.iter().for_each(|&number| put_numbers(out, tag, &[number]));
        }
        for name in &self.snapshots_dropped {
            put_field(out, TAG_SNAPSHOT_DROPPED, name.as_bytes());
        }
        for snapshot in &self.snapshots_named {
            put_field(out, TAG_SNAPSHOT_NAMED, &encode_snapshot(snapshot));
        }
        for &(level, number) in &self.removed {
            put_numbers(out, TAG_TABLE_REMOVED, &[level as u64, number]);
        }
        for (level, meta) in &self.added {
            put_field(out, TAG_TABLE_ADDED, &encode_table(*level, meta));
        }
    }

    /// Reads an edit that takes all of `input`.
    pub(crate) fn decode(input: &[u8]) -> Result<Self, EditError> {
        let mut edit = Self::default();
        let mut decoder = Decoder::new(input);
        while !decoder.is_empty() {
            let tag = decoder.varint().ok_or(EditError::Corrupt("field tag"))?;
            let content = decoder.bytes().ok_or(EditError::Corrupt("field length"))?;
            let mut field = Decoder::new(content);
            edit.decode_field(tag, &mut field)?;
            if !field.is_empty() {
                return Err(EditError::Corrupt("bytes after the end of a field"));
            }
        }
        Ok(edit)
    }

    fn decode_field(&mut self, tag: u64, field: &mut Decoder<'_>) -> Result<(), EditError> {
        match tag {
            TAG_DATABASE_ID => {
                self.database_id = Some(field.u64().ok_or(EditError::Corrupt("database id"))?);
            }
            TAG_LOG_START => self.log_start = Some(number(field, u64::MAX, "log start")?),
            TAG_LAST_SEQUENCE => {
                self.last_sequence = Some(number(field, SEQUENCE_MAX, "last sequence")?);
            }
            TAG_NEXT_FILE => {
                self.next_file = Some(number(field, FILE_NUMBER_MAX, "next file number")?);
            }
            TAG_NEXT_KEYSPACE => self.next_keyspace = Some(keyspace_id(field)?.0),
            TAG_KEYSPACE_CREATED => self.keyspaces_created.push(decode_keyspace(field)?),
            TAG_KEYSPACE_SETTINGS => {
                let id = keyspace_id(field)?;
                let created = self.keyspaces_created.iter_mut().rfind(|created| created.id == id);
                let created = created.ok_or(EditError::Corrupt("settings of no keyspace"))?;
                decode_settings(field, &mut created.options)?;
            }
            TAG_INDEX_CREATED => self.keyspaces_created.push(decode_index(field)?),
            TAG_KEYSPACE_DROPPED => self.keyspaces_dropped.push(keyspace_id(field)?),
            TAG_TABLE_REMOVED => {
                let level = level(field)?;
                self.removed.push((level, number(field, FILE_NUMBER_MAX, "table number")?));
            }
            TAG_TABLE_ADDED => self.added.push(decode_table(field)?),
            TAG_LOG_ADDED => self.logs_added.push(number(field, FILE_NUMBER_MAX, "log number")?),
            TAG_LOG_REMOVED => {
                self.logs_removed.push(number(field, FILE_NUMBER_MAX, "log number")?);
            }
            TAG_SNAPSHOT_NAMED => self.snapshots_named.push(decode_snapshot(field)?),
            TAG_SNAPSHOT_DROPPED => self.snapshots_dropped.push(name(field, "snapshot name")?),
            unknown if unknown % 2 == 1 => {
                return Err(EditError::Unsupported(format!("manifest field {unknown}")));
            }
            _ => {
                field.take(field.remaining());
            }
        }
        Ok(())
    }
}

fn put_field(out: &mut Vec<u8>, tag: u64, content: &[u8]) {
    put_varint(out, tag);
    put_bytes(out, content);
}

fn put_numbers(out: &mut Vec<u8>, tag: u64, numbers: &[u64]) {
    let mut content = Vec::new();
    for &number in numbers {
        put_varint(&mut content, number);
    }
    put_field(out, tag, &content);
}

fn number(field: &mut Decoder<'_>, max: u64, what: &'static str) -> Result<u64, EditError> {
    field.varint().filter(|&value| value <= max).ok_or(EditError::Corrupt(what))
}

fn keyspace_id(field: &mut Decoder<'_>) -> Result<KeyspaceId, EditError> {
    let id = number(field, u64::from(u32::MAX), "keyspace id")?;
    u32::try_from(id).map(KeyspaceId).map_err(|_| EditError::Corrupt("keyspace id"))
}

fn level(field: &mut Decoder<'_>) -> Result<usize, EditError> {
    field.varint_max(LEVELS - 1).ok_or(EditError::Corrupt("level"))
}

/// A name, which takes the rest of the field.
fn name(field: &mut Decoder<'_>, what: &'static str) -> Result<String, EditError> {
    let name = field.take(field.remaining()).unwrap_or_default();
    let name = std::str::from_utf8(name).ok().filter(|name| check_name("name", name).is_ok());
    Ok(name.ok_or(EditError::Corrupt(what))?.to_owned())
}

fn encode_snapshot(snapshot: &NamedSnapshot) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, snapshot.sequence);
    put_varint(&mut out, snapshot.created.as_millis() as u64);
    out.extend_from_slice(snapshot.name.as_bytes());
    out
}

fn decode_snapshot(field: &mut Decoder<'_>) -> Result<NamedSnapshot, EditError> {
    let sequence = number(field, SEQUENCE_MAX, "sequence of a snapshot")?;
    let created = Duration::from_millis(number(field, u64::MAX, "time of a snapshot")?);
    Ok(NamedSnapshot { name: name(field, "snapshot name")?, sequence, created })
}

fn encode_keyspace(keyspace: &KeyspaceDescriptor) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(keyspace.id.0));
    put_varint(
        &mut out,
        match keyspace.options.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
        },
    );
    put_varint(&mut out, u64::from(keyspace.options.filter_bits_per_key));
    put_varint(&mut out, keyspace.options.block_bytes as u64);
    out.extend_from_slice(keyspace.name.as_bytes());
    out
}

fn decode_keyspace(field: &mut Decoder<'_>) -> Result<KeyspaceDescriptor, EditError> {
    let id = keyspace_id(field)?;
    let compression = match field.varint().ok_or(EditError::Corrupt("compression"))? {
        0 => Compression::None,
        1 => Compression::Lz4,
        2 => Compression::Zstd,
        other => return Err(EditError::Unsupported(format!("compression {other}"))),
    };
    let bits = field.varint_max(32).ok_or(EditError::Corrupt("filter bits per key"))?;
    let block_bytes = field.varint_max(BLOCK_BYTES_MAX).filter(|&bytes| bytes >= 512);
    let block_bytes = block_bytes.ok_or(EditError::Corrupt("block bytes"))?;
    let name = name(field, "keyspace name")?;
    let options = KeyspaceOptions::new()
        .compression(compression)
        .filter_bits_per_key(bits as u32)
        .block_bytes(block_bytes)
        .value_separation_bytes(0);
    Ok(KeyspaceDescriptor { id, name, options, index: None })
}

fn encode_index(index: &IndexDefinition, keyspace: &[u8]) -> Vec<u8> {
    let mut definition = Vec::new();
    index.encode(&mut definition);
    let mut out = Vec::new();
    put_bytes(&mut out, &definition);
    out.extend_from_slice(keyspace);
    out
}

fn decode_index(field: &mut Decoder<'_>) -> Result<KeyspaceDescriptor, EditError> {
    let mut definition = Decoder::new(field.bytes().ok_or(EditError::Corrupt("index"))?);
    let index = IndexDefinition::decode(&mut definition).map_err(|too_new| {
        too_new.map_or(EditError::Corrupt("index definition"), EditError::Unsupported)
    })?;
    if !definition.is_empty() {
        return Err(EditError::Corrupt("bytes after the end of an index definition"));
    }
    Ok(KeyspaceDescriptor { index: Some(index), ..decode_keyspace(field)? })
}

/// What of a keyspace's options has come after the first format, where it differs from what that meant.
fn encode_settings(options: &KeyspaceOptions) -> Vec<u8> {
    let mut out = Vec::new();
    if options.default_ttl_ms > 0 {
        put_numbers(&mut out, SETTING_DEFAULT_TTL, &[options.default_ttl_ms]);
    }
    if let Some(name) = &options.merge_operator {
        put_field(&mut out, SETTING_MERGE_OPERATOR, name.as_bytes());
    }
    if let Some(bytes) = options.separated_from() {
        put_numbers(&mut out, SETTING_VALUE_SEPARATION, &[bytes as u64]);
    }
    out
}

fn decode_settings(
    field: &mut Decoder<'_>,
    options: &mut KeyspaceOptions,
) -> Result<(), EditError> {
    while !field.is_empty() {
        let setting = field.varint().ok_or(EditError::Corrupt("keyspace setting"))?;
        let content = field.bytes().ok_or(EditError::Corrupt("keyspace setting"))?;
        let mut content = Decoder::new(content);
        match setting {
            SETTING_DEFAULT_TTL => {
                options.default_ttl_ms = number(&mut content, u64::MAX, "default lifetime")?;
            }
            SETTING_MERGE_OPERATOR => {
                let name = content.take(content.remaining()).unwrap_or_default();
                let name = std::str::from_utf8(name).ok();
                let name = name.filter(|name| check_operator_name(name).is_ok());
                let name = name.ok_or(EditError::Corrupt("name of a merge operator"))?;
                options.merge_operator = Some(name.to_owned());
            }
            SETTING_VALUE_SEPARATION => {
                let bytes = content.varint_max(VALUE_BYTES_MAX);
                let bytes = bytes.filter(|&bytes| bytes == 0 || bytes >= SEPARATION_BYTES_MIN);
                let bytes = bytes.ok_or(EditError::Corrupt("length of separated values"))?;
                options.value_separation_bytes = Some(bytes);
            }
            unknown => return Err(EditError::Unsupported(format!("keyspace setting {unknown}"))),
        }
        if !content.is_empty() {
            return Err(EditError::Corrupt("bytes after the end of a keyspace setting"));
        }
    }
    Ok(())
}

fn encode_table(level: usize, meta: &TableMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + meta.smallest.len() + meta.largest.len());
    let exclusive = if meta.largest_exclusive { FLAG_LARGEST_EXCLUSIVE } else { 0 };
    let expiring = if meta.expiring > 0 { FLAG_EXPIRING } else { 0 };
    let separated = if meta.values.is_empty() { 0 } else { FLAG_SEPARATED };
    for number in [
        level as u64,
        meta.number,
        meta.file_bytes,
        meta.entries,
        meta.deletions,
        meta.range_tombstones,
        meta.raw_bytes,
        exclusive | expiring | separated,
        meta.smallest_sequence,
        meta.largest_sequence.saturating_sub(meta.smallest_sequence),
    ] {
        put_varint(&mut out, number);
    }
    put_bytes(&mut out, &meta.smallest);
    put_bytes(&mut out, &meta.largest);
    if meta.expiring > 0 {
        put_varint(&mut out, meta.expiring);
        put_varint(&mut out, meta.half_expired_at);
    }
    if !meta.values.is_empty() {
        encode_shares(&meta.values, &mut out);
    }
    out
}

fn decode_table(field: &mut Decoder<'_>) -> Result<(usize, TableMeta), EditError> {
    let level = level(field)?;
    let table_number = number(field, FILE_NUMBER_MAX, "table number")?;
    let file_bytes = number(field, i64::MAX as u64, "table size")?;
    let entries = number(field, i64::MAX as u64, "entry count")?;
    let deletions = number(field, entries, "deletion count")?;
    let range_tombstones = number(field, i64::MAX as u64, "range tombstone count")?;
    let raw_bytes = number(field, i64::MAX as u64, "raw bytes")?;
    let flags = number(field, u64::MAX, "table flags")?;
    if flags & !FLAGS != 0 {
        return Err(EditError::Unsupported(format!("table flags {flags:#x}")));
    }
    let smallest_sequence = number(field, SEQUENCE_MAX, "smallest sequence")?;
    let span = number(field, SEQUENCE_MAX - smallest_sequence, "sequence span")?;
    let smallest = field.bytes().ok_or(EditError::Corrupt("smallest key"))?;
    let largest = field.bytes().ok_or(EditError::Corrupt("largest key"))?;
    let (expiring, half_expired_at) = if flags & FLAG_EXPIRING == 0 {
        (0, u64::MAX)
    } else {
        let expiring = number(field, entries, "count of expiring records")?;
        let expiring = Some(expiring).filter(|&count| count > 0);
        let expiring = expiring.ok_or(EditError::Corrupt("count of expiring records"))?;
        (expiring, number(field, u64::MAX, "time of expiry")?)
    };
    let values = if flags & FLAG_SEPARATED == 0 {
        Vec::new()
    } else {
        let shares = decode_shares(field).filter(|shares| !shares.is_empty());
        shares.ok_or(EditError::Corrupt("value files of a table"))?
    };
    let meta = TableMeta {
        number: table_number,
        file_bytes,
        entries,
        deletions,
        expiring,
        half_expired_at,
        values,
        range_tombstones,
        raw_bytes,
        smallest: smallest.to_vec(),
        largest: largest.to_vec(),
        largest_exclusive: flags & FLAG_LARGEST_EXCLUSIVE != 0,
        smallest_sequence,
        largest_sequence: smallest_sequence + span,
    };
    check_bounds(&meta).map_err(EditError::Corrupt)?;
    Ok((level, meta))
}

/// The rules that the bounds of every table obey.
pub(crate) fn check_bounds(meta: &TableMeta) -> Result<(), &'static str> {
    let smallest = meta.smallest.as_slice();
    let largest = meta.largest.as_slice();
    if !(KEYSPACE_PREFIX_BYTES..=FULL_KEY_BYTES_MAX).contains(&smallest.len()) {
        return Err("length of the smallest key");
    }
    // The exclusive end of a range tombstone may be the successor of a longest key.
    if largest.len() > FULL_KEY_BYTES_MAX + 1 {
        return Err("length of the largest key");
    }
    if smallest > largest || (smallest == largest && meta.largest_exclusive) {
        return Err("the smallest key is after the largest");
    }
    if meta.smallest_sequence > meta.largest_sequence {
        return Err("the smallest sequence is after the largest");
    }
    // A tombstone up to the end of a keyspace ends, exclusively, at the first possible key of the next one.
    let keyspace = meta.keyspace();
    let next_prefix = keyspace.0.checked_add(1).map(|id| KeyspaceId(id).prefix());
    let inside = KeyspaceId::of(largest) == Some(keyspace)
        || (meta.largest_exclusive && next_prefix.is_none_or(|next| largest <= next.as_slice()));
    if inside { Ok(()) } else { Err("the table spans keyspaces") }
}

//! Batches on their way into the log.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rustlite_io::{FileSystem as _, SimFileSystem};

use super::Rules;
use super::expiry::{lifetime, split};
use crate::batch::{Records, WriteBatch};
use crate::key::{KeyspaceId, ValueKind};
use crate::manifest::edit::KeyspaceDescriptor;
use crate::options::KeyspaceOptions;

fn rules(options: KeyspaceOptions) -> Arc<Rules> {
    let rules = Rules::new(SimFileSystem::new(1).clock());
    rules.learn(&KeyspaceDescriptor { id: KeyspaceId::DEFAULT, name: "default".into(), options });
    rules
}

#[test]
fn lifetimes_become_times_and_everything_else_stays() {
    let mut batch = WriteBatch::new();
    batch.put("a", "1").delete("b").delete_range("c", "d");
    let plain = batch.clone();
    batch.put_expiring("e", "2", Duration::from_secs(5));
    let rules = rules(KeyspaceOptions::new());
    assert!(matches!(rules.complete(&plain), Ok(Cow::Borrowed(_))), "nothing to copy");
    let complete = rules.complete(&batch).unwrap();
    assert_eq!((complete.len(), complete.size_bytes()), (batch.len(), batch.size_bytes()));
    let records: Vec<_> = Records::new(complete.bytes()).map(Result::unwrap).collect();
    assert_eq!(records[..3], Records::new(plain.bytes()).map(Result::unwrap).collect::<Vec<_>>());
    assert_eq!(records[3].kind, ValueKind::PutExpiring);
    assert_eq!(split(records[3].value).unwrap(), (rules.now() + 5000, &b"2"[..]));
}

#[test]
fn a_keyspace_gives_its_lifetime_to_values_without_one() {
    let rules = rules(KeyspaceOptions::new().default_ttl(Duration::from_secs(60)));
    let mut batch = WriteBatch::new();
    batch.put("a", "1").put_expiring("b", "2", Duration::MAX).delete("c");
    let complete = rules.complete(&batch).unwrap();
    let records: Vec<_> = Records::new(complete.bytes()).map(Result::unwrap).collect();
    assert_eq!(split(records[0].value).unwrap(), (rules.now() + 60_000, &b"1"[..]));
    assert_eq!(split(records[1].value).unwrap(), (u64::MAX, &b"2"[..]));
    assert_eq!((records[2].kind, records[2].value), (ValueKind::Delete, &b""[..]));
}

#[test]
fn lifetimes_are_rounded_up() {
    assert_eq!(lifetime(Duration::ZERO), 0);
    assert_eq!(lifetime(Duration::from_nanos(1)), 1);
    assert_eq!(lifetime(Duration::from_micros(2001)), 3);
    assert_eq!(lifetime(Duration::MAX), u64::MAX);
}

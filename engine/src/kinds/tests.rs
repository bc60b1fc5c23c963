//! Batches on their way into the log.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rustlite_io::{FileSystem as _, SimFileSystem};

use super::Rules;
use super::expiry::{lifetime, split};
use super::operator::{Chain, MergeOperator};
use super::ready_made::{Append, U64Add, ready_made};
use crate::batch::{Records, WriteBatch};
use crate::error::ErrorKind;
use crate::key::{KeyspaceId, Trailer, ValueKind};
use crate::manifest::LiveFiles;
use crate::manifest::edit::KeyspaceDescriptor;
use crate::options::{KeyspaceOptions, Options};
use crate::values::ValueFiles;

fn no_values() -> Arc<ValueFiles> {
    ValueFiles::new(&LiveFiles::new(|| ()))
}

fn rules(options: KeyspaceOptions) -> Arc<Rules> {
    let rules = Rules::new(SimFileSystem::new(1).clock(), &no_values(), &Options::new());
    rules.learn(&KeyspaceDescriptor {
        id: KeyspaceId::DEFAULT,
        name: "default".into(),
        options,
        index: None,
    });
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

#[test]
fn operands_need_an_operator_and_do_not_meet_lifetimes() {
    let mut merge = WriteBatch::new();
    merge.merge("a", "1");
    let mut expiring = WriteBatch::new();
    expiring.put_expiring("a", "1", Duration::from_secs(1));
    let without = rules(KeyspaceOptions::new());
    let with = rules(KeyspaceOptions::new().merge_operator(Append::NAME));
    let refused = |rules: &Rules, batch| rules.complete(batch).unwrap_err().kind();
    assert_eq!(refused(&without, &merge), ErrorKind::InvalidArgument);
    assert_eq!(refused(&with, &expiring), ErrorKind::InvalidArgument);
    assert!(matches!(with.complete(&merge), Ok(Cow::Borrowed(_))));
}

/// All ways to apply operands in steps give the same.
fn check_laws(operator: &dyn MergeOperator, base: Option<&[u8]>, operands: &[&[u8]]) {
    let full = |base: Option<&[u8]>, operands: &[&[u8]]| {
        operator.full_merge(b"k", base, operands).unwrap()
    };
    let all = full(base, operands);
    for cut in 0..=operands.len() {
        let (older, newer) = operands.split_at(cut);
        let value = full(base, older);
        let base = if cut == 0 { base } else { Some(&*value) };
        assert_eq!(full(base, newer), all, "{} cut at {cut}", operator.name());
    }
    let mut chain = Chain::default();
    for (number, operand) in operands.iter().enumerate().rev() {
        chain.push(Trailer::new(number as u64 + 1, ValueKind::Merge), operand);
    }
    let combined = chain.combined(b"\0\0\0\0k", operator);
    assert_eq!(combined.iter().count(), 1, "{}", operator.name());
    assert_eq!(combined.newest().unwrap().sequence(), operands.len() as u64);
    assert_eq!(combined.applied_to(b"\0\0\0\0k", base, operator).unwrap(), all);
}

#[test]
fn ready_made_operators_obey_the_laws() {
    let numbers: Vec<[u8; 8]> = [7, u64::MAX, 1 << 40].map(u64::to_le_bytes).into();
    let operands: Vec<&[u8]> = numbers.iter().map(|bytes| &bytes[..]).collect();
    for base in [None, Some(&numbers[1][..])] {
        for operator in ready_made() {
            check_laws(&*operator, base, &operands);
        }
    }
    let error = U64Add.full_merge(b"k", None, &[b"123"]).unwrap_err();
    assert!(error.to_string().contains("3 bytes"), "{error}");
    assert_eq!(U64Add.partial_merge(b"k", &[0; 8], b"123"), None);
}

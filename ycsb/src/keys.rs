//! Shapes of keys, and the order in which a load inserts them.
//!
//! YCSB's keys are one shape among several: engines differ in what they make of common prefixes,
//! of keys that grow, and of long keys.

use crate::distribution::fnv_hash;
use crate::rng::Rng;
use serde::{Deserialize, Serialize};

/// Bytes that all keys of [`KeyShape::LongPrefix`] begin with: what a path or a tenant's name with
/// a table's and a column's would be.
const LONG_PREFIX: &[u8; 184] = b"/organisations/example.com/departments/engineering/projects/\
storage/environments/production/regions/eu-central-1/clusters/000017/databases/customers/\
tables/orders/partitions/2026-11-25";

/// Stream of the random source that shuffles a load.
const SHUFFLE_STREAM: u64 = u64::MAX - 1;

/// What keys look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum KeyShape {
    /// YCSB's own: `user` and a hash in decimal, about 23 bytes.
    #[default]
    Ycsb,
    /// A random UUID as text, 36 bytes.
    Uuid,
    /// The record number, 8 bytes, big-endian.
    Sequential,
    /// 184 bytes that all keys share, then a hash in hexadecimal: 200 bytes.
    LongPrefix,
}

/// In which order a load inserts its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LoadOrder {
    /// Without any order among the keys.
    #[default]
    Random,
    /// Smallest key first.
    Key,
}

impl KeyShape {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ycsb => "ycsb",
            Self::Uuid => "uuid",
            Self::Sequential => "sequential",
            Self::LongPrefix => "long-prefix",
        }
    }

    /// Writes the key of `record` into `key`. Different records have different keys.
    pub fn write(self, key: &mut Vec<u8>, record: u64) {
        key.clear();
        match self {
            Self::Ycsb => {
                key.extend_from_slice(b"user");
                push_decimal(key, fnv_hash(record));
            }
            Self::Uuid => push_uuid(key, record),
            Self::Sequential => key.extend_from_slice(&record.to_be_bytes()),
            Self::LongPrefix => {
                key.extend_from_slice(LONG_PREFIX);
                push_hexadecimal(key, fnv_hash(record), 16);
            }
        }
    }

    /// Writes a key that no record has, close behind that of `record`.
    pub fn write_absent(self, key: &mut Vec<u8>, record: u64) {
        self.write(key, record);
        key.push(b'-');
    }

    /// The numbers `0..records` in the order in which a load inserts them, or `None` if that is
    /// their own order.
    #[must_use]
    pub fn load_order(self, order: LoadOrder, records: u64, seed: u64) -> Option<Vec<u64>> {
        match (self, order) {
            // These are hashes: in the order of the numbers their keys have none.
            (Self::Ycsb | Self::Uuid | Self::LongPrefix, LoadOrder::Random)
            | (Self::Sequential, LoadOrder::Key) => None,
            (Self::Sequential, LoadOrder::Random) => {
                let mut numbers: Vec<u64> = (0..records).collect();
                let mut rng = Rng::new(seed, SHUFFLE_STREAM);
                for last in (1..numbers.len()).rev() {
                    numbers.swap(last, rng.below(last as u64 + 1) as usize);
                }
                Some(numbers)
            }
            (_, LoadOrder::Key) => {
                let mut numbers: Vec<u64> = (0..records).collect();
                numbers.sort_by_cached_key(|number| {
                    let mut key = Vec::new();
                    self.write(&mut key, *number);
                    key.into_boxed_slice()
                });
                Some(numbers)
            }
        }
    }
}

fn push_decimal(key: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    key.extend_from_slice(&digits[start..]);
}

fn push_hexadecimal(key: &mut Vec<u8>, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        key.push(b"0123456789abcdef"[(number >> (4 * digit)) as usize & 15]);
    }
}

/// A version 4 UUID in its usual form. The record number decides all of it.
fn push_uuid(key: &mut Vec<u8>, record: u64) {
    // The first half is a bijection of the number but for the version's four bits, which the second
    // half repeats: no two records share a UUID.
    let high = Rng::new(record, 0).next_u64();
    let low = Rng::new(record, 1).next_u64();
    push_hexadecimal(key, high >> 32, 8);
    key.push(b'-');
    push_hexadecimal(key, high >> 16, 4);
    key.extend_from_slice(b"-4");
    push_hexadecimal(key, high, 3);
    key.extend_from_slice(b"-9");
    push_hexadecimal(key, high >> 12, 1);
    push_hexadecimal(key, low >> 56, 2);
    key.push(b'-');
    push_hexadecimal(key, low, 12);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [KeyShape; 4] =
        [KeyShape::Ycsb, KeyShape::Uuid, KeyShape::Sequential, KeyShape::LongPrefix];

    fn key(shape: KeyShape, record: u64) -> Vec<u8> {
        let mut key = b"left over".to_vec();
        shape.write(&mut key, record);
        key
    }

    #[test]
    fn first_keys_are_those_that_ycsb_loads_first() {
        assert_eq!(key(KeyShape::Ycsb, 0), b"user6284781860667377211");
        assert_eq!(key(KeyShape::Ycsb, 1), b"user8517097267634966620");
    }

    #[test]
    fn every_shape_has_its_length_and_gives_each_record_a_key_of_its_own() {
        for shape in SHAPES {
            let mut keys: Vec<Vec<u8>> = (0..20_000).map(|record| key(shape, record)).collect();
            let lengths = match shape {
                KeyShape::Ycsb => 5..=24,
                KeyShape::Uuid => 36..=36,
                KeyShape::Sequential => 8..=8,
                KeyShape::LongPrefix => 200..=200,
            };
            assert!(keys.iter().all(|key| lengths.contains(&key.len())), "{shape:?}");
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 20_000, "{shape:?}");
        }
        let uuid = String::from_utf8(key(KeyShape::Uuid, 7)).unwrap();
        let dashes: Vec<usize> = uuid.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!(dashes, [8, 13, 18, 23], "{uuid}");
    }

    #[test]
    fn absent_keys_are_those_of_no_record_but_lie_among_them() {
        for shape in SHAPES {
            let mut keys: Vec<Vec<u8>> = (0..1000).map(|record| key(shape, record)).collect();
            keys.sort();
            let mut absent = Vec::new();
            shape.write_absent(&mut absent, 500);
            assert!(keys.binary_search(&absent).is_err(), "{shape:?}");
            assert!(keys[0] < absent, "{shape:?}");
        }
    }

    #[test]
    fn load_orders_are_permutations_sorted_by_key_or_not_at_all() {
        for shape in SHAPES {
            let mut keys = [Vec::new(), Vec::new()];
            for (order, keys) in [LoadOrder::Key, LoadOrder::Random].into_iter().zip(&mut keys) {
                let numbers = shape.load_order(order, 3000, 9);
                let numbers = numbers.unwrap_or_else(|| (0..3000).collect());
                *keys = numbers.iter().map(|number| key(shape, *number)).collect::<Vec<_>>();
                let mut sorted = numbers;
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..3000), "{shape:?} {order:?}");
            }
            assert!(keys[0].is_sorted(), "{shape:?}");
            let descents = keys[1].windows(2).filter(|pair| pair[0] > pair[1]).count();
            assert!((1300..1700).contains(&descents), "{shape:?}: {descents}");
        }
    }
}

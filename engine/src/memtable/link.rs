//! The word that leads from one node of the skiplist to the next, and how it orders keys without
//! reading the next node.
//!
//! ```text
//! 63            48 47            32 31                       0
//! +---------------+----------------+--------------------------+
//! |  next bytes   |  shared bytes  |  address of the next node|
//! +---------------+----------------+--------------------------+
//! shared bytes: how many bytes the two keys have in common at their start; 65535 stands for that
//!               many or more
//! next bytes:   the two bytes of the next key behind those, big-endian, zeros behind its end, and
//!               zero if the shared bytes are 65535
//! ```
//!
//! Guarantees: a link depends on nothing but the two keys and the address, which never change; a
//! decision made from a link is the one that reading the next key would give. Zero is no link.

#![forbid(unsafe_code)]

use super::arena::Address;

/// Longer common parts are not told apart.
const SHARED_MAX: usize = 0xffff;

/// How a node lies to the target of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Strictly before the target.
    Before,
    /// At the target or behind it.
    NotBefore,
}

/// A link to the node at `address` with key `key`, which shares `shared` bytes with the key of the
/// node that the link is in.
#[inline]
pub(crate) fn join(address: Address, key: &[u8], shared: usize) -> u64 {
    let next_bytes = if shared < SHARED_MAX { u64::from(pair(key, shared)) } else { 0 };
    next_bytes << 48 | (saturate(shared) as u64) << 32 | u64::from(address.0)
}

/// The node that the link leads to, or null.
#[inline(always)]
pub(crate) fn address(link: u64) -> Address {
    Address(link as u32)
}

/// How many bytes the keys share, as far as a link can say.
#[inline(always)]
pub(crate) fn shared(link: u64) -> usize {
    (link >> 32) as usize & SHARED_MAX
}

/// A length as a link would say it.
#[inline(always)]
pub(crate) fn saturate(shared: usize) -> usize {
    shared.min(SHARED_MAX)
}

/// How the next key lies to `target`, and how many bytes it shares with it, if the link can tell.
///
/// `own` is how many bytes the target shares with the key of the node that the link is in, which is
/// before the target.
#[inline(always)]
pub(crate) fn order(link: u64, target: &[u8], own: usize) -> Option<(Order, usize)> {
    let own_said = saturate(own);
    let shared = shared(link);
    if shared > own_said {
        // Where this key and the target differ, the next key is still like this key.
        return Some((Order::Before, own));
    }
    if shared < own_said {
        // Where the next key gets larger than this key, the target is still like this key.
        return Some((Order::NotBefore, shared));
    }
    if own_said == SHARED_MAX {
        return None;
    }
    let next_bytes = (link >> 48) as u16;
    let target_bytes = pair(target, own);
    let first_differs = (next_bytes ^ target_bytes) >> 8 != 0;
    // Equal first bytes may be zeros behind an end; then only the key itself knows how much is
    // shared.
    if next_bytes == target_bytes || (!first_differs && next_bytes >> 8 == 0) {
        return None;
    }
    let order = if next_bytes < target_bytes { Order::Before } else { Order::NotBefore };
    Some((order, own + usize::from(!first_differs)))
}

/// How many bytes two keys have in common at their start, of which `known` bytes need not be
/// compared.
#[inline]
pub(crate) fn common(a: &[u8], b: &[u8], known: usize) -> usize {
    let length = a.len().min(b.len());
    debug_assert!(known <= length);
    let (a, b) = (&a[..length], &b[..length]);
    let mut at = known;
    while let (Some(x), Some(y)) = (a[at..].first_chunk(), b[at..].first_chunk()) {
        let difference = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if difference != 0 {
            return at + (difference.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

/// Two bytes of a key, zeros behind its end.
#[inline(always)]
fn pair(key: &[u8], at: usize) -> u16 {
    match key.get(at..) {
        Some([first, second, ..]) => u16::from_be_bytes([*first, *second]),
        Some([last]) => u16::from_be_bytes([*last, 0]),
        _ => 0,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// All keys of up to four letters, zero and 255 among them.
    fn keys() -> Vec<Vec<u8>> {
        let letters: &[u8] = if cfg!(miri) { &[0, 7] } else { &[0, 1, 255] };
        let mut keys = vec![Vec::new()];
        for length in 0..4 {
            let longer: Vec<Vec<u8>> = keys
                .iter()
                .filter(|key: &&Vec<u8>| key.len() == length)
                .flat_map(|key| letters.iter().map(|letter| [key.as_slice(), &[*letter]].concat()))
                .collect();
            keys.extend(longer);
        }
        keys.sort();
        keys
    }

    fn naive_common(a: &[u8], b: &[u8]) -> usize {
        a.iter().zip(b).take_while(|(x, y)| x == y).count()
    }

    #[test]
    fn what_a_link_tells_is_true_for_all_small_keys() {
        let keys = keys();
        let mut told = 0;
        for (index, own) in keys.iter().enumerate() {
            for next in &keys[index..] {
                let link = join(Address(5), next, naive_common(own, next));
                assert_eq!(address(link), Address(5));
                for target in &keys[index..] {
                    let Some((order, shared)) = order(link, target, naive_common(own, target))
                    else {
                        continue;
                    };
                    told += 1;
                    let before = next < target;
                    assert_eq!(order == Order::Before, before, "{own:?} {next:?} {target:?}");
                    assert_eq!(shared, naive_common(next, target), "{own:?} {next:?} {target:?}");
                }
            }
        }
        assert!(told > keys.len(), "links tell nothing");
    }

    #[test]
    fn common_parts_beyond_what_a_link_can_say_are_never_guessed() {
        let long = |end: &[u8]| [&[b'x'; SHARED_MAX + 3][..], end].concat();
        let (own, next, target) = (long(b"a"), long(b"c"), long(b"b"));
        let shared = common(&own, &next, 0);
        assert_eq!(shared, SHARED_MAX + 3);
        let link = join(Address(1), &next, shared);
        assert_eq!(order(link, &target, common(&own, &target, 0)), None);
        // A target that leaves the common part earlier is still ordered.
        let mut early = own.clone();
        early[100] = b'y';
        assert_eq!(order(link, &early, 100), Some((Order::Before, 100)));
    }

    #[test]
    fn common_parts_of_all_lengths_are_found() {
        for length in 0..40 {
            for at in 0..length {
                let a = vec![1; length];
                let mut b = a.clone();
                b[at] = 9;
                for known in 0..=at {
                    assert_eq!(common(&a, &b, known), at);
                }
                assert_eq!(common(&a, &a[..at], 0), at);
            }
        }
    }
}

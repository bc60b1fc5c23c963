//! Blocked Bloom filters: a probe costs one cache line.
//!
//! ```text
//! filter = line [u8; 64]*          512 bits each; high bits of a key's hash choose the line, low bits the bits in it
//!          lines u32
//!          probes u8               bits per key that are set and tested
//!          reserved [u8; 3]        zero
//! ```
//!
//! A filter never denies a key that was added. The key's hash is computed once by the caller and serves all tables.

use crate::simd::prefetch;

/// One cache line.
const LINE_BYTES: usize = 64;

/// Lines and probes, behind the lines.
const FOOT_BYTES: usize = 8;

/// More probes cost time and gain nothing within one line.
const PROBES_MAX: u8 = 16;

/// Spreads 32 bits of hash; odd, so that no probe loses information.
const PROBE_MULTIPLIER: u32 = 0x9e37_79b9;

/// Probes that make the fewest false positives. Fewer than for an unblocked filter, because lines fill unevenly.
fn probes_for(bits_per_key: u32) -> u8 {
    (bits_per_key * 6 / 10).clamp(1, u32::from(PROBES_MAX)) as u8
}

/// Bytes of a filter for `keys` keys.
pub(super) fn filter_bytes(keys: usize, bits_per_key: u32) -> usize {
    (keys * bits_per_key as usize).div_ceil(LINE_BYTES * 8) * LINE_BYTES + FOOT_BYTES
}

/// The line of `hash` among `lines`.
#[inline]
fn line_of(hash: u64, lines: u32) -> usize {
    ((u128::from(hash) * u128::from(lines)) >> 64) as usize
}

/// Appends the filter of the keys with these hashes to `out`. `hashes` must not be empty.
pub(super) fn build_filter(hashes: &[u64], bits_per_key: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let bytes = filter_bytes(hashes.len(), bits_per_key) - FOOT_BYTES;
    let lines = (bytes / LINE_BYTES) as u32;
    let probes = probes_for(bits_per_key);
    out.resize(start + bytes, 0);
    for &hash in hashes {
        let line = start + line_of(hash, lines) * LINE_BYTES;
        let mut bits = hash as u32;
        for _ in 0..probes {
            bits = bits.wrapping_mul(PROBE_MULTIPLIER);
            let bit = (bits >> 23) as usize;
            out[line + bit / 8] |= 1 << (bit % 8);
        }
    }
    out.extend_from_slice(&lines.to_le_bytes());
    out.extend_from_slice(&[probes, 0, 0, 0]);
}

/// Where a filter's lines are in a file, and how to test them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    at: usize,
    lines: u32,
    probes: u8,
}

impl Filter {
    /// Reads the foot of the filter whose payload begins at byte `at` of the file.
    pub(super) fn parse(payload: &[u8], at: usize) -> Option<Self> {
        let (lines_bytes, foot) = payload.split_last_chunk::<FOOT_BYTES>()?;
        let [a, b, c, d, probes, ..] = *foot;
        let lines = u32::from_le_bytes([a, b, c, d]);
        let fits = lines as usize == lines_bytes.len() / LINE_BYTES
            && lines_bytes.len().is_multiple_of(LINE_BYTES)
            && lines > 0
            && (1..=PROBES_MAX).contains(&probes);
        fits.then_some(Self { at, lines, probes })
    }

    #[inline]
    fn line<'a>(&self, file: &'a [u8], hash: u64) -> Option<&'a [u8; LINE_BYTES]> {
        file.get(self.at + line_of(hash, self.lines) * LINE_BYTES..)?.first_chunk()
    }

    /// Starts bringing in the line that [`may_contain`](Self::may_contain) will read.
    #[inline]
    pub(super) fn prefetch(&self, file: &[u8], hash: u64) {
        if let Some(line) = self.line(file, hash) {
            prefetch(line);
        }
    }

    /// False only if no key with this hash was added.
    #[inline]
    pub(super) fn may_contain(&self, file: &[u8], hash: u64) -> bool {
        let Some(line) = self.line(file, hash) else { return true };
        let mut bits = hash as u32;
        for _ in 0..self.probes {
            bits = bits.wrapping_mul(PROBE_MULTIPLIER);
            let bit = (bits >> 23) as usize;
            if line[bit / 8] & (1 << (bit % 8)) == 0 {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hash_key;

    fn hashes(from: u64, count: u64) -> Vec<u64> {
        (from..from + count).map(|number| hash_key(&number.to_be_bytes())).collect()
    }

    #[test]
    fn added_keys_are_never_denied_and_few_others_pass() {
        // What 5, 10, 16 and 32 bits a key promise, with room for chance.
        for (bits_per_key, most) in [(5, 0.13), (10, 0.014), (16, 0.0025), (32, 0.000_15)] {
            let added = hashes(0, 50_000);
            let mut file = vec![0; 64];
            build_filter(&added, bits_per_key, &mut file);
            assert_eq!(file.len() - 64, filter_bytes(added.len(), bits_per_key));
            let filter = Filter::parse(&file[64..], 64).unwrap();
            assert!(added.iter().all(|&hash| filter.may_contain(&file, hash)));
            let others = hashes(1 << 40, 200_000);
            let passed = others.iter().filter(|&&hash| filter.may_contain(&file, hash)).count();
            let rate = passed as f64 / others.len() as f64;
            assert!(rate <= most, "{bits_per_key} bits a key: {rate}");
            assert!(rate >= most / 8.0, "{bits_per_key} bits a key: {rate} is too good to be true");
        }
    }

    #[test]
    fn filter_with_wrong_foot_is_refused() {
        let mut good = Vec::new();
        build_filter(&hashes(0, 100), 10, &mut good);
        assert!(Filter::parse(&good, 0).is_some());
        for len in 0..good.len() {
            assert!(Filter::parse(&good[..len], 0).is_none(), "{len}");
        }
        let probes_at = good.len() - 4;
        for probes in [0, PROBES_MAX + 1, 255] {
            good[probes_at] = probes;
            assert!(Filter::parse(&good, 0).is_none());
        }
    }
}

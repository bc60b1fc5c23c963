//! Random numbers that a seed replays.

/// The seed of this run: `RUSTLITE_TEST_SEED`, or one from the system's source of randomness.
pub(crate) fn seed() -> u64 {
    let from_environment =
        std::env::var("RUSTLITE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    from_environment
        .unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64))
}

/// SplitMix64: small, good enough, and every seed is a good one.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator whose numbers depend on all parts of the seed.
    pub(crate) fn new(parts: &[u64]) -> Self {
        let mut random = Self(0x5eed);
        for &part in parts {
            random.0 ^= part;
            random.0 = random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

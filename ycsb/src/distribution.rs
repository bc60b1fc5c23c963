//! The request distributions of YCSB: zipfian, scrambled zipfian, latest and uniform, with YCSB's
//! own parameters.
//!
//! Guarantees: every drawn number is inside the range asked for; the same seed draws the same
//! numbers; the shapes are checked against the expected probability mass in the tests below.
//!
//! The zipfian generator is the rejection-free one of Gray et al., "Quickly Generating
//! Billion-Record Synthetic Databases" (SIGMOD 1994), which needs the generalised harmonic number
//! `zeta(n, theta)` of the item count.

use crate::rng::Rng;

/// YCSB's zipfian constant: item `i` is drawn with a probability proportional to `1 / i^0.99`.
pub const ZIPFIAN_THETA: f64 = 0.99;

/// YCSB draws scrambled zipfian numbers from ten billion items, however many records there are, and
/// folds them onto the records by hashing. The popularity curve thus doesn't depend on the size of
/// the data set.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;

/// `zeta(10_000_000_000, 0.99)`, which would take minutes to compute.
const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;

/// FNV-1a, 64 bits, over the eight little-endian bytes of `value`, as an absolute value: YCSB's
/// hash for keys.
#[must_use]
pub fn fnv_hash(value: u64) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for octet in value.to_le_bytes() {
        hash ^= u64::from(octet);
        hash = hash.wrapping_mul(0x0100_0000_01B3);
    }
    hash.cast_signed().unsigned_abs()
}

/// `zeta(to) - zeta(from)`: the sum of `1 / i^theta` for `i` in `from + 1 ..= to`.
fn zeta_increment(from: u64, to: u64, theta: f64) -> f64 {
    (from + 1..=to).map(|item| (item as f64).powf(-theta)).sum()
}

/// Draws from `0..items`, small numbers most often. The item count may grow from draw to draw.
#[derive(Debug, Clone)]
pub struct Zipfian {
    items: u64,
    theta: f64,
    alpha: f64,
    zeta_items: f64,
    zeta_two: f64,
    eta: f64,
}

impl Zipfian {
    /// A generator over `items` items; at least one. Takes time proportional to the item count.
    #[must_use]
    pub fn new(items: u64, theta: f64) -> Self {
        let items = items.max(1);
        Self::with_zeta(items, theta, zeta_increment(0, items, theta))
    }

    fn with_zeta(items: u64, theta: f64, zeta_items: f64) -> Self {
        let zeta_two = zeta_increment(0, 2, theta);
        let alpha = 1.0 / (1.0 - theta);
        let mut zipfian = Self { items, theta, alpha, zeta_items, zeta_two, eta: 0.0 };
        zipfian.update_eta();
        zipfian
    }

    fn update_eta(&mut self) {
        let spread = 1.0 - (2.0 / self.items as f64).powf(1.0 - self.theta);
        self.eta = spread / (1.0 - self.zeta_two / self.zeta_items);
    }

    /// Extends the range to `0..items`. A smaller count changes nothing: inserted records don't go
    /// away.
    pub fn grow(&mut self, items: u64) {
        if items > self.items {
            self.zeta_items += zeta_increment(self.items, items, self.theta);
            self.items = items;
            self.update_eta();
        }
    }

    /// The next number.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let uniform = rng.next_f64();
        let scaled = uniform * self.zeta_items;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1.min(self.items - 1);
        }
        let share = (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        // Rounding can lift the largest draws onto the bound itself.
        ((self.items as f64 * share) as u64).min(self.items - 1)
    }
}

/// Draws from `0..items` with zipfian popularity, the popular ones spread over the whole range by a
/// hash.
#[derive(Debug, Clone)]
pub struct ScrambledZipfian {
    zipfian: Zipfian,
    items: u64,
}

impl ScrambledZipfian {
    /// A generator over `items` items; at least one.
    #[must_use]
    pub fn new(items: u64) -> Self {
        let zipfian = Zipfian::with_zeta(SCRAMBLED_ITEMS, ZIPFIAN_THETA, SCRAMBLED_ZETA);
        Self { zipfian, items: items.max(1) }
    }

    /// The next number.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        fnv_hash(self.zipfian.draw(rng)) % self.items
    }
}

/// Draws from the records inserted so far, the newest most often.
#[derive(Debug, Clone)]
pub struct Latest {
    zipfian: Zipfian,
}

impl Latest {
    /// A generator for `records` records loaded. Takes time proportional to the count.
    #[must_use]
    pub fn new(records: u64) -> Self {
        Self { zipfian: Zipfian::new(records, ZIPFIAN_THETA) }
    }

    /// The next number, below `acknowledged`: the count of records known to be inserted, without
    /// holes.
    pub fn draw(&mut self, rng: &mut Rng, acknowledged: u64) -> u64 {
        self.zipfian.grow(acknowledged);
        let newest = acknowledged.saturating_sub(1);
        newest - self.zipfian.draw(rng).min(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 400_000;

    fn seed() -> u64 {
        let given = std::env::var("RUSTLITE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(0x5EED);
        println!("RUSTLITE_TEST_SEED={seed}");
        seed
    }

    /// Asserts that `observed` of `DRAWS` lies within six standard deviations of `probability`.
    fn assert_mass(what: &str, observed: u64, probability: f64) {
        let expected = probability * DRAWS as f64;
        let deviation = (expected * (1.0 - probability)).sqrt();
        let off = (observed as f64 - expected).abs();
        assert!(off <= 6.0 * deviation + 1.0, "{what}: {observed} seen, {expected:.0} expected");
    }

    #[test]
    fn fnv_hash_gives_the_values_of_the_published_algorithm() {
        // FNV-1a of eight zero bytes is a8c7f832281a39c5; its absolute value as a signed number:
        assert_eq!(fnv_hash(0), 0x5738_07CD_D7E5_C63B);
        // The first keys of every YCSB load.
        assert_eq!(fnv_hash(0), 6_284_781_860_667_377_211);
        assert_eq!(fnv_hash(1), 8_517_097_267_634_966_620);
        assert_eq!(fnv_hash(2), 1_820_151_046_732_198_393);
    }

    #[test]
    fn zipfian_gives_each_item_its_share() {
        let mut rng = Rng::new(seed(), 0);
        let items = 1000;
        let zipfian = Zipfian::new(items, ZIPFIAN_THETA);
        let mut seen = vec![0u64; items as usize];
        for _ in 0..DRAWS {
            seen[zipfian.draw(&mut rng) as usize] += 1;
        }
        let zeta = zeta_increment(0, items, ZIPFIAN_THETA);
        // The generator is exact for the two most popular items and an approximation beyond.
        assert_mass("item 0", seen[0], 1.0 / zeta);
        assert_mass("item 1", seen[1], 0.5_f64.powf(ZIPFIAN_THETA) / zeta);
        for upto in [10_u64, 100, 500] {
            let mass: u64 = seen[..upto as usize].iter().sum();
            let expected = zeta_increment(0, upto, ZIPFIAN_THETA) / zeta;
            let share = mass as f64 / DRAWS as f64;
            assert!((share - expected).abs() < 0.03, "first {upto}: {share:.3}, not {expected:.3}");
        }
        assert!(seen.iter().all(|count| *count > 0), "some item was never drawn");
    }

    #[test]
    fn grown_zipfian_equals_one_made_for_the_larger_count() {
        let mut grown = Zipfian::new(10, ZIPFIAN_THETA);
        grown.grow(500);
        grown.grow(2000);
        grown.grow(100);
        let made = Zipfian::new(2000, ZIPFIAN_THETA);
        assert!((grown.zeta_items - made.zeta_items).abs() < 1e-9);
        let (mut left, mut right) = (Rng::new(3, 0), Rng::new(3, 0));
        for _ in 0..10_000 {
            assert_eq!(grown.draw(&mut left), made.draw(&mut right));
        }
    }

    #[test]
    fn scrambled_zipfian_keeps_the_shape_but_spreads_the_popular_items() {
        let mut rng = Rng::new(seed(), 1);
        let items = 10_000;
        let scrambled = ScrambledZipfian::new(items);
        let mut seen = vec![0u64; items as usize];
        for _ in 0..DRAWS {
            seen[scrambled.draw(&mut rng) as usize] += 1;
        }
        // The most popular item of ten billion has the share 1 / zeta, and lands where its hash
        // says; whatever else lands there adds about one part in ten thousand.
        let hottest = fnv_hash(0) % items;
        let expected = 1.0 / SCRAMBLED_ZETA;
        let share = seen[hottest as usize] as f64 / DRAWS as f64;
        assert!((share - expected).abs() < 0.003, "{share}, not {expected}");
        let lower: u64 = seen[..items as usize / 2].iter().sum();
        let balance = lower as f64 / DRAWS as f64;
        assert!((0.35..0.65).contains(&balance), "popular items crowd one half: {balance}");
        seen.sort_unstable_by(|a, b| b.cmp(a));
        let top: u64 = seen[..100].iter().sum();
        assert!(top as f64 / DRAWS as f64 > 0.2, "not skewed: top 1 % has {top}");
    }

    #[test]
    fn latest_prefers_the_newest_and_never_exceeds_what_is_acknowledged() {
        let mut rng = Rng::new(seed(), 2);
        let mut latest = Latest::new(1000);
        let mut newest_drawn = 0u64;
        for step in 0..DRAWS as u64 {
            let acknowledged = 1000 + step / 100;
            let drawn = latest.draw(&mut rng, acknowledged);
            assert!(drawn < acknowledged, "{drawn} of {acknowledged}");
            newest_drawn += u64::from(drawn == acknowledged - 1);
        }
        let share = newest_drawn as f64 / DRAWS as f64;
        let zeta = zeta_increment(0, 3000, ZIPFIAN_THETA);
        assert!((share - 1.0 / zeta).abs() < 0.02, "newest has {share}");
        assert_eq!(Latest::new(1).draw(&mut rng, 1), 0);
        // Fewer acknowledged than the generator was made for can't lead outside either.
        assert!((0..1000).all(|_| latest.draw(&mut rng, 5) < 5));
    }

    #[test]
    fn single_item_is_always_item_zero() {
        let mut rng = Rng::new(1, 1);
        let zipfian = Zipfian::new(1, ZIPFIAN_THETA);
        let scrambled = ScrambledZipfian::new(1);
        assert!((0..1000).all(|_| zipfian.draw(&mut rng) == 0 && scrambled.draw(&mut rng) == 0));
    }
}

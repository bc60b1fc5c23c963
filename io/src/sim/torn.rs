//! What a power cut leaves of one file's content.
//!
//! It is chosen per 512-byte sector: the outcome of a prefix of the operations that touched it,
//! because the page cache always holds the newest bytes of a sector when it writes it back. Pages
//! of 4 KiB tend to share a fate, and some are torn. The length is one that the file has had, or
//! lies on the way to one.

use std::collections::BTreeMap;

use super::file_node::{Change, FileData, Pending, SECTOR};
use super::image::Image;
use super::random::Random;

/// Sectors in a page of the page cache.
const PAGE_SECTORS: u64 = 8;

/// The durable content with some of the pending operations and some of the frames in flight.
pub(super) fn random_content(file: &FileData, seed: u64, id: u64) -> Image {
    let mut random = Random::derive(seed, id);
    let mut image = file.durable.clone();
    let keep = Fates::draw(&touched_sectors(&file.durable, &file.pending), &mut random);
    apply_pending(&mut image, &file.pending, keep);
    image.set_len(random_len(&file.durable, &file.pending, &mut random));

    for (offset, frame) in file.in_flight.values() {
        let touched = sectors(*offset, frame.len() as u64).map(|sector| (sector, 1)).collect();
        let whole_frame = Pending {
            change: Change::Write { offset: *offset, data: frame.clone() },
            written_off: false,
        };
        let keep = Fates::draw(&touched, &mut random);
        apply_pending(&mut image, std::slice::from_ref(&whole_frame), keep);
    }
    image
}

/// How many of the operations on each sector took effect.
struct Fates {
    remaining: BTreeMap<u64, u32>,
}

impl Fates {
    /// Draws for each sector a prefix of its operations: one fate for most pages, one per sector
    /// for torn ones. How often pages are kept or torn is drawn first, so that whole, lost and
    /// mixed outcomes all occur.
    fn draw(touched: &BTreeMap<u64, u32>, random: &mut Random) -> Self {
        let odds = random.below(5);
        let torn_odds = [0, 1, 4][random.below(3) as usize];
        let mut page = u64::MAX;
        let (mut is_torn, mut page_kept) = (false, false);
        let mut remaining = BTreeMap::new();
        for (&sector, &count) in touched {
            if page != sector / PAGE_SECTORS {
                page = sector / PAGE_SECTORS;
                is_torn = random.chance(torn_odds, 8);
                page_kept = random.chance(odds, 4);
            }
            let kept = match (is_torn, page_kept) {
                (true, _) => random.below(u64::from(count) + 1) as u32,
                (false, true) => count,
                (false, false) => 0,
            };
            remaining.insert(sector, kept);
        }
        Self { remaining }
    }

    /// True if the next operation on `sector` took effect.
    fn next_is_kept(&mut self, sector: u64) -> bool {
        match self.remaining.get_mut(&sector) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// The sectors of a byte range.
fn sectors(offset: u64, len: u64) -> std::ops::Range<u64> {
    let end = if len == 0 { offset / SECTOR } else { (offset + len).div_ceil(SECTOR) };
    offset / SECTOR..end
}

/// For each sector that pending operations change: how many do.
fn touched_sectors(durable: &Image, pending: &[Pending]) -> BTreeMap<u64, u32> {
    let mut touched = BTreeMap::new();
    let mut len = durable.len();
    for Pending { change, .. } in pending {
        for sector in change_range(change, &mut len) {
            *touched.entry(sector).or_insert(0) += 1;
        }
    }
    touched
}

/// The sectors that a change touches in a file of `len` bytes; sets `len` to what it is afterwards.
fn change_range(change: &Change, len: &mut u64) -> std::ops::Range<u64> {
    match change {
        Change::Write { offset, data } => {
            *len = (*len).max(offset + data.len() as u64);
            sectors(*offset, data.len() as u64)
        }
        Change::SetLen { len: new } => {
            let old = std::mem::replace(len, *new);
            // Cutting zeroes what it takes away; extending changes no bytes.
            sectors(*new, old.saturating_sub(*new))
        }
    }
}

/// Applies, sector by sector, those operations that the fates keep.
fn apply_pending(image: &mut Image, pending: &[Pending], mut fates: Fates) {
    let mut len = image.len();
    for Pending { change, .. } in pending {
        let old_len = len;
        for sector in change_range(change, &mut len) {
            if !fates.next_is_kept(sector) {
                continue;
            }
            let (start, end) = (sector * SECTOR, (sector + 1) * SECTOR);
            match change {
                Change::Write { offset, data } => {
                    let from = start.max(*offset);
                    let to = end.min(offset + data.len() as u64);
                    image.write(from, &data[(from - offset) as usize..(to - offset) as usize]);
                }
                Change::SetLen { len: new } => {
                    let (from, to) = (start.max(*new), end.min(old_len));
                    image.write(from, &[0; SECTOR as usize][..(to - from) as usize]);
                }
            }
        }
    }
}

/// A length that the file has had since it was durable, or one on the way there.
fn random_len(durable: &Image, pending: &[Pending], random: &mut Random) -> u64 {
    let mut lens = vec![durable.len()];
    let mut len = durable.len();
    for Pending { change, .. } in pending {
        change_range(change, &mut len);
        lens.push(len);
    }
    // The newest length is the likeliest one, and the one where content decides what is seen.
    if random.chance(1, 2) {
        return len;
    }
    let chosen = random.below(lens.len() as u64) as usize;
    let before = lens[chosen.saturating_sub(1)];
    let after = lens[chosen];
    if after > before && random.chance(1, 2) {
        let steps = (after - before) / SECTOR;
        return before + random.below(steps + 1) * SECTOR;
    }
    after
}

//! The few places where the processor's vector and prefetch instructions pay.
//!
//! Each has a portable form, which other architectures use and tests compare with.

/// Tags are compared this many at a time.
pub(crate) const TAG_LANES: usize = 16;

/// Bit `i` of the answer says whether `tags[i]` is `tag`.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn match_tags(tags: &[u8; TAG_LANES], tag: u8) -> u16 {
    // SAFETY: SSE2 is part of every x86-64 processor.
    unsafe { match_tags_sse2(tags, tag) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn match_tags_sse2(tags: &[u8; TAG_LANES], tag: u8) -> u16 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    let word = u128::from_le_bytes(*tags);
    // Compilers make one load of this, and it needs no pointer.
    let lanes = _mm_set_epi64x((word >> 64) as i64, word as i64);
    _mm_movemask_epi8(_mm_cmpeq_epi8(lanes, _mm_set1_epi8(tag as i8))) as u16
}

/// Bit `i` of the answer says whether `tags[i]` is `tag`.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn match_tags(tags: &[u8; TAG_LANES], tag: u8) -> u16 {
    match_tags_portable(tags, tag)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn match_tags_portable(tags: &[u8; TAG_LANES], tag: u8) -> u16 {
    let bit = |(lane, &candidate): (usize, &u8)| u16::from(candidate == tag) << lane;
    tags.iter().enumerate().map(bit).fold(0, |mask, bit| mask | bit)
}

/// Asks the processor to bring the cache line of `line`'s first byte closer. Only a hint.
#[inline]
pub(crate) fn prefetch(line: &[u8]) {
    prefetch_at(line.as_ptr());
}

/// Asks the processor to bring the cache line at an address closer, if there is one. Only a hint.
#[inline]
pub(crate) fn prefetch_at(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_and_portable_tag_matches_agree() {
        let mut state = 1_u64;
        for _ in 0..10_000 {
            let tags: [u8; TAG_LANES] = std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 61) as u8
            });
            for tag in [0, 1, 5, 7, 200] {
                assert_eq!(match_tags(&tags, tag), match_tags_portable(&tags, tag), "{tags:?}");
            }
        }
    }
}

//! Reading and writing numbers in files: little-endian, varints, length-prefixed bytes.
//!
//! [`Decoder`] never indexes past its input and never allocates from a length that it has not checked: whatever the bytes,
//! the answer is a value or `None`.

/// Appends a varint (LEB128, 7 bits a byte, low bits first).
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes with their length in front.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes that a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads a varint at the start of `input`; gives the value and its width.
#[inline]
pub(crate) fn read_varint(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    if first < 0x80 {
        return Some((u64::from(first), 1));
    }
    if let Some(chunk) = input.first_chunk()
        && let Some(read) = varint_in(u64::from_le_bytes(*chunk))
    {
        return Some(read);
    }
    read_any_varint(input)
}

/// The varint at the low end of a word, and its width, if it ends there.
#[inline]
pub(crate) fn varint_in(word: u64) -> Option<(u64, usize)> {
    let last_bytes = !word & CONTINUED;
    if last_bytes == 0 {
        return None;
    }
    let width = last_bytes.trailing_zeros() / 8 + 1;
    Some((join_groups(word & (u64::MAX >> (64 - 8 * width))), width as usize))
}

/// The highest bit of each byte of a word: in a varint, another byte follows.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// Joins the low 7 bits of each byte, the first byte lowest: neighbours, then pairs of them, then the two halves.
#[inline]
fn join_groups(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let halves = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    (halves & 0x0fff_ffff) | (halves & 0x0fff_ffff_0000_0000) >> 4
}

/// Byte by byte: near the end of the input, or longer than a word.
fn read_any_varint(input: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in input.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Takes fields off the front of a byte slice.
#[derive(Debug, Clone)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let (value, width) = read_varint(self.rest)?;
        self.rest = self.rest.get(width..)?;
        Some(value)
    }

    /// A varint that counts bytes or items, at most `max`.
    #[inline]
    pub(crate) fn varint_max(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.varint()?).ok().filter(|&value| value <= max)
    }

    /// Bytes with their length in front.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.varint_max(self.rest.len())?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_reject_overlong_input() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                assert_eq!(read_varint(&out), Some((value, out.len())));
                assert_eq!(read_varint(&out[..out.len() - 1]), None);
                let width = out.len();
                for filler in [0, 0x7f, 0x80, 0xff] {
                    out.truncate(width);
                    out.extend([filler; 8]);
                    assert_eq!(read_varint(&out), Some((value, width)), "as a word");
                }
            }
        }
        assert_eq!(read_varint(&[0xff; 11]), None);
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
    }

    #[test]
    fn bytes_never_exceed_the_input() {
        let mut decoder = Decoder::new(&[200, 1, 1, 2]);
        assert_eq!(decoder.bytes(), None);
        let mut decoder = Decoder::new(&[2, 7, 8, 9]);
        assert_eq!(decoder.bytes(), Some(&[7, 8][..]));
        assert_eq!(decoder.u8(), Some(9));
        assert!(decoder.is_empty());
    }
}

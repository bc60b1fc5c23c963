//! The bytes of one simulated file: cheap to append to, cheap to clone, and contiguous once mapped.
//!
//! An image is a list of reference-counted chunks, copied only when a shared one is written, so
//! that the live and the durable image of a file (and every crash image made from them) share what
//! is equal. Mapping a file turns the chunks into one slice that the map and the image then share.
//! Holes read as zeros and cost nothing.

use std::sync::Arc;

/// Bytes per chunk: small enough that copying one on write is cheap.
const CHUNK: usize = 16 * 1024;

/// The largest file, which bounds the chunk list whatever offsets a caller invents.
pub(super) const FILE_LEN_MAX: u64 = 1 << 38;

/// The content of a file.
#[derive(Debug, Clone)]
pub(super) struct Image {
    len: u64,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    /// Chunk `i` holds the bytes from `i * CHUNK` on; bytes past its end, and missing chunks, are
    /// zero.
    Chunks(Vec<Arc<Vec<u8>>>),
    /// The whole file in one piece, exactly `len` bytes.
    Whole(Arc<[u8]>),
}

impl Image {
    /// An empty file.
    pub(super) fn new() -> Self {
        Self { len: 0, body: Body::Chunks(Vec::new()) }
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Copies what lies at `offset` into `buf`; gives the bytes copied, short only at the end of
    /// the file.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let available = self.len.saturating_sub(offset);
        let count = usize::try_from(available).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..count];
        if count == 0 {
            return 0;
        }
        let start = offset as usize;
        match &self.body {
            Body::Whole(bytes) => buf.copy_from_slice(&bytes[start..start + count]),
            Body::Chunks(chunks) => {
                for_each_piece(start, count, |chunk, at, piece| {
                    read_chunk(chunks.get(chunk), at, &mut buf[piece]);
                });
            }
        }
        count
    }

    /// Everything, as one vector.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Puts `data` at `offset`, growing the file where needed. The caller has checked
    /// [`FILE_LEN_MAX`].
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        debug_assert!(end <= FILE_LEN_MAX, "the caller bounds offsets");
        self.len = self.len.max(end);
        let needed = (end as usize).div_ceil(CHUNK);
        let chunks = self.chunks_mut();
        if chunks.len() < needed {
            chunks.resize_with(needed, Arc::default);
        }
        for_each_piece(offset as usize, data.len(), |chunk, at, piece| {
            let bytes = Arc::make_mut(&mut chunks[chunk]);
            let piece = &data[piece];
            if bytes.len() == at {
                bytes.extend_from_slice(piece);
                return;
            }
            if bytes.len() < at + piece.len() {
                bytes.resize(at + piece.len(), 0);
            }
            bytes[at..at + piece.len()].copy_from_slice(piece);
        });
    }

    /// Cuts or extends with zeros. The caller has checked [`FILE_LEN_MAX`].
    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        let keep = (len as usize).div_ceil(CHUNK);
        let chunks = self.chunks_mut();
        chunks.truncate(keep);
        // What lies past the new end must not come back when the file grows again.
        let tail = len as usize % CHUNK;
        if tail != 0
            && let Some(last) = chunks.get_mut(keep - 1)
            && last.len() > tail
        {
            Arc::make_mut(last).truncate(tail);
        }
        self.len = len;
    }

    /// The content as one shared slice. The image keeps that slice in place of its chunks, so no
    /// second copy stays.
    pub(super) fn freeze(&mut self) -> Arc<[u8]> {
        match &mut self.body {
            Body::Whole(bytes) => Arc::clone(bytes),
            Body::Chunks(chunks) => {
                let mut whole: Arc<[u8]> = std::iter::repeat_n(0_u8, self.len as usize).collect();
                let bytes = Arc::get_mut(&mut whole).expect("a slice that nobody else has yet");
                for (chunk, target) in
                    std::mem::take(chunks).into_iter().zip(bytes.chunks_mut(CHUNK))
                {
                    target[..chunk.len()].copy_from_slice(&chunk);
                }
                self.body = Body::Whole(Arc::clone(&whole));
                whole
            }
        }
    }

    /// The shared slice, if the image is in one piece already.
    pub(super) fn whole(&self) -> Option<Arc<[u8]>> {
        match &self.body {
            Body::Whole(bytes) => Some(Arc::clone(bytes)),
            Body::Chunks(_) => None,
        }
    }

    fn chunks_mut(&mut self) -> &mut Vec<Arc<Vec<u8>>> {
        if let Body::Whole(bytes) = &self.body {
            let chunks = bytes.chunks(CHUNK).map(|chunk| Arc::new(chunk.to_vec())).collect();
            self.body = Body::Chunks(chunks);
        }
        match &mut self.body {
            Body::Chunks(chunks) => chunks,
            Body::Whole(_) => unreachable!("turned into chunks just above"),
        }
    }
}

/// Calls `visit(chunk, offset in the chunk, range in the caller's buffer)` for each chunk that a
/// range touches.
fn for_each_piece(
    start: usize,
    len: usize,
    mut visit: impl FnMut(usize, usize, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let position = start + done;
        let at = position % CHUNK;
        let count = (CHUNK - at).min(len - done);
        visit(position / CHUNK, at, done..done + count);
        done += count;
    }
}

fn read_chunk(chunk: Option<&Arc<Vec<u8>>>, at: usize, buf: &mut [u8]) {
    let stored = chunk.and_then(|bytes| bytes.get(at..)).unwrap_or_default();
    let count = stored.len().min(buf.len());
    buf[..count].copy_from_slice(&stored[..count]);
    buf[count..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn behaves_like_a_vector_of_bytes() {
        let mut random = Random::new(7);
        let (mut image, mut model) = (Image::new(), Vec::<u8>::new());
        for round in 0..2000_u64 {
            match random.below(10) {
                0 => {
                    let len = random.below(3 * CHUNK as u64) as usize;
                    image.set_len(len as u64);
                    model.resize(len, 0);
                }
                1 => assert_eq!(&*image.freeze(), &model[..], "round {round}"),
                _ => {
                    let offset = random.below(2 * CHUNK as u64) as usize;
                    let len = 1 + random.below(CHUNK as u64) as usize;
                    let data = vec![random.next() as u8; len];
                    image.write(offset as u64, &data);
                    model.resize(model.len().max(offset + len), 0);
                    model[offset..offset + len].copy_from_slice(&data);
                }
            }
            assert_eq!(image.len(), model.len() as u64);
            let offset = random.below(model.len() as u64 + 10) as usize;
            let mut buf = vec![0xee; 5000];
            let count = image.read(offset as u64, &mut buf);
            let expected = model.get(offset..).unwrap_or_default();
            assert_eq!(count, expected.len().min(5000));
            assert_eq!(buf[..count], expected[..count], "round {round}");
        }
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut image = Image::new();
        image.write(0, &[1; 100]);
        let before = image.clone();
        image.write(50, &[2; 100]);
        assert_eq!(before.to_vec(), vec![1; 100]);
        assert_eq!(image.to_vec()[50..], [2; 100]);
    }
}

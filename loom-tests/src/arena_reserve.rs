//! Two threads never get overlapping memory, nor memory that is not there.

use loom::sync::Arc;
use loom::thread;

use crate::memtable::arena::{Address, Arena, CHUNK_BYTES, SHARED_BYTES_MAX, SLOTS, UNIT_BYTES};
use crate::memtable::stock::ChunkStock;

/// Allocates, and writes all of it: what overlaps shows up in `assert_kept`.
fn allocate_and_fill(arena: &Arena, bytes: usize, with: u8) -> Option<(Address, usize, u8)> {
    let address = arena.allocate(bytes)?;
    let pointer = arena.pointer(address);
    assert!(!pointer.is_null() && pointer.addr().is_multiple_of(UNIT_BYTES));
    // SAFETY: the arena gave this memory, of this length, to this call.
    unsafe { pointer.write_bytes(with, bytes) };
    Some((address, bytes, with))
}

fn assert_kept(arena: &Arena, made: &[(Address, usize, u8)]) {
    for &(address, bytes, with) in made {
        // SAFETY: the memory was written completely, and all threads that wrote have ended.
        let contents = unsafe { std::slice::from_raw_parts(arena.pointer(address), bytes) };
        assert!(contents.iter().all(|&byte| byte == with), "somebody else wrote here");
    }
}

fn two_threads(preemptions: Option<usize>, sizes: [&'static [usize]; 2]) {
    crate::model(preemptions, move || {
        let arena = Arc::new(Arena::new(ChunkStock::new(0).into()));
        let worker = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || {
                let made = |&bytes: &usize| allocate_and_fill(&arena, bytes, 1);
                sizes[0].iter().map(made).collect::<Vec<_>>()
            })
        };
        let own: Vec<_> =
            sizes[1].iter().map(|&bytes| allocate_and_fill(&arena, bytes, 2)).collect();
        let made: Vec<_> = worker.join().unwrap().into_iter().chain(own).flatten().collect();
        assert_eq!(made.len(), sizes[0].len() + sizes[1].len(), "there was room for all");
        assert_kept(&arena, &made);
    });
}

#[test]
fn both_may_be_first_in_a_chunk() {
    two_threads(None, [&[8, 24], &[16, 8]]);
}

#[test]
fn ranges_that_cross_the_end_of_a_chunk_are_given_up() {
    const MOST: usize = SHARED_BYTES_MAX / 4 * 3;
    two_threads(Some(3), [&[MOST], &[MOST, 16]]);
}

#[test]
fn shared_and_dedicated_slots_stay_apart() {
    two_threads(Some(3), [&[CHUNK_BYTES + 8], &[SHARED_BYTES_MAX / 2, 16]]);
}

#[test]
fn the_last_slot_goes_to_one_of_two() {
    crate::model(Some(3), || {
        let arena = Arc::new(Arena::new(ChunkStock::new(0).into()));
        let first = allocate_and_fill(&arena, 8, 7).expect("there is room");
        // One slot is in use, and one is left beside these.
        let filler = allocate_and_fill(&arena, (SLOTS - 2) * CHUNK_BYTES, 8).expect("room");
        let worker = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || allocate_and_fill(&arena, CHUNK_BYTES + 1 - UNIT_BYTES, 1))
        };
        let own = allocate_and_fill(&arena, CHUNK_BYTES + 1, 2);
        let other = worker.join().unwrap();
        assert!(own.is_none(), "two slots are not left");
        let made: Vec<_> = [Some(first), Some(filler), own, other].into_iter().flatten().collect();
        assert_kept(&arena, &made);
    });
}

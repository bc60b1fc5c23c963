//! The list's links stay true through every kind of insertion.

use super::check::check_links;
use super::*;
use crate::key::ValueKind;
use crate::memtable::tests::Random;

fn trailer(sequence: u64) -> Trailer {
    Trailer::new(sequence, ValueKind::Put)
}

#[test]
fn random_inserts_with_reused_and_fresh_paths_keep_every_link_true() {
    let mut random = Random::from_environment();
    let count = if cfg!(miri) { 60 } else { 20_000 };
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let other = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let mut splice = Splice::default();
    for sequence in 1..=count {
        match random.below(20) {
            0 => splice = Splice::default(),
            // A path of another list must not be followed here.
            1 => other.insert(&random.key(), trailer(sequence), b"", &mut splice).unwrap(),
            _ => {}
        }
        list.insert(&random.key(), trailer(sequence), b"value", &mut splice).unwrap();
    }
    assert_eq!(check_links(&list), count as usize);
    check_links(&other);
}

#[test]
fn records_are_inserted_where_a_search_ahead_has_led_whatever_came_between() {
    let mut random = Random::from_environment();
    let count = if cfg!(miri) { 200 } else { 20_000 };
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let other = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let (mut splice, mut sequence, mut found) = (Splice::default(), 0, 0);
    while sequence < count {
        let number = random.below(1 << 16) << 32 | random.below(2);
        let key = number.to_be_bytes();
        let mut approach = list.set_out(&key, Trailer::NEWEST);
        let moves = [0, 4, 1000][random.below(3) as usize];
        let mut moved = 0;
        while moved < moves && list.go_on(&key, &mut approach) {
            moved += 1;
            if random.below(8) == 0 {
                // A neighbour, or another version of the key itself.
                sequence += 1;
                let near = (number + random.below(2)).to_be_bytes();
                list.insert(&near, trailer(sequence), b"", &mut splice).unwrap();
            }
        }
        assert!(moved < 1000, "a search comes to an end");
        found += u64::from(approach.is_found_in(&list));
        assert!(!approach.is_found_in(&other));
        for _ in 0..random.below(3) {
            sequence += 1;
            let near = (number + random.below(2)).to_be_bytes();
            list.insert(&near, trailer(sequence), b"", &mut splice).unwrap();
        }
        sequence += 1;
        let list = if random.below(50) == 0 { &other } else { &list };
        let made = list.make(&key, trailer(sequence), b"v").unwrap();
        list.link(made, &mut splice, &approach);
        let newest = list.seek_same_key(&key, Trailer::NEWEST).expect("it was inserted");
        assert_eq!(list.entry(newest).trailer(), trailer(sequence));
        if list.is_due_for_upkeep() {
            list.upkeep();
        }
    }
    assert!(found > count / 8, "{found} of {sequence} searches were over");
    assert_eq!((check_links(&list) + check_links(&other)) as u64, sequence);
}

#[test]
fn concurrent_inserts_by_searches_ahead_keep_every_link_true() {
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let (threads, each) = if cfg!(miri) { (3, 40) } else { (4, 8_000_u64) };
    let before = if cfg!(miri) { 80 } else { 4_000_u64 };
    let mut splice = Splice::default();
    for number in 0..before {
        let key = (number.wrapping_mul(7919) % before) << 20;
        list.insert(&key.to_be_bytes(), trailer(number + 1), b"", &mut splice).unwrap();
    }
    list.upkeep();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let list = &list;
            scope.spawn(move || {
                let mut splice = Splice::default();
                for index in 0..each {
                    // All threads go to the same few places, each with keys of its own.
                    let place = index.wrapping_mul(7919) % 60;
                    let key = (place << 20 | index << 4 | thread).to_be_bytes();
                    let mut approach = list.set_out(&key, Trailer::NEWEST);
                    while list.go_on(&key, &mut approach) {}
                    if index % 16 == 0 {
                        std::thread::yield_now();
                    }
                    let trailer = trailer(before + 1 + index * threads + thread);
                    let made = list.make(&key, trailer, b"").unwrap();
                    list.link(made, &mut splice, &approach);
                }
            });
        }
    });
    assert_eq!(check_links(&list) as u64, before + threads * each);
}

#[test]
fn sorted_and_reversed_runs_keep_every_link_true() {
    let mut random = Random::from_environment();
    let (runs, length) = if cfg!(miri) { (3, 15) } else { (60, 200) };
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let mut sequence = 0;
    let mut splice = Splice::default();
    for _ in 0..runs {
        let mut run: Vec<_> = (0..length).map(|_| random.key()).collect();
        run.sort();
        if random.below(2) == 0 {
            run.reverse();
        }
        for key in run {
            sequence += 1;
            list.insert(&key, trailer(sequence), b"", &mut splice).unwrap();
        }
    }
    assert_eq!(check_links(&list), runs * length);
}

#[test]
fn concurrent_inserts_of_neighbours_keep_every_link_true() {
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let (threads, each) = if cfg!(miri) { (3, 12) } else { (4, 8_000_u64) };
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let list = &list;
            scope.spawn(move || {
                let mut splice = Splice::default();
                for index in 0..each {
                    // All threads go through the same places, each with keys of its own.
                    let place = if thread % 2 == 0 { index } else { each - index };
                    let key = format!("{:06}/{thread}", place.wrapping_mul(7919) % 1_000);
                    let sequence = 1 + index * threads + thread;
                    // Taller than usual, so that the upper levels are fought for too.
                    let height = 1 + (index % 4) as usize;
                    let done = list.insert_at_height(
                        key.as_bytes(),
                        trailer(sequence),
                        b"",
                        &mut splice,
                        height,
                    );
                    assert_eq!(done, Ok(()));
                }
            });
        }
    });
    assert_eq!(check_links(&list) as u64, threads * each);
    assert_eq!(list.entries() as u64, threads * each);
}

#[test]
#[cfg_attr(miri, ignore = "compares megabytes, byte by byte there")]
fn keys_that_share_more_than_a_link_can_say_are_ordered() {
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let mut splice = Splice::default();
    let shared = 65_530;
    let ends: Vec<Vec<u8>> = (0..12)
        .flat_map(|length| [vec![b'a'; length], [&vec![b'a'; length][..], b"b"].concat()])
        .collect();
    for (sequence, end) in (1..).zip(&ends) {
        let key = [&vec![b'x'; shared][..], end].concat();
        list.insert(&key, trailer(sequence), end, &mut splice).unwrap();
    }
    assert_eq!(check_links(&list), ends.len());
    for (sequence, end) in (1..).zip(&ends) {
        let key = [&vec![b'x'; shared][..], end].concat();
        let found = list.seek_same_key(&key, trailer(sequence)).expect("it was inserted");
        assert_eq!(list.entry(found).value(), end);
    }
}

#[test]
fn heights_halve_from_level_to_level() {
    let nodes = if cfg!(miri) { 640 } else { 64_000_u32 };
    let mut counts = [0_u32; HEIGHT_MAX + 1];
    for sequence in 0..nodes {
        counts[random_height(u64::from(sequence) << 8 | 1)] += 1;
    }
    for height in 1..6 {
        let expected = nodes >> height;
        assert!(counts[height].abs_diff(expected) < expected / 5 + 10, "{counts:?}");
    }
}

#[test]
fn one_path_through_keys_in_no_order_is_never_followed_where_it_is_wide() {
    let mut random = Random::from_environment();
    let count = if cfg!(miri) { 200 } else { 30_000 };
    let list = SkipList::new(ChunkStock::new(0).into()).expect("there is memory");
    let mut splice = Splice::default();
    for sequence in 1..=count {
        // Enough different keys that fences are made, and now and then a neighbour of the last one.
        let number = random.below(1 << 20) << 32 | random.below(1 << 30);
        for near in 0..=random.below(4) / 3 {
            let key = (number + near).to_be_bytes();
            list.insert(&key, trailer(2 * sequence + near), b"", &mut splice).unwrap();
        }
        if list.is_due_for_upkeep() {
            list.upkeep();
        }
    }
    assert!(list.fences.current().is_some(), "the list is large enough for fences");
    check_links(&list);
}

//! The invariants of a list that nobody is changing, for tests and models.

use super::*;

/// Panics unless every level is sorted, leads only to nodes of the level below, and each link says
/// the truth about its two keys. Returns the number of records. Nobody may insert meanwhile.
pub(crate) fn check_links(list: &SkipList) -> usize {
    let mut below: Option<Vec<u32>> = None;
    let mut records = 0;
    for level in 0..list.height.load(Ordering::Relaxed) {
        let mut nodes = Vec::new();
        let mut at = list.start;
        loop {
            let link = list.node(at).follow(level);
            let next = link::address(link);
            if next == Address::NULL {
                break;
            }
            let (key, next_key) = (list.node(at).key(), list.node(next).key());
            let shared = link::common(key, next_key, 0);
            assert_eq!(link, link::join(next, next_key, shared), "a link of level {level} lies");
            if at != list.start {
                let trailer = Trailer(list.node(next).header().trailer);
                let target = Target { key: next_key, trailer };
                assert!(list.node(at).is_before(target), "level {level} is not sorted");
            }
            nodes.push(next.0);
            at = next;
        }
        if let Some(below) = below.replace(nodes.clone()) {
            let mut lower = below.iter();
            assert!(nodes.iter().all(|node| lower.any(|other| other == node)), "level {level}");
        } else {
            records = nodes.len();
        }
    }
    records
}

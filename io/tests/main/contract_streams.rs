//! What `FileSystem` promises about maps, sinks and streams, checked in every world.

use std::io::ErrorKind;

use rustlite_io::{Advice, OpenMode};

use crate::support::{Random, in_every_world, put, read_all, seed};

#[test]
fn removed_files_live_on_in_maps_and_handles() {
    in_every_world(|world| {
        let path = world.path("table");
        let content = Random(1).bytes(300_000);
        put(&*world.fs, &path, &content);
        let map = world.fs.map(&path).unwrap();
        let file = world.fs.open(&path, OpenMode::Read).unwrap();
        let mut stream = world.fs.open_stream(&path).unwrap();
        world.fs.remove(&path).unwrap();
        assert!(!world.fs.exists(&path).unwrap());
        put(&*world.fs, &path, b"another file of the same name");
        map.populate(0..map.len()).unwrap();
        assert!(*map == content[..]);
        let mut buf = vec![0; content.len()];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), content.len());
        assert!(buf == content);
        assert!(stream.read(5..299_999).unwrap() == &content[5..299_999]);
    });
}

#[test]
fn maps_check_their_ranges() {
    in_every_world(|world| {
        let path = world.path("table");
        put(&*world.fs, &path, &[7; 5000]);
        let map = world.fs.map(&path).unwrap();
        assert_eq!(map.len(), 5000);
        map.advise(Advice::Random, 0..5000);
        map.advise(Advice::WillNeed, 100..1_000_000);
        map.populate(0..0).unwrap();
        map.populate(4999..5000).unwrap();
        assert_eq!(map[4999], 7);
        let error = map.populate(4999..5001).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(map.populate(6000..6001).is_err());
    });
}

#[test]
fn sinks_write_what_was_appended_whatever_the_sizes() {
    in_every_world(|world| {
        let mut random = Random(seed());
        for (index, largest) in [10, 5000, 300_000, 3_000_000].into_iter().enumerate() {
            let path = world.path(&format!("{index}.sst"));
            let mut sink = world.fs.create_sink(&path).unwrap();
            let mut model = Vec::new();
            for _ in 0..20 {
                let len = random.below(largest) as usize;
                // A long stretch of one byte per chunk is enough to see chunks swapped, and quick
                // to make.
                let mut data = random.bytes(len.min(100));
                data.resize(len, random.next() as u8);
                sink.append(&data).unwrap();
                model.extend_from_slice(&data);
                assert_eq!(sink.position(), model.len() as u64);
            }
            sink.finish().unwrap();
            drop(sink);
            assert!(read_all(&*world.fs, &path) == model, "{}: file {index}", world.name);
        }
    });
}

#[test]
fn an_unfinished_sink_can_be_dropped() {
    in_every_world(|world| {
        let path = world.path("1.sst");
        let mut sink = world.fs.create_sink(&path).unwrap();
        for _ in 0..40 {
            sink.append(&vec![3; 100_000]).unwrap();
        }
        drop(sink);
        world.fs.remove(&path).unwrap();
        assert!(!world.fs.exists(&path).unwrap());
    });
}

#[test]
fn streams_deliver_exact_ranges_forwards() {
    in_every_world(|world| {
        let mut random = Random(seed());
        let path = world.path("table");
        let content = random.bytes(3_500_001);
        put(&*world.fs, &path, &content);
        for largest_step in [1000, 70_000, 900_000] {
            let mut stream = world.fs.open_stream(&path).unwrap();
            assert_eq!(stream.len(), content.len() as u64);
            let mut start = 0;
            while start < content.len() {
                // Ranges overlap, adjoin or leave gaps: only their starts must not go back.
                let end = (start + random.below(largest_step) as usize).min(content.len());
                let got = stream.read(start as u64..end as u64).unwrap();
                assert!(got == &content[start..end], "{}: {start}..{end}", world.name);
                start += 1 + random.below(largest_step) as usize;
            }
        }
        let mut stream = world.fs.open_stream(&path).unwrap();
        assert!(stream.read(0..content.len() as u64).unwrap() == &content[..]);
        let end = content.len() as u64;
        for past_end in [0..end + 1, end..end + 1, 5..u64::MAX] {
            let mut stream = world.fs.open_stream(&path).unwrap();
            let error = stream.read(past_end).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{}: {error}", world.name);
        }
    });
}

#[test]
fn empty_files_are_ordinary_files() {
    in_every_world(|world| {
        let path = world.path("empty");
        let mut sink = world.fs.create_sink(&path).unwrap();
        sink.append(b"").unwrap();
        sink.finish().unwrap();
        let map = world.fs.map(&path).unwrap();
        assert_eq!(map.len(), 0);
        map.populate(0..0).unwrap();
        let mut stream = world.fs.open_stream(&path).unwrap();
        assert_eq!(stream.len(), 0);
        assert_eq!(stream.read(0..0).unwrap(), b"");
        assert_eq!(stream.read(0..1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read_all(&*world.fs, &path), b"");
    });
}

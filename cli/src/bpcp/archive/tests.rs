use super::*;
use proptest::prelude::*;

/// A frame that owns what it says.
#[derive(Clone, PartialEq, Debug)]
enum Owned {
    Directory(Vec<u8>, Attributes),
    Leave,
    File(Vec<u8>, Attributes, u64),
    Data(Vec<u8>),
    Hole(u64),
    FileEnd(u64, u32),
    Link(Vec<u8>, Attributes, Vec<u8>),
    Failed(Vec<u8>),
    End,
}

fn owned(frame: &Frame<'_>) -> Owned {
    match *frame {
        Frame::Directory { name, attributes } => Owned::Directory(name.to_vec(), attributes),
        Frame::Leave => Owned::Leave,
        Frame::File { name, attributes, size } => Owned::File(name.to_vec(), attributes, size),
        Frame::Data(bytes) => Owned::Data(bytes.to_vec()),
        Frame::Hole(length) => Owned::Hole(length),
        Frame::FileEnd { size, checksum } => Owned::FileEnd(size, checksum),
        Frame::Link { name, attributes, target } => Owned::Link(name.to_vec(), attributes, target.to_vec()),
        Frame::Failed(text) => Owned::Failed(text.to_vec()),
        Frame::End => Owned::End,
    }
}

fn write(frames: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out);
    for frame in frames {
        let frame = match frame {
            Owned::Directory(name, attributes) => Frame::Directory { name, attributes: *attributes },
            Owned::Leave => Frame::Leave,
            Owned::File(name, attributes, size) => Frame::File { name, attributes: *attributes, size: *size },
            Owned::Data(bytes) => Frame::Data(bytes),
            Owned::Hole(length) => Frame::Hole(*length),
            Owned::FileEnd(size, checksum) => Frame::FileEnd { size: *size, checksum: *checksum },
            Owned::Link(name, attributes, target) => Frame::Link { name, attributes: *attributes, target },
            Owned::Failed(text) => Frame::Failed(text),
            Owned::End => Frame::End,
        };
        encode(&frame, &mut out);
        if let Frame::Data(bytes) = frame {
            out.extend_from_slice(bytes);
        }
    }
    out
}

/// Neighbouring pieces of data as one: how they are cut does not count.
fn joined(frames: &[Owned]) -> Vec<Owned> {
    let mut out: Vec<Owned> = Vec::new();
    for frame in frames {
        match (out.last_mut(), frame) {
            (Some(Owned::Data(before)), Owned::Data(more)) => before.extend_from_slice(more),
            _ => out.push(frame.clone()),
        }
    }
    out
}

fn decode(bytes: &[u8], step: usize) -> Result<Vec<Owned>, BadArchive> {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    let mut rest = bytes;
    loop {
        while let Some(frame) = decoder.next_frame()? {
            frames.push(owned(&frame));
        }
        if rest.is_empty() {
            return Ok(joined(&frames));
        }
        let room = decoder.room();
        let n = step.min(rest.len()).min(room.len());
        room[..n].copy_from_slice(&rest[..n]);
        decoder.filled(n);
        rest = &rest[n..];
    }
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..=MAX_NAME).prop_filter("a name", |name| is_name(name))
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let time = || (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    (0..=0o7777_u32, any::<u32>(), any::<u32>(), time(), time())
        .prop_map(|(mode, uid, gid, accessed, modified)| Attributes { mode, uid, gid, accessed, modified })
}

fn file() -> impl Strategy<Value = Vec<Owned>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..2000).prop_map(Owned::Data),
        (0..1_u64 << 40).prop_map(Owned::Hole),
    ];
    (names(), attributes(), any::<u64>(), proptest::collection::vec(piece, 0..5), any::<bool>()).prop_map(
        |(name, attributes, hint, pieces, whole)| {
            let (mut size, mut checksum) = (0, crc32fast::Hasher::new());
            for piece in &pieces {
                match piece {
                    Owned::Data(bytes) => {
                        size += bytes.len() as u64;
                        checksum.update(bytes);
                    }
                    Owned::Hole(length) => size += length,
                    _ => {}
                }
            }
            let end = if whole { Owned::FileEnd(size, checksum.finalize()) } else { Owned::Failed(b"why".to_vec()) };
            std::iter::once(Owned::File(name, attributes, hint)).chain(pieces).chain([end]).collect()
        },
    )
}

fn tree() -> impl Strategy<Value = Vec<Owned>> {
    let target = proptest::collection::vec(1..=255_u8, 1..100);
    let leaf = prop_oneof![
        file(),
        (names(), attributes(), target).prop_map(|(name, attributes, to)| vec![Owned::Link(name, attributes, to)]),
        Just(vec![Owned::Failed(b"a reason".to_vec())]),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        (names(), attributes(), proptest::collection::vec(inner, 0..4)).prop_map(|(name, attributes, inside)| {
            let mut frames = vec![Owned::Directory(name, attributes)];
            frames.extend(inside.into_iter().flatten());
            frames.push(Owned::Leave);
            frames
        })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(tree in tree(), step in 1..5000_usize) {
        let mut frames = tree;
        frames.push(Owned::End);
        prop_assert_eq!(decode(&write(&frames), step), Ok(joined(&frames)));
    }

    #[test]
    fn a_changed_byte_of_data_is_noticed(
        bytes in proptest::collection::vec(any::<u8>(), 1..500), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let end = Owned::FileEnd(bytes.len() as u64, crc32fast::hash(&bytes));
        let file = Owned::File(b"f".to_vec(), Attributes::default(), 0);
        let mut archive = write(&[file, Owned::Data(bytes.clone()), end]);
        let position = archive.len() - HEAD - 12 - bytes.len() + at.index(bytes.len());
        archive[position] ^= flip;
        prop_assert_eq!(decode(&archive, 100), Err(BadArchive::Damaged));
    }

    #[test]
    fn any_bytes_are_an_archive_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1..300_usize) {
        let mut archive = MAGIC.to_vec();
        archive.extend_from_slice(&bytes);
        for archive in [&bytes, &archive] {
            for frame in decode(archive, step).unwrap_or_default() {
                if let Owned::File(name, ..) | Owned::Link(name, ..) = frame {
                    prop_assert!(is_name(&name));
                }
            }
        }
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let none = Attributes::default();
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"../x", b"a\0b"] {
        let file = [Owned::File(name.to_vec(), none, 0)];
        assert_eq!(decode(&write(&file), 1000), Err(BadArchive::Name), "{name:?}");
        let link = [Owned::Link(name.to_vec(), none, b"to".to_vec())];
        assert_eq!(decode(&write(&link), 1000), Err(BadArchive::Name), "{name:?}");
        let inner = [Owned::Directory(b"d".to_vec(), none), Owned::Directory(name.to_vec(), none)];
        assert_eq!(decode(&write(&inner), 1000), Err(BadArchive::Name), "{name:?}");
    }
    let top = [Owned::Directory(Vec::new(), none), Owned::Leave, Owned::End];
    assert_eq!(decode(&write(&top), 1000), Ok(top.to_vec()), "the target itself");
}

#[test]
fn frames_have_their_places() {
    let none = Attributes::default();
    let (directory, file) = (Owned::Directory(b"d".to_vec(), none), Owned::File(b"f".to_vec(), none, 0));
    for frames in [
        vec![Owned::Leave],
        vec![Owned::Hole(3)],
        vec![Owned::Data(vec![1])],
        vec![Owned::FileEnd(0, 0)],
        vec![file.clone(), file.clone()],
        vec![file.clone(), Owned::End],
        vec![directory.clone(), Owned::End],
        vec![Owned::End, Owned::Leave],
    ] {
        assert_eq!(decode(&write(&frames), 1000), Err(BadArchive::Order), "{frames:?}");
    }
    let deep = vec![directory; MAX_DEPTH + 1];
    assert_eq!(decode(&write(&deep), 1000), Err(BadArchive::Depth));
    let long = [file.clone(), Owned::Hole(u64::MAX)];
    assert_eq!(decode(&write(&long), 1000), Err(BadArchive::Damaged));
    let short = [file, Owned::FileEnd(1, 0)];
    assert_eq!(decode(&write(&short), 1000), Err(BadArchive::Damaged));
    assert_eq!(decode(b"PK\x03\x04 something else", 1000), Err(BadArchive::Magic));
}

#[test]
fn the_bytes_stay_what_they_are() {
    let attributes = Attributes {
        mode: 0o644,
        uid: 1,
        gid: 2,
        accessed: Time { seconds: 3, nanoseconds: 4 },
        modified: Time { seconds: -1, nanoseconds: 5 },
    };
    let mut out = Vec::new();
    begin(&mut out);
    encode(&Frame::Link { name: b"l", attributes, target: b"to" }, &mut out);
    encode(&Frame::End, &mut out);
    let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
    let attributes = "a401000001000000020000000300000000000000 04000000 ffffffffffffffff 05000000".replace(' ', "");
    assert_eq!(hex, format!("62706370000100 0728000000{attributes}016c746f 0900000000").replace(' ', ""));
}

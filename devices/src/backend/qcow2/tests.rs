//! Headers that anybody may have written.

use proptest::prelude::*;

use super::fields::HeaderError;
use super::header::{Header, Mark};
use super::tables::{Table, Tables};

/// The header of a version 3 image of 1 GiB with 64 KiB clusters in a file of 1 MiB.
fn sound() -> Vec<u8> {
    let mut bytes = vec![0; 65536];
    let mut put = |at: usize, field: &[u8]| {
        bytes.splice(at..at + field.len(), field.iter().copied());
    };
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &(1_u64 << 30).to_be_bytes());
    put(36, &2_u32.to_be_bytes());
    put(40, &65536_u64.to_be_bytes());
    put(48, &131_072_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    Header::parse(bytes, 1 << 20)
}

/// The sound header with a field changed, as text.
fn refusal(at: usize, field: &[u8]) -> String {
    let mut bytes = sound();
    bytes.splice(at..at + field.len(), field.iter().copied());
    match parse(&bytes) {
        Ok(header) => panic!("accepted: {header:?}"),
        Err(HeaderError::NotQcow2) => "not qcow2".to_owned(),
        Err(HeaderError::Damaged(what) | HeaderError::Unsupported(what)) => what,
    }
}

#[test]
fn a_sound_header_is_read_and_each_broken_field_has_its_words() {
    let header = parse(&sound()).unwrap();
    assert_eq!((header.version, header.cluster_bytes, header.size_bytes), (3, 65536, 1 << 30));
    assert_eq!((header.backing, header.data_file), (None, None));
    assert_eq!(refusal(0, b"QFI!"), "not qcow2");
    assert!(
        refusal(4, &1_u32.to_be_bytes()).contains("has version 1 of qcow2, not 2 or 3; convert")
    );
    assert_eq!(refusal(20, &40_u32.to_be_bytes()), "clusters of 2^40 bytes");
    for (method, said) in [(1_u32, "(AES)"), (2, "(LUKS)"), (9, "(method 9)")] {
        let refusal = refusal(32, &method.to_be_bytes());
        assert!(refusal.contains(said) && refusal.contains("encrypt.key-secret"), "{refusal}");
    }
    assert!(refusal(24, &u64::MAX.to_be_bytes()).contains("too many for its clusters"));
    assert!(refusal(24, &(3_u64 << 30).to_be_bytes()).contains("table is too small"));
    assert!(refusal(36, &u32::MAX.to_be_bytes()).contains("too many"));
    assert!(refusal(40, &(1_u64 << 40).to_be_bytes()).contains("level-1 table is not in the file"));
    assert!(refusal(40, &65537_u64.to_be_bytes()).contains("level-1 table is not in the file"));
    assert!(
        refusal(48, &(1_u64 << 40).to_be_bytes()).contains("refcount table is not in the file")
    );
    assert!(refusal(48, &0_u64.to_be_bytes()).contains("refcount table is not in the file"));
    assert!(refusal(48, &65537_u64.to_be_bytes()).contains("refcount table is not in the file"));
    assert!(refusal(48, &65536_u64.to_be_bytes()).contains("level-1 table and the refcount table"));
    assert_eq!(refusal(56, &0_u32.to_be_bytes()), "it has no refcount table");
    assert!(refusal(56, &u32::MAX.to_be_bytes()).contains("a refcount table of 281474976645120"));
    assert!(refusal(56, &100_u32.to_be_bytes()).contains("refcount table is not in the file"));
    assert_eq!(refusal(60, &65_537_u32.to_be_bytes()), "65537 snapshots");
    assert!(refusal(60, &1_u32.to_be_bytes()).contains("snapshot table is not in the file"));
    assert_eq!(refusal(96, &7_u32.to_be_bytes()), "counts of clusters in use of 2^7 bits");
    assert_eq!(refusal(100, &108_u32.to_be_bytes()), "a header of 108 bytes");
    let longer = [&112_u32.to_be_bytes()[..], &[1]].concat();
    assert!(refusal(100, &longer).contains("compression of type 1, and no feature says so"));
    assert!(refusal(72, &16_u64.to_be_bytes()).contains("extended level-2 entries (subclusters)"));
    assert!(refusal(72, &8_u64.to_be_bytes()).contains("is compressed with type 0"));
    assert!(refusal(72, &(1_u64 << 40).to_be_bytes()).contains("features 0x10000000000 that are"));
    assert!(refusal(100, &8_u32.to_be_bytes()).contains("a header of 8 bytes"));
    let name = [&u64::MAX.to_be_bytes()[..], &4_u32.to_be_bytes()].concat();
    assert!(refusal(8, &name).contains("name leaves the header"));
    let name = [&8_u64.to_be_bytes()[..], &4_u32.to_be_bytes()].concat();
    assert!(refusal(8, &name).contains("name leaves the header"));
    let mut extension = 0xe279_2aca_u32.to_be_bytes().to_vec();
    extension.extend(u32::MAX.to_be_bytes());
    assert!(refusal(104, &extension).contains("an extension leaves the header"));
}

#[test]
fn marks_are_told_and_an_empty_disk_needs_no_table() {
    let changed = |changes: &[(usize, &[u8])]| {
        let mut bytes = sound();
        for (at, field) in changes {
            bytes.splice(*at..*at + field.len(), field.iter().copied());
        }
        parse(&bytes).unwrap()
    };
    assert_eq!(changed(&[]).mark, None);
    assert_eq!(changed(&[(72, &1_u64.to_be_bytes())]).mark, Some(Mark::Dirty));
    assert_eq!(changed(&[(72, &3_u64.to_be_bytes())]).mark, Some(Mark::Corrupt));
    let (nothing, entries) = (0_u64.to_be_bytes(), 0_u32.to_be_bytes());
    let empty = changed(&[(24, &nothing), (36, &entries), (40, &nothing)]);
    assert_eq!((empty.size_bytes, empty.tables.l1_entries()), (0, 0));
}

#[test]
fn a_snapshot_table_has_a_place_of_its_own() {
    let with = |count: u32, offset: u64| {
        let mut bytes = sound();
        bytes[60..64].copy_from_slice(&count.to_be_bytes());
        bytes[64..72].copy_from_slice(&offset.to_be_bytes());
        parse(&bytes)
    };
    let table = Table { offset: 3 << 16, len: 80 };
    assert_eq!(with(2, 3 << 16).unwrap().tables.snapshots, table);
    assert_eq!(with(0, u64::MAX).unwrap().tables.snapshots.len, 0, "nobody looks there");
    for (offset, said) in [
        (1 << 16, "the level-1 table and the snapshot table overlap"),
        (2 << 16, "the refcount table and the snapshot table overlap"),
        (1 << 20, "the snapshot table is not in the file"),
        ((3 << 16) + 8, "the snapshot table is not in the file"),
        (u64::MAX << 16, "the snapshot table is not in the file"),
    ] {
        assert_eq!(with(2, offset), Err(HeaderError::Damaged(said.to_owned())), "{offset:#x}");
    }
}

#[test]
fn entries_name_clusters_in_the_file_that_are_no_tables() {
    let header = parse(&sound()).unwrap();
    let check = |entry: u64, l1: bool| {
        let table = [(4_u64 << 16).to_be_bytes(), entry.to_be_bytes()].concat();
        let check = if l1 { Tables::check_l1 } else { Tables::check_reftable };
        check(&header.tables, &table, 1 << 20).is_ok()
    };
    for l1 in [true, false] {
        assert!(check(0, l1) && check(3 << 16, l1) && check(15 << 16, l1));
        for bad in [1, 1 << 16, 2 << 16, 16 << 16, (3 << 16) + 512, 3 << 16 | 1, 1 << 56, !0] {
            assert!(!check(bad, l1), "{bad:#x} {l1}");
        }
        assert_eq!(check(3 << 16 | 1 << 63, l1), l1, "only level 1 says that it is not shared");
    }
    let nothing = header.tables.check_reftable(&[0; 16], 1 << 20).unwrap_err();
    assert_eq!(nothing, HeaderError::Damaged("its refcounts say that the header is free".into()));
}

proptest! {
    #[test]
    fn no_header_makes_the_parser_panic(
        changes in prop::collection::vec((0_usize..300, any::<u8>()), 0..40),
        len in 0_usize..70_000,
        file_bytes in any::<u64>(),
    ) {
        let mut bytes = sound();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(len);
        if let Ok(header) = Header::parse(&bytes, file_bytes) {
            prop_assert!(header.tables.memory_bytes() < 1 << 32);
            let _ = header.tables.check_l1(&bytes, file_bytes);
            let _ = header.tables.check_reftable(&bytes, file_bytes);
        }
    }
}

//! Images that qemu-img makes and that are not what one expects: empty, of odd sizes, marked, made
//! with what is not supported.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::images::Shop;
use super::*;

#[test]
fn an_image_of_size_zero_is_an_empty_disk() {
    let Some(shop) = Shop::new() else { return };
    for (name, options) in [
        ("v3", ""),
        ("v2", "compat=0.10"),
        ("small", "cluster_size=512"),
        ("data", "data_file=data.raw"),
        ("full", "preallocation=full"),
    ] {
        shop.create(name, options, None, "0");
        for read_only in [true, false] {
            let mut open = shop.open(name, read_only).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((open.volume.size_bytes(), open.volume.warnings().len()), (0, 0), "{name}");
            let mut guest = Guest::new(open.volume.disk(1, 256));
            assert_eq!(guest.serve(&mut open.volume, 0, 0, &[writable(DATA, 512)]), 1, "{name}");
            assert_eq!(guest.serve(&mut open.volume, 4, 0, &[]), 0, "{name}: a flush");
            open.close();
        }
        shop.qemu_img(&["check", "-q", name]);
    }
    // A disk above an empty one.
    shop.create("above", "", Some(("v3", "qcow2")), "1M");
    let mut open = shop.open("above", false).unwrap();
    assert!(open.read() == vec![0; 1 << 20]);
    open.close();
}

#[test]
fn backing_files_of_odd_sizes_are_read_to_their_last_byte() {
    let Some(shop) = Shop::new() else { return };
    for len in [0, 1, 511, 513, 4095, 65_537, 300_001_usize] {
        let base: Vec<_> = (0..len).map(|n| u8::try_from(n % 250 + 1).unwrap()).collect();
        std::fs::write(shop.path("base.raw"), &base).unwrap();
        shop.create("image", "", Some(("base.raw", "raw")), "512K");
        let mut open = shop.open("image", false).unwrap_or_else(|e| panic!("{len}: {e}"));
        let mut expected = base.clone();
        expected.resize(512 << 10, 0);
        assert!(open.read() == expected, "{len}");
        let mut guest = Guest::new(open.volume.disk(1, 256));
        guest.mem.write_slice(&[7; 512], GuestAddress(DATA)).unwrap();
        let last = (len / 512) as u64;
        assert_eq!(guest.serve(&mut open.volume, 1, last, &[readable(DATA, 512)]), 0, "{len}");
        expected[len / 512 * 512..][..512].fill(7);
        assert!(open.read() == expected, "{len}: after a write");
        open.close();
        assert!(shop.contents("image") == expected, "{len}: as QEMU reads it");
        assert_eq!(std::fs::read(shop.path("base.raw")).unwrap(), base);
    }
}

#[test]
fn a_backing_file_that_begins_with_a_hole_is_read_to_its_last_byte() {
    let Some(shop) = Shop::new() else { return };
    for len in [70_001, 300_001_usize] {
        let mut base = vec![0; 1 << 20];
        base.extend((0..len).map(|n| u8::try_from(n % 250 + 1).unwrap()));
        let file = File::create(shop.path("base.raw")).unwrap();
        file.write_all_at(&base[1 << 20..], 1 << 20).unwrap();
        shop.create("image", "", Some(("base.raw", "raw")), "2M");
        let mut open = shop.open("image", false).unwrap();
        let mut expected = base.clone();
        expected.resize(2 << 20, 0);
        assert!(open.read() == expected, "{len}");
        // Every place in memory and on the disk that a guest may choose.
        let mut guest = Guest::new(open.volume.disk(1, 256));
        let last = base.len() as u64 / 512;
        for (shift, sector) in [(0, last), (1, last - 3), (511, last - 8), (4095, 2047)] {
            let at = usize::try_from(sector * 512).unwrap();
            let data = [writable(DATA + shift, 4096)];
            assert_eq!(guest.serve(&mut open.volume, 0, sector, &data), 0, "{len} {shift}");
            assert!(guest.bytes(DATA + shift, 4096) == expected[at..at + 4096], "{len} {shift}");
        }
        guest.mem.write_slice(&[7; 512], GuestAddress(DATA + 3)).unwrap();
        assert_eq!(guest.serve(&mut open.volume, 1, last, &[readable(DATA + 3, 512)]), 0, "{len}");
        let at = base.len() / 512 * 512;
        expected[at..at + 512].fill(7);
        assert!(open.read() == expected, "{len}: after a write");
        open.close();
        assert!(shop.contents("image") == expected, "{len}: as QEMU reads it");
        shop.qemu_img(&["check", "-q", "image"]);
    }
}

/// Gives an image a virtual size that no qemu-img gives.
fn set_size(shop: &Shop, name: &str, bytes: u64) {
    let file = File::options().write(true).open(shop.path(name)).unwrap();
    file.write_all_at(&bytes.to_be_bytes(), 24).unwrap();
}

#[test]
fn an_image_of_an_odd_size_has_its_last_sector() {
    let Some(shop) = Shop::new() else { return };
    for (size, options) in [(1, ""), (700, ""), (100_001, ""), (100_001, "cluster_size=512")] {
        shop.create("image", options, None, "128K");
        set_size(&shop, "image", size);
        let mut open = shop.open("image", false).unwrap_or_else(|e| panic!("{size}: {e}"));
        let whole = size.next_multiple_of(512);
        assert_eq!(open.volume.size_bytes(), whole);
        let mut guest = Guest::new(open.volume.disk(1, 256));
        for round in 0..3_u8 {
            // The first allocates, the others write in place.
            guest.mem.write_slice(&[7 + round; 512], GuestAddress(DATA)).unwrap();
            let write = guest.serve(&mut open.volume, 1, whole / 512 - 1, &[readable(DATA, 512)]);
            assert_eq!(write, 0, "{size} {options}");
            let rest = usize::try_from(size - (whole - 512)).unwrap();
            let expected = [vec![7 + round; rest], vec![0; 512 - rest]].concat();
            let all = open.read();
            assert!(all[all.len() - 512..] == expected, "{size} {options} round {round}");
        }
        open.close();
        shop.qemu_img(&["check", "-q", "image"]);
    }
}

/// Sets bits of the incompatible features.
fn mark(shop: &Shop, name: &str, bits: u8) {
    let file = File::options().read(true).write(true).open(shop.path(name)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 79).unwrap();
    file.write_all_at(&[byte[0] | bits], 79).unwrap();
}

#[test]
fn marked_images_may_be_read_with_a_warning_and_not_be_written() {
    let Some(shop) = Shop::new() else { return };
    let film = shop.film("film.raw", 3);
    for (bits, said) in [(1, "was not closed"), (2, "is marked as corrupt"), (3, "corrupt")] {
        for options in ["lazy_refcounts=on", "cluster_size=4096", "data_file=data.raw"] {
            let convert = ["convert", "-O", "qcow2", "-o", options, "film.raw", "image"];
            shop.qemu_img(&convert);
            mark(&shop, "image", bits);
            let before = std::fs::read(shop.path("image")).unwrap();
            let refusal = shop.refusal("image");
            assert!(
                refusal.contains(said) && refusal.ends_with(", or only read it: readonly = true"),
                "{refusal}"
            );
            let (_, repair) = refusal.split_once("qemu-img ").unwrap();
            let (repair, _) = repair.split_once("`,").unwrap();
            assert_eq!(repair, format!("check -r all {}", shop.path("image").display()));
            let mut open = shop.open("image", true).unwrap_or_else(|e| panic!("{bits}: {e}"));
            let warnings = open.volume.warnings();
            assert!(warnings.len() == 1 && warnings[0].contains(said), "{warnings:?}");
            assert!(open.read() == film, "{bits} {options}");
            open.close();
            // The same below an image that may be written.
            shop.create("top", "", Some(("image", "qcow2")), "");
            let mut open = shop.open("top", false).unwrap();
            assert_eq!(open.volume.warnings().len(), 1);
            assert!(open.read() == film);
            open.close();
            assert!(std::fs::read(shop.path("image")).unwrap() == before, "nothing was repaired");
        }
    }
}

#[test]
fn what_is_not_supported_is_named_with_the_way_out() {
    let Some(shop) = Shop::new() else { return };
    let refused = |said: &[&str]| {
        for read_only in [true, false] {
            let refusal = match shop.open("image", read_only) {
                Ok(_) => panic!("{said:?} was opened"),
                Err(error) => error.to_string(),
            };
            assert!(said.iter().all(|said| refusal.contains(said)), "{said:?}: {refusal}");
            let path = shop.path("image").display().to_string();
            for command in refusal.split('`').skip(1).step_by(2) {
                assert!(command.contains(&path), "{refusal}");
                if command.contains(" convert -O qcow2 -o ") {
                    let pasted = Command::new("sh").args(["-c", command]).status().unwrap();
                    assert!(pasted.success(), "{command}");
                }
            }
        }
    };
    shop.create("image", "compression_type=zstd", None, "1M");
    refused(&["compressed with zstd", "-o compression_type=zlib"]);
    shop.create("image", "extended_l2=on", None, "1M");
    refused(&["extended level-2 entries (subclusters)", "-o extended_l2=off"]);
    let secret = ["--object", "secret,id=k,data=secret", "-f", "qcow2", "-o"];
    let luks = "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10";
    shop.qemu_img(&[&["create", "-q"], &secret[..], &[luks, "image", "1M"]].concat());
    refused(&["encrypted (LUKS)", "qemu-img convert"]);
    shop.create("image", "", None, "1M");
    for (name, format, said) in [
        ("json:{\"driver\":\"raw\"}", Some("raw"), "descriptions in JSON"),
        ("json:{\"driver\":\"qcow2\"}", None, "descriptions in JSON"),
        ("nbd://127.0.0.1:1/x", Some("raw"), "the protocol nbd"),
        ("http://host/x.qcow2", Some("qcow2"), "the protocol http"),
    ] {
        // qemu-img itself wants to know the format; the check is ours.
        shop.create("image", "", None, "1M");
        shop.qemu_img(&["rebase", "-u", "-b", name, "-F", format.unwrap_or("raw"), "image"]);
        refused(&[said, "qemu-img rebase -u -b"]);
    }
    shop.film("base.raw", 1);
    shop.qemu_img(&["rebase", "-u", "-b", "file:base.raw", "-F", "raw", "image"]);
    let mut open = shop.open("image", true).unwrap();
    assert!(open.read() == std::fs::read(shop.path("base.raw")).unwrap());
    open.close();
}

#[test]
fn an_image_on_blocks_of_4096_bytes_shows_512_and_qemu_reads_what_was_written() {
    let Some(shop) = Shop::new() else { return };
    let mut model = shop.film("film.raw", 2);
    for options in ["", "cluster_size=4096", "cluster_size=512"] {
        shop.qemu_img(&[
            "convert",
            "-O",
            "qcow2",
            "-o",
            &format!("compat=1.1{}{options}", if options.is_empty() { "" } else { "," }),
            "film.raw",
            "image",
        ]);
        let mut open = shop.open("image", false).unwrap();
        open.volume.pretend_blocks(4096);
        assert_eq!(open.volume.disk(1, 256).block_size, 512);
        let deeds: Vec<_> = (0..200_u64)
            .map(|n| (many::Action::Write(u8::try_from(n).unwrap()), n * 37 % 4000, n % 12 + 1))
            .collect();
        let written = many::Many::new(&open.volume, model.clone()).run(&mut open.volume, &deeds);
        assert!(open.read() == written, "{options}");
        open.close();
        assert!(shop.contents("image") == written, "{options}");
        shop.qemu_img(&["check", "-q", "image"]);
        model = shop.film("film.raw", 2);
    }
    let said = Command::new("qemu-img").arg("--version").output().unwrap();
    assert!(said.status.success());
}

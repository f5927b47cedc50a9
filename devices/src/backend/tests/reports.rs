//! What users of other storage backends have reported, tried here. docs/faults.md says where.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::images::{Shop, processes};
use super::many::{Action, Many};
use super::sectors::Loop;
use super::*;
use crate::backend::Volume;

/// Writes, zeroes and reads of some sectors each, all over so many sectors.
fn mixture(sectors: u64, count: u64) -> Vec<(Action, u64, u64)> {
    let deed = |n: u64| {
        let (at, len) = (n * 7919 % (sectors - 400), n % 29 * 13 % 300 + 1);
        let action = match n % 9 {
            0 => Action::Zero(n.is_multiple_of(2)),
            1 => Action::Read,
            2 => Action::Flush,
            _ => Action::Write(u8::try_from(n % 200).unwrap()),
        };
        (action, at, len)
    };
    (0..count).map(deed).collect()
}

/// A file system on a device with sectors of 4096 bytes; `None` without the privilege or the tools.
struct Strict {
    folder: tempfile::TempDir,
    _device: Loop,
    _backing: tempfile::NamedTempFile,
}

impl Strict {
    fn new() -> Option<Self> {
        let backing = tempfile::NamedTempFile::new().unwrap();
        backing.as_file().set_len(256 << 20).unwrap();
        let device = Loop::new(backing.path())?;
        let made =
            Command::new("mkfs.ext4").args(["-q", "-b", "4096"]).arg(&device.device).status();
        let folder = tempfile::tempdir().unwrap();
        let none = rustix::mount::MountFlags::empty();
        let mounted = || rustix::mount::mount(&device.device, folder.path(), "ext4", none, None);
        if !made.is_ok_and(|status| status.success()) || mounted().is_err() {
            assert!(std::env::var_os("MOIRAI_REQUIRE_LOOP").is_none(), "no ext4 on it");
            eprintln!("NOT TESTED HERE: no ext4 on a device with sectors of 4096 bytes");
            return None;
        }
        Some(Self { folder, _device: device, _backing: backing })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.folder.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// cloud-hypervisor/cloud-hypervisor#8007, #8051, #7767.
#[test]
fn files_and_images_on_a_file_system_with_blocks_of_4096_bytes_take_any_request() {
    let Some(shop) = Shop::new() else { return };
    let Some(strict) = Strict::new() else { return };
    let model = shop.film("film.raw", 4);
    std::fs::copy(shop.path("film.raw"), strict.path("film.raw")).unwrap();
    let mut volume = Volume::open(&strict.path("film.raw"), false).unwrap();
    assert_eq!((volume.align(), volume.disk(1, 256).block_size), (4096, 512));
    let deeds = mixture(8 << 10, 500);
    let written = Many::new(&volume, model.clone()).run(&mut volume, &deeds);
    assert!(
        volume.counters().read_modify_writes > 0 && volume.counters().copied_by_kernel_bytes == 0
    );
    drop(volume);
    assert!(std::fs::read(strict.path("film.raw")).unwrap() == written);
    for options in ["cluster_size=65536", "cluster_size=4096", "cluster_size=512"] {
        let (from, to) = (shop.path("film.raw"), strict.path("image"));
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        shop.qemu_img(&["convert", "-O", "qcow2", "-o", options, from, to]);
        let mut volume =
            Volume::open_qcow2(strict.folder.path(), Path::new("image"), false, &processes())
                .unwrap();
        assert_eq!(volume.disk(1, 256).block_size, 512);
        let worker = volume.take_worker().unwrap();
        let worker = std::thread::spawn(|| worker.run());
        let written = Many::new(&volume, model.clone()).run(&mut volume, &deeds);
        drop(volume);
        worker.join().unwrap();
        shop.qemu_img(&["check", "-q", to]);
        assert!(shop.contents(to) == written, "{options}");
    }
}

/// cloud-hypervisor/cloud-hypervisor#8606: data and tables were written over each other.
#[test]
fn a_compressed_image_that_was_made_larger_stays_whole_while_it_fills() {
    let Some(shop) = Shop::new() else { return };
    let mut model = shop.film("film.raw", 4);
    for cluster in ["cluster_size=65536", "cluster_size=4096", "cluster_size=512,refcount_bits=1"] {
        shop.qemu_img(&["convert", "-c", "-O", "qcow2", "-o", cluster, "film.raw", "base"]);
        std::fs::copy(shop.path("base"), shop.path("image")).unwrap();
        // One bit of a reference count is not enough for several compressed clusters in one.
        shop.qemu_img(&["resize", "-q", "-f", "qcow2", "image", "24M"]);
        model.resize(24 << 20, 0);
        let mut written = model.clone();
        for _ in 0..3 {
            let mut open = shop.open("image", false).unwrap();
            written =
                Many::new(&open.volume, written).run(&mut open.volume, &mixture(48 << 10, 500));
            open.close();
            shop.qemu_img(&["check", "-q", "image"]);
            assert!(shop.contents("image") == written, "{cluster}");
        }
    }
}

/// cloud-hypervisor/cloud-hypervisor#8624: space was given back after it had a new owner.
#[test]
fn space_that_is_given_back_while_others_allocate_and_flush_is_nobody_elses() {
    let Some(shop) = Shop::new() else { return };
    for cluster in ["cluster_size=65536", "cluster_size=4096"] {
        shop.film("film.raw", 8);
        shop.qemu_img(&["convert", "-S", "0", "-O", "qcow2", "-o", cluster, "film.raw", "image"]);
        let mut model = std::fs::read(shop.path("film.raw")).unwrap();
        model.resize(16 << 20, 0);
        shop.qemu_img(&["resize", "-q", "-f", "qcow2", "image", "16M"]);
        let mut open = shop.open("image", false).unwrap();
        let deeds: Vec<_> = (0..600_u64)
            .map(|n| match n % 4 {
                0 => (Action::Zero(true), n * 5 % 120 * 128, 256),
                1 => (Action::Flush, 0, 1),
                2 => {
                    (Action::Write(u8::try_from(n % 100).unwrap()), (n * 11 + 64) % 250 * 128, 128)
                }
                _ => (Action::Write(u8::try_from(n % 50).unwrap()), n * 641 % 32_000, 9),
            })
            .collect();
        let written = Many::new(&open.volume, model).run(&mut open.volume, &deeds);
        open.close();
        shop.qemu_img(&["check", "-q", "image"]);
        assert!(shop.contents("image") == written, "{cluster}");
    }
}

/// apache/cloudstack#3193: images with snapshots inside were damaged by those who did not know
/// them.
#[test]
fn a_snapshot_inside_an_image_keeps_what_it_had() {
    let Some(shop) = Shop::new() else { return };
    for options in ["", "compat=0.10", "cluster_size=4096"] {
        let before = shop.film("film.raw", 4);
        let options = if options.is_empty() { "compat=1.1" } else { options };
        shop.qemu_img(&["convert", "-O", "qcow2", "-o", options, "film.raw", "image"]);
        shop.qemu_img(&["snapshot", "-c", "evening", "image"]);
        let mut open = shop.open("image", false).unwrap();
        let after =
            Many::new(&open.volume, before.clone()).run(&mut open.volume, &mixture(8 << 10, 400));
        open.close();
        shop.qemu_img(&["check", "-q", "image"]);
        assert!(shop.contents("image") == after, "{options}");
        shop.qemu_img(&["snapshot", "-a", "evening", "image"]);
        assert!(shop.contents("image") == before, "{options}: the snapshot");
        shop.qemu_img(&["check", "-q", "image"]);
    }
}

/// Bitmaps of what has changed are for backups. Who writes the image without noting it there has to
/// say so, or the next backup leaves out what has changed (qcow2's autoclear features).
#[test]
fn bitmaps_of_changes_are_not_believed_after_somebody_wrote_without_them() {
    let Some(shop) = Shop::new() else { return };
    let before = shop.film("film.raw", 2);
    shop.qemu_img(&["convert", "-O", "qcow2", "film.raw", "image"]);
    shop.qemu_img(&["bitmap", "--add", "image", "backup"]);
    let autoclear = |shop: &Shop| std::fs::read(shop.path("image")).unwrap()[95];
    let mut open = shop.open("image", true).unwrap();
    assert!(open.read() == before);
    open.close();
    assert_eq!(autoclear(&shop), 1, "who reads changes nothing");
    let mut open = shop.open("image", false).unwrap();
    let after = Many::new(&open.volume, before).run(&mut open.volume, &mixture(4 << 10, 50));
    open.close();
    assert_eq!(autoclear(&shop), 0);
    assert!(shop.contents("image") == after);
}

/// cloud-hypervisor/cloud-hypervisor#6349: a refcount table of another size than was expected.
#[test]
fn an_image_with_a_large_refcount_table_or_all_of_its_space_is_opened() {
    let Some(shop) = Shop::new() else { return };
    for options in [
        "preallocation=metadata",
        "preallocation=falloc,cluster_size=512",
        "refcount_bits=64,cluster_size=512,preallocation=metadata",
        "refcount_bits=1",
        "lazy_refcounts=on,preallocation=metadata",
    ] {
        shop.create("image", options, None, "64M");
        let mut open = shop.open("image", false).unwrap_or_else(|e| panic!("{options}: {e}"));
        let mut model = vec![0; 64 << 20];
        model = Many::new(&open.volume, model).run(&mut open.volume, &mixture(128 << 10, 200));
        open.close();
        shop.qemu_img(&["check", "-q", "image"]);
        assert!(shop.contents("image") == model, "{options}");
    }
}

/// cloud-hypervisor/cloud-hypervisor#7750: the probe said that such a device cannot discard.
#[test]
fn a_loop_device_with_sectors_of_4096_bytes_can_discard() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 1 << 20]).unwrap();
    let Some(device) = Loop::new(file.path()) else { return };
    let mut volume = Volume::open(&device.device, false).unwrap();
    let disk = volume.disk(1, 256);
    assert!(disk.discard && disk.write_zeroes);
    assert_eq!(disk.topology.discard_align_bytes, 4096);
    let mut guest = Guest::new(disk);
    assert_eq!(guest.serve_range(&mut volume, 11, (1, 23, 0)), 0);
    assert_eq!(guest.serve(&mut volume, 0, 0, &[writable(DATA, 16384)]), 0);
    let expected = [vec![7; 4096], vec![0; 8192], vec![7; 4096]].concat();
    assert!(guest.bytes(DATA, 16384) == expected, "whole blocks only");
}

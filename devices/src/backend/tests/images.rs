//! qcow2 images, with qemu-img as the peer: it makes them and says what they hold.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use proptest::prelude::*;
use tempfile::TempDir;

use super::many::{Action, Many, deeds};
use super::*;
use crate::backend::{Volume, VolumeError};
use crate::mock::ImageThreads;

const MIB: usize = 1 << 20;

/// The image process's own code, on threads.
pub(super) fn processes() -> ImageThreads {
    ImageThreads::new(|socket| drop(moirai_image::serve(socket, |_| Ok(()))))
}

/// A folder of images.
pub(super) struct Shop(TempDir);

impl Shop {
    pub(super) fn new() -> Option<Self> {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            assert!(std::env::var_os("MOIRAI_REQUIRE_QEMU").is_none(), "no qemu-img");
            eprintln!("NOT TESTED HERE: no qemu-img");
            return None;
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs qemu-img in the folder.
    pub(super) fn qemu_img(&self, words: &[&str]) -> String {
        let output = Command::new("qemu-img").args(words).current_dir(self.0.path()).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "qemu-img {words:?}: {said}{complaint}");
        said
    }

    pub(super) fn create(
        &self,
        name: &str,
        options: &str,
        backing: Option<(&str, &str)>,
        size: &str,
    ) {
        let mut words = vec!["create", "-q", "-f", "qcow2"];
        if !options.is_empty() {
            words.extend(["-o", options]);
        }
        if let Some((file, format)) = backing {
            words.extend(["-b", file, "-F", format]);
        }
        words.push(name);
        if !size.is_empty() {
            words.push(size);
        }
        self.qemu_img(&words);
    }

    /// What QEMU reads from an image.
    pub(super) fn contents(&self, name: &str) -> Vec<u8> {
        self.qemu_img(&["convert", "-O", "raw", name, "contents.raw"]);
        std::fs::read(self.path("contents.raw")).unwrap()
    }

    pub(super) fn open(&self, name: &str, read_only: bool) -> Result<Open, VolumeError> {
        self.open_with(name, read_only, &processes())
    }

    /// The same with what is at the other end.
    pub(super) fn open_with(
        &self,
        name: &str,
        read_only: bool,
        processes: &ImageThreads,
    ) -> Result<Open, VolumeError> {
        let path = Path::new(name);
        let mut volume = Volume::open_qcow2(self.0.path(), path, read_only, processes)?;
        let worker = volume.take_worker().unwrap();
        let worker = std::thread::spawn(|| worker.run());
        Ok(Open { volume, worker })
    }

    pub(super) fn refusal(&self, name: &str) -> String {
        match self.open(name, false) {
            Ok(_) => panic!("{name} was opened"),
            Err(error) => error.to_string(),
        }
    }

    /// Some data with holes, in a raw file.
    pub(super) fn film(&self, name: &str, mib: usize) -> Vec<u8> {
        let mut bytes = vec![0; mib * MIB];
        for (number, sector) in bytes.chunks_mut(512).enumerate() {
            if number / 300 % 3 > 0 {
                sector.fill(u8::try_from(number % 250 + 1).unwrap());
            }
        }
        std::fs::write(self.path(name), &bytes).unwrap();
        bytes
    }
}

/// An open image and the thread of its worker.
pub(super) struct Open {
    pub(super) volume: Volume,
    worker: JoinHandle<()>,
}

impl Open {
    pub(super) fn close(self) {
        drop(self.volume);
        self.worker.join().unwrap();
    }

    /// Reads all of it, in requests of 200 KiB.
    pub(super) fn read(&mut self) -> Vec<u8> {
        let mut guest = Guest::new(self.volume.disk(1, 256));
        let size = usize::try_from(self.volume.size_bytes()).unwrap();
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            let len = (200 << 10).min(size - bytes.len());
            let data = [writable(DATA, u32::try_from(len).unwrap())];
            let status = guest.serve(&mut self.volume, 0, bytes.len() as u64 / 512, &data);
            assert_eq!((status, self.volume.failure()), (0, None));
            bytes.extend(guest.bytes(DATA, len));
        }
        bytes
    }
}

#[test]
fn every_kind_of_image_reads_as_qemu_reads_it() {
    let Some(shop) = Shop::new() else { return };
    shop.film("film.raw", 9);
    for (name, convert) in [
        ("v3", &["-o", "compat=1.1"][..]),
        ("v2", &["-o", "compat=0.10"]),
        ("small-clusters", &["-o", "cluster_size=512"]),
        ("pages", &["-o", "cluster_size=4096"]),
        ("large-clusters", &["-o", "cluster_size=2097152"]),
        ("compressed", &["-c"]),
        ("compressed-v2", &["-c", "-o", "compat=0.10"]),
        ("data-file", &["-o", "data_file=data.raw"]),
        ("full", &["-S", "0", "-o", "preallocation=full"]),
        ("lazy", &["-o", "lazy_refcounts=on,refcount_bits=64"]),
    ] {
        shop.qemu_img(&[&["convert", "-O", "qcow2"], convert, &["film.raw", name]].concat());
        let mut open = shop.open(name, true).unwrap();
        assert!(open.read() == shop.contents(name), "{name} reads differently");
        let counters = open.volume.counters();
        // The second time allocated clusters go straight into the guest. How many of the requests
        // touch no hole depends on the size of the clusters; with any size it is a good part.
        assert!(open.read() == shop.contents(name), "{name} reads differently the second time");
        let direct = open.volume.counters().direct_bytes - counters.direct_bytes;
        let expected =
            open.volume.is_direct() && ["v3", "v2", "pages", "data-file", "full"].contains(&name);
        assert!(!expected || direct > 1 << 20, "{name}: {direct} bytes went the straight way");
        open.close();
    }
}

#[test]
fn a_chain_of_backing_files_reads_as_qemu_reads_it() {
    let Some(shop) = Shop::new() else { return };
    std::fs::create_dir(shop.path("bases")).unwrap();
    shop.film("bases/base.raw", 3);
    shop.create("bases/low", "compat=0.10,cluster_size=4096", Some(("base.raw", "raw")), "4M");
    shop.create("middle", "cluster_size=2097152", Some(("bases/low", "qcow2")), "6M");
    shop.create("top", "", Some(("middle", "qcow2")), "8M");
    for (name, words) in [("bases/low", "write -P 3 1M 20k"), ("middle", "write -P 4 3M 512")] {
        let path = shop.path(name);
        let done = Command::new("qemu-io").args(["-f", "qcow2", "-c", words]).arg(path).output();
        assert!(done.unwrap().status.success());
    }
    let mut open = shop.open("top", true).unwrap();
    assert_eq!(open.volume.files().count(), 4);
    assert!(open.read() == shop.contents("top"));
    open.close();
    // An absolute name below the folder will do, too.
    let base = shop.path("bases/base.raw");
    shop.create("absolute", "", Some((base.to_str().unwrap(), "raw")), "");
    let mut open = shop.open("absolute", false).unwrap();
    assert!(open.read() == shop.contents("absolute"));
    open.close();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn many_writes_at_a_time_leave_an_image_that_qemu_finds_whole(
        options in prop::sample::select(vec![
            "", "compat=0.10", "cluster_size=4096", "cluster_size=512", "cluster_size=1048576",
        ]),
        backed in any::<bool>(),
        deeds in deeds(6 << 11, 120),
        cut in 1_u64..40,
    ) {
        let Some(shop) = Shop::new() else { return Ok(()) };
        let mut model = shop.film("base.raw", 5);
        model.resize(6 * MIB, 0);
        if backed {
            shop.create("image", options, Some(("base.raw", "raw")), "6M");
        } else {
            shop.create("image", options, None, "6M");
            model.fill(0);
        }
        let mut open = shop.open("image", false).unwrap();
        let v3 = options != "compat=0.10";
        let deeds: Vec<_> =
            deeds.into_iter().filter(|deed| v3 || !matches!(deed.0, Action::Discard)).collect();
        let model = Many::new(&open.volume, model).cut(cut * 4096).run(&mut open.volume, &deeds);
        prop_assert!(open.read() == model, "we read something else");
        open.close();
        shop.qemu_img(&["check", "-q", "image"]);
        prop_assert!(shop.contents("image") == model, "QEMU reads something else");
        let mut again = shop.open("image", false).unwrap();
        prop_assert!(again.read() == model, "we read something else when we come back");
        again.close();
    }
}

#[test]
fn a_request_in_many_pieces_keeps_nobody_out_once_they_are_known() {
    let Some(shop) = Shop::new() else { return };
    shop.create("image", "cluster_size=65536", None, "4M");
    let words: Vec<_> = (0..4).rev().map(|n| format!("write -P 9 {}k 64k", n * 64)).collect();
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2"]).args(words.iter().flat_map(|word| ["-c", word]));
    assert!(command.arg(shop.path("image")).output().unwrap().status.success());
    let mut open = shop.open("image", false).unwrap();
    let mut many = Many::new(&open.volume, vec![0; 4 * MIB]);
    // A write across all of them is the first to ask where they are, so it has the image to itself
    // until that is known.
    many.post(&mut open.volume, (Action::Write(5), 0, 512));
    assert!(open.volume.is_busy());
    many.turn(&mut open.volume);
    assert!(many.has_unfinished());
    assert!(!open.volume.is_busy(), "its pieces go to the file, beside those of others");
    many.finish(&mut open.volume);
    open.close();
}

#[test]
fn what_was_flushed_is_there_although_the_image_was_never_closed() {
    let Some(shop) = Shop::new() else { return };
    shop.create("image", "", None, "8M");
    let mut open = shop.open("image", false).unwrap();
    let mut guest = Guest::new(open.volume.disk(1, 256));
    guest.mem.write_slice(&[7; 70_000], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut open.volume, 1, 1000, &[readable(DATA, 512 * 100)]), 0);
    assert_eq!(guest.serve(&mut open.volume, 4, 0, &[]), 0);
    std::fs::copy(shop.path("image"), shop.path("after-the-crash")).unwrap();
    // A driver without FLUSH gets every write on stable storage.
    guest.frontend.set_features(0);
    assert_eq!(guest.serve(&mut open.volume, 1, 8000, &[readable(DATA, 512)]), 0);
    std::fs::copy(shop.path("image"), shop.path("later")).unwrap();
    for (name, sector) in [("after-the-crash", 1000), ("later", 8000)] {
        shop.qemu_img(&["check", "-q", name]);
        assert_eq!(shop.contents(name)[sector * 512..sector * 512 + 512], [7; 512], "{name}");
    }
    open.close();
}

#[test]
fn an_image_that_is_being_written_is_opened_by_nobody_else() {
    let Some(shop) = Shop::new() else { return };
    shop.create("base", "", None, "1M");
    shop.create("top", "", Some(("base", "qcow2")), "");
    let top = shop.open("top", false).unwrap();
    assert!(shop.refusal("base").ends_with("base is in use, and one of its users writes it"));
    let other = shop.open("base", true).unwrap();
    top.close();
    other.close();
    shop.open("base", false).unwrap().close();
}

#[test]
fn an_image_names_no_file_outside_its_folder() {
    let Some(shop) = Shop::new() else { return };
    let outside = tempfile::NamedTempFile::new().unwrap();
    outside.as_file().set_len(1 << 20).unwrap();
    let outside = outside.path().to_str().unwrap();
    std::os::unix::fs::symlink(outside, shop.path("link")).unwrap();
    std::os::unix::fs::symlink("/", shop.path("root")).unwrap();
    let up = format!("..{}{outside}", "/..".repeat(8));
    let through = format!("root{outside}");
    for name in [outside, &up, "link", &through, "/proc/self/fd/0", "/etc/passwd"] {
        shop.create("image", "", None, "1M");
        shop.qemu_img(&["rebase", "-u", "-b", name, "-F", "raw", "image"]);
        let refusal = shop.refusal("image");
        assert!(
            refusal.contains(&format!("names {name}, which is not below")),
            "{name}: {refusal}"
        );
    }
    shop.qemu_img(&["rebase", "-u", "-b", "json:{}", "-F", "raw", "image"]);
    assert!(
        shop.refusal("image").contains("names json:{}: descriptions in JSON are not supported")
    );
    // The image itself.
    std::fs::rename(shop.path("image"), shop.path("real")).unwrap();
    shop.qemu_img(&["rebase", "-u", "-b", "", "real"]);
    std::os::unix::fs::symlink("real", shop.path("image")).unwrap();
    shop.open("image", false).unwrap().close();
    assert!(shop.refusal("link").contains("which is not below the disk's path"));
}

#[test]
fn loops_depths_and_unknown_formats_are_refused() {
    let Some(shop) = Shop::new() else { return };
    shop.create("a", "", None, "1M");
    shop.create("b", "", Some(("a", "qcow2")), "1M");
    shop.qemu_img(&["rebase", "-u", "-b", "b", "-F", "qcow2", "a"]);
    assert!(shop.refusal("b").ends_with("b form a loop"));
    shop.qemu_img(&["rebase", "-u", "-b", "a", "-F", "qcow2", "a"]);
    assert!(shop.refusal("a").ends_with("a form a loop"));
    shop.create("0", "", None, "1M");
    for number in 1..17_u32 {
        let (name, below) = (number.to_string(), (number - 1).to_string());
        shop.create(&name, "", Some((&below, "qcow2")), "");
    }
    shop.open("15", false).unwrap().close();
    assert!(shop.refusal("16").contains("16 has more than 16 layers of backing files"));
    shop.qemu_img(&["rebase", "-u", "-b", "0", "-F", "vmdk", "1"]);
    assert!(shop.refusal("1").contains("has a backing file of format \"vmdk\", not raw or qcow2"));
    // The name of the extension that holds the format, overwritten.
    let file = File::options().read(true).write(true).open(shop.path("2")).unwrap();
    let mut header = vec![0; 4096];
    file.read_exact_at(&mut header, 0).unwrap();
    let at = header.windows(4).position(|it| it == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    file.write_all_at(&[0x12, 0x34, 0x56, 0x78], at as u64).unwrap();
    assert!(shop.refusal("2").contains("does not say whether its backing file 1 is raw or qcow2"));
    std::fs::write(shop.path("text"), [b'x'; 1000]).unwrap();
    assert!(shop.refusal("text").contains("is not a qcow2 image"));
    assert!(
        shop.refusal("nothing").ends_with("nothing does not exist; create it or correct the path")
    );
}

#[test]
fn damaged_tables_are_refused_or_give_error_statuses() {
    let Some(shop) = Shop::new() else { return };
    shop.film("film.raw", 2);
    shop.qemu_img(&["convert", "-O", "qcow2", "film.raw", "sound"]);
    let sound = std::fs::read(shop.path("sound")).unwrap();
    let field = |at: usize| u64::from_be_bytes(*sound[at..].first_chunk().unwrap());
    let l1 = usize::try_from(field(40)).unwrap();
    let l2 = usize::try_from(field(l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    let damage = |at: usize, value: u64| {
        let mut bytes = sound.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        std::fs::write(shop.path("image"), bytes).unwrap();
    };
    damage(l1, 1 << 63 | 1 << 50);
    let refusal = shop.refusal("image");
    assert!(refusal.contains("is damaged: entry 0 of the level-1 table is 0x8004"), "{refusal}");
    damage(l1, field(l1) | 1 << 9);
    assert!(shop.refusal("image").contains("entry 0 of the level-1 table"));
    // A misaligned cluster; the header as data of the guest; the level-1 table as that.
    for value in [1 << 63 | 0x5_0200, 1 << 63, 1 << 63 | l1 as u64] {
        let entry = l2 + 8 * 4;
        damage(entry, value);
        let mut open = shop.open("image", false).unwrap();
        let mut guest = Guest::new(open.volume.disk(1, 256));
        let status = guest.serve(&mut open.volume, 1, 512, &[readable(DATA, 4096)]);
        // An entry without a place is an empty one, which is written elsewhere.
        assert_eq!(status, u8::from(value != 1 << 63), "{value:#x}");
        assert_eq!(
            guest.serve(&mut open.volume, 0, 0, &[writable(DATA, 4096)]),
            u8::from(status > 0)
        );
        open.close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..Default::default()
    })]
    /// Whatever is in the header and the tables: an error, or a volume that answers.
    #[test]
    fn no_bytes_of_an_image_make_it_panic(
        changes in prop::collection::vec(
            (0_usize..6, 0_usize..112, any::<u64>(), any::<bool>()),
            1..6,
        ),
        read_only in any::<bool>(),
    ) {
        let Some(shop) = Shop::new() else { return Ok(()) };
        static SOUND: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let sound = SOUND.get_or_init(|| {
            shop.film("film.raw", 1);
            shop.qemu_img(&["convert", "-O", "qcow2", "-c", "film.raw", "compressed"]);
            shop.create("sound", "", Some(("compressed", "qcow2")), "");
            std::fs::read(shop.path("sound")).unwrap()
        });
        let mut bytes = sound.clone();
        bytes.resize(6 << 16, 0);
        for (cluster, at, value, small) in changes {
            let value = if small { (value % 8) << 16 | value & 1 << 63 } else { value };
            let at = (cluster << 16) + at;
            bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        std::fs::write(shop.path("image"), &bytes).unwrap();
        if let Ok(mut open) = shop.open("image", read_only) {
            if open.volume.size_bytes() < 1 << 30 {
                let mut guest = Guest::new(open.volume.disk(1, 256));
                for sector in [0, 512, 1536] {
                    let _ = guest.serve(&mut open.volume, 0, sector, &[writable(DATA, 512)]);
                    let _ = guest.serve(&mut open.volume, 1, sector, &[readable(DATA, 4096)]);
                }
                let _ = guest.serve(&mut open.volume, 4, 0, &[]);
            }
            open.close();
        }
    }
}

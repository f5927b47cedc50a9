//! Random operations on images of every kind that qemu-img makes, against a plain array; after each
//! round QEMU says whether the image is whole and holds the same.
//!
//! `MOIRAI_IMAGE_SECONDS` makes it run for so long instead of a few rounds of each kind, and
//! `MOIRAI_IMAGE_SEED` begins with another seed.

use std::process::Command;
use std::time::{Duration, Instant};

use super::images::Shop;
use super::many::{Action, Deed, Many};
use super::*;
use crate::blk::SECTOR_BYTES;

/// Operations in a round, and rounds of an image.
const OPERATIONS: u64 = 150;
const ROUNDS: u64 = 2;
/// The longest operation, in sectors.
const MOST: u64 = 1000;

/// How qemu-img makes an image.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// Empty, with these options.
    Empty(&'static str),
    /// Compressed, from a film.
    Compressed(&'static str),
    /// Above a raw film that is shorter than it, with these options.
    OnRaw(&'static str),
    /// Above an image above a raw film, with these options of the two.
    OnImage(&'static str, &'static str),
    /// With a snapshot inside that shares all of its clusters.
    Snapshot(&'static str),
    /// With clusters in the reverse order, and every other one missing.
    Fragmented(&'static str),
}

use Made::{Compressed, Empty, Fragmented, OnImage, OnRaw, Snapshot};

const KINDS: [Made; 26] = [
    Empty("cluster_size=512"),
    Empty("cluster_size=1024"),
    Empty("cluster_size=4096"),
    Empty("cluster_size=65536"),
    Empty("cluster_size=2097152"),
    Empty("compat=0.10"),
    Empty("compat=0.10,cluster_size=2048"),
    Empty("preallocation=metadata"),
    Empty("preallocation=falloc"),
    Empty("preallocation=full"),
    Empty("lazy_refcounts=on,refcount_bits=64"),
    Empty("refcount_bits=1,cluster_size=8192"),
    Empty("data_file=data.raw"),
    Empty("data_file=data.raw,data_file_raw=on"),
    Compressed("compat=1.1"),
    Compressed("compat=0.10"),
    Compressed("cluster_size=4096"),
    Compressed("cluster_size=2097152"),
    OnRaw("cluster_size=65536"),
    OnRaw("cluster_size=512"),
    OnRaw("compat=0.10,cluster_size=4096"),
    OnImage("cluster_size=2097152", "cluster_size=4096"),
    OnImage("cluster_size=512", "compat=0.10"),
    Snapshot("cluster_size=65536"),
    Snapshot("cluster_size=1024"),
    Fragmented("cluster_size=65536"),
];

/// Numbers from a seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // An LCG by Knuth; its upper bits are good.
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }

    fn deed(&mut self, sectors: u64, discards: bool) -> Deed {
        let action = match self.below(20) {
            0..6 => Action::Read,
            6..14 => Action::Write(u8::try_from(self.below(251)).unwrap()),
            14..16 => Action::Zero(self.below(2) == 0),
            16..18 if discards => Action::Discard,
            16..18 => Action::Read,
            _ => Action::Flush,
        };
        let most = if self.below(4) == 0 { MOST } else { 24 };
        let at = self.below(sectors);
        let len = (self.below(most) + 1).min(sectors - at);
        (action, at, len)
    }
}

/// Has qemu-io do this to an image.
fn qemu_io(shop: &Shop, name: &str, words: &[String]) {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2"]).args(words.iter().flat_map(|word| ["-c", word.as_str()]));
    let output = command.arg(shop.path(name)).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an image of so many bytes at most; what it holds.
fn make(shop: &Shop, made: Made, mib: usize) -> Vec<u8> {
    for name in ["image", "low", "data.raw"] {
        let _ = std::fs::remove_file(shop.path(name));
    }
    let size = format!("{mib}M");
    let convert = |words: &[&str]| {
        shop.film("film.raw", mib);
        shop.qemu_img(&[&["convert", "-O", "qcow2"], words, &["film.raw", "image"]].concat());
    };
    match made {
        Empty(options) => shop.create("image", options, None, &size),
        Compressed(options) => convert(&["-c", "-o", options]),
        OnRaw(options) => {
            let mut film = shop.film("film.raw", mib - 1);
            film.truncate(film.len() - 5 * 512 - 77);
            std::fs::write(shop.path("film.raw"), film).unwrap();
            shop.create("image", options, Some(("film.raw", "raw")), &size);
        }
        OnImage(low, top) => {
            shop.film("film.raw", mib - 2);
            let lower = format!("{}M", mib - 1);
            shop.create("low", low, Some(("film.raw", "raw")), &lower);
            let words = ["write -P 7 100k 300k", "write -z 700k 99k", "write -c -P 8 2M 64k"];
            // What is compressed is a whole cluster.
            let few = words.len() - usize::from(low.contains("2097152"));
            qemu_io(shop, "low", &words[..few].iter().map(ToString::to_string).collect::<Vec<_>>());
            shop.create("image", top, Some(("low", "qcow2")), &size);
        }
        Snapshot(options) => {
            convert(&["-o", options]);
            shop.qemu_img(&["snapshot", "-c", "one", "image"]);
        }
        Fragmented(options) => {
            shop.create("image", options, None, &size);
            let clusters = (0..mib as u64 * 8).rev();
            let words: Vec<_> =
                clusters.map(|n| format!("write -P {} {}k 64k", n % 200 + 1, n * 128)).collect();
            qemu_io(shop, "image", &words);
        }
    }
    shop.contents("image")
}

/// A round: opens, does, reads, closes, and has QEMU look.
fn round(shop: &Shop, made: Made, chance: &mut Chance, model: Vec<u8>) -> Vec<u8> {
    let mut open = shop.open("image", false).unwrap();
    let discards = open.volume.disk(1, 256).discard;
    let sectors = open.volume.size_bytes() / SECTOR_BYTES;
    let deeds: Vec<_> = (0..OPERATIONS).map(|_| chance.deed(sectors, discards)).collect();
    let cut = if chance.below(2) == 0 { u64::MAX } else { (chance.below(16) + 1) * 4096 };
    let many = Many::new(&open.volume, model).cut(cut);
    let model = many.run(&mut open.volume, &deeds);
    assert!(open.read() == model, "{made:?}: we read something else");
    open.close();
    shop.qemu_img(&["check", "-q", "-f", "qcow2", "image"]);
    std::fs::write(shop.path("model.raw"), &model).unwrap();
    shop.qemu_img(&["compare", "-q", "-f", "qcow2", "-F", "raw", "image", "model.raw"]);
    model
}

/// An image of a kind, round after round.
fn run(made: Made, seed: u64) {
    let Some(shop) = Shop::new() else { return };
    println!("{made:?}, MOIRAI_IMAGE_SEED={seed}");
    let mut chance = Chance(seed);
    let mut model = make(&shop, made, 4);
    let before = model.clone();
    for _ in 0..ROUNDS {
        model = round(&shop, made, &mut chance, model);
    }
    if let Snapshot(_) = made {
        shop.qemu_img(&["snapshot", "-a", "one", "image"]);
        assert!(shop.contents("image") == before, "the snapshot holds what it had");
        shop.qemu_img(&["check", "-q", "-f", "qcow2", "image"]);
    }
}

pub(super) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_is_done_to_an_image_qemu_finds_it_whole_and_reads_the_same() {
    let first = number("MOIRAI_IMAGE_SEED").unwrap_or(1);
    let time = Duration::from_secs(number("MOIRAI_IMAGE_SECONDS").unwrap_or(0));
    let begin = Instant::now();
    for seed in first.. {
        for made in KINDS {
            run(made, seed);
        }
        if begin.elapsed() >= time {
            break;
        }
    }
}

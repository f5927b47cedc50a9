//! The fuzz targets without libFuzzer: in every `make test` each gets all of its corpus and, for
//! some seconds, inputs that are made of it by chance. `make fuzz` looks for new ones, for hours.
//!
//! The targets are those of `fuzz/targets`, compiled into this test: what they ask of the crates
//! `libfuzzer_sys` and `moirai_fuzz` is here under these names.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]
#![allow(missing_docs, unreachable_pub, reason = "the targets are programs elsewhere")]
#![allow(unused_attributes, reason = "no_main is for the programs")]
#![allow(clippy::expect_used, reason = "a target fails where it expects")]

extern crate self as libfuzzer_sys;
extern crate self as moirai_fuzz;

// Of what the targets use, these crates are named nowhere else in this package.
use moirai_image as _;
use moirai_image_wire as _;
use moirai_launch as _;
use moirai_media as _;
use moirai_vmm as _;
use virtio_queue as _;

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../../fuzz/src/lib.rs"]
mod shared;
pub(crate) use shared::{Guest, Input, MEMORY};

/// How long inputs are made for each target, in seconds; `MOIRAI_CORPUS_SECONDS` says otherwise.
const SECONDS: u64 = 2;
/// The longest input.
const LONGEST: usize = 4096;

/// The targets by name, each a module and a test.
macro_rules! targets {
    ($($name:ident at $path:literal),*) => {
        $(
            #[path = $path]
            mod $name;
        )*

        mod every_input_of {
            $(
                #[test]
                fn $name() {
                    super::run(stringify!($name), super::$name::target);
                }
            )*
        }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    balloon at "../../../fuzz/targets/balloon.rs",
    blk at "../../../fuzz/targets/blk.rs",
    config at "../../../fuzz/targets/config.rs",
    console at "../../../fuzz/targets/console.rs",
    film at "../../../fuzz/targets/film.rs",
    image at "../../../fuzz/targets/image.rs",
    kernel at "../../../fuzz/targets/kernel.rs",
    launch at "../../../fuzz/targets/launch.rs",
    net at "../../../fuzz/targets/net.rs",
    qcow2 at "../../../fuzz/targets/qcow2.rs",
    vhost at "../../../fuzz/targets/vhost.rs",
    vsock at "../../../fuzz/targets/vsock.rs"
}

/// Numbers by chance (an LCG by Knuth).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        // Numbers that mean something more often than others.
        const ODD: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x10];
        let byte = u8::try_from(self.below(256)).unwrap();
        if self.below(3) == 0 { ODD[self.below(ODD.len())] } else { byte }
    }

    /// Changes an input a little.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(6) {
            let place = self.below(input.len() + 1);
            match self.below(6) {
                0 => input.truncate(place),
                1 => input.insert(place, self.byte()),
                2 => {
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(64)).min(other.len());
                    input.splice(place..place, other[from..to].iter().copied());
                }
                3 => input.extend((0..self.below(64)).map(|_| self.byte())),
                _ if place < input.len() => input[place] = self.byte(),
                _ => input.push(self.byte()),
            }
        }
        input.truncate(LONGEST);
    }
}

/// What is in the repository for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = moirai_tests::root().join("fuzz/corpus").join(name);
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Gives a target all of its corpus, then what is made of it.
fn run(name: &str, target: fn(&[u8])) {
    let mut inputs = corpus(name);
    assert!(!inputs.is_empty(), "there is no corpus of {name}");
    inputs.iter().for_each(|input| target(input));
    let seconds = std::env::var("MOIRAI_CORPUS_SECONDS").ok().and_then(|it| it.parse().ok());
    let limit = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let (begin, mut chance, mut count) = (Instant::now(), Chance(1), 0_u64);
    inputs.push(Vec::new());
    while begin.elapsed() < limit {
        let mut input = inputs[chance.below(inputs.len())].clone();
        let other = &inputs[chance.below(inputs.len())];
        chance.change(&mut input, other);
        let last = input.clone();
        if std::panic::catch_unwind(move || target(&input)).is_err() {
            let kept = kept(name, &last);
            panic!("{name} fails for an input that was made of its corpus, kept at {kept}");
        }
        count += 1;
    }
    eprintln!("{name}: {} inputs of the corpus, {count} made of them", inputs.len() - 1);
}

/// Keeps an input where `make fuzz` keeps what it finds.
fn kept(name: &str, input: &[u8]) -> String {
    let folder = moirai_tests::root().join("target/fuzz/found");
    let path = folder.join(format!("{name}-corpus"));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    written.map_or_else(|error| format!("no place ({error})"), |()| path.display().to_string())
}

#[test]
fn every_target_is_here() {
    let folder = moirai_tests::root().join("fuzz/targets");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| Path::new(&file.unwrap().file_name()).with_extension(""))
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, NAMES);
}

// Behind the targets: they find it by its name in `libfuzzer_sys`, as they do elsewhere.
/// A target as a function.
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub(crate) fn target($bytes: &[u8]) {
            $body
        }
    };
    (|$text:ident: &str| $body:block) => {
        pub(crate) fn target(bytes: &[u8]) {
            let Ok($text) = std::str::from_utf8(bytes) else { return };
            $body
        }
    };
}
pub(crate) use fuzz_target;

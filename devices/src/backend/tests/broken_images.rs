//! Images in which somebody has changed bytes: each is refused with a reason, or gives error
//! statuses, or wrong data; nothing breaks and nothing hangs.

use std::process::Command;
use std::time::{Duration, Instant};

use super::differential::{Chance, number};
use super::images::Shop;
use super::*;

/// A byte is changed to each of these, and by one.
const VALUES: [u8; 5] = [0, 1, 0x7f, 0x80, 0xff];

/// A small image of every kind of cluster, as bytes.
fn sound(shop: &Shop, options: &str) -> Vec<u8> {
    std::fs::write(shop.path("base.raw"), vec![3; 64 << 10]).unwrap();
    shop.create("image", options, Some(("base.raw", "raw")), "64K");
    let words = ["write -P 5 4k 9k", "write -z 20k 4k", "write -c -P 6 32k 4k"];
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2"]).args(words.iter().flat_map(|word| ["-c", word]));
    assert!(command.arg(shop.path("image")).output().unwrap().status.success());
    shop.qemu_img(&["snapshot", "-c", "one", "image"]);
    std::fs::read(shop.path("image")).unwrap()
}

/// Opens what is there and does a little of everything; whether it could be opened.
fn use_it(shop: &Shop) -> bool {
    let Ok(mut open) = shop.open("image", false) else { return false };
    let mut guest = Guest::new(open.volume.disk(1, 256));
    for sector in [0, 10, 41, 64, 100, 120] {
        guest.serve(&mut open.volume, 0, sector, &[writable(DATA, 4096)]);
        guest.serve(&mut open.volume, 1, sector, &[readable(DATA, 1024)]);
        guest.serve_range(&mut open.volume, 13, (sector, 8, 1));
    }
    guest.serve(&mut open.volume, 4, 0, &[]);
    guest.serve(&mut open.volume, 0, 96, &[writable(DATA, 16384)]);
    open.close();
    true
}

/// Changes each of these bytes in turn; how many of the images were opened.
fn change(shop: &Shop, sound: &[u8], places: impl Iterator<Item = usize>) -> (usize, usize) {
    let (mut opened, mut all) = (0, 0);
    for place in places {
        for value in VALUES.into_iter().chain([sound[place].wrapping_add(1)]) {
            if value == sound[place] {
                continue;
            }
            let mut bytes = sound.to_vec();
            bytes[place] = value;
            std::fs::write(shop.path("image"), bytes).unwrap();
            all += 1;
            opened += usize::from(use_it(shop));
        }
    }
    (opened, all)
}

#[test]
fn a_byte_changed_in_the_header_breaks_nothing() {
    let Some(shop) = Shop::new() else { return };
    for options in ["cluster_size=4096", "cluster_size=4096,compat=0.10"] {
        let sound = sound(&shop, options);
        let (opened, all) = change(&shop, &sound, 0..112);
        assert!(opened > 0 && opened < all / 2, "{opened} of {all} were opened");
    }
}

/// Where the tables of an image are, and how much of each says something.
fn tables(sound: &[u8]) -> [(usize, usize); 4] {
    let field = |at: usize| {
        let entry = u64::from_be_bytes(*sound[at..].first_chunk().unwrap());
        usize::try_from(entry & 0x00ff_ffff_ffff_fe00).unwrap()
    };
    let (l1, reftable) = (field(40), field(48));
    [(l1, 16), (reftable, 16), (field(l1), 128), (field(reftable), 32)]
}

#[test]
fn a_byte_changed_in_a_table_breaks_nothing() {
    let Some(shop) = Shop::new() else { return };
    let sound = sound(&shop, "cluster_size=4096");
    for (table, len) in tables(&sound) {
        change(&shop, &sound, table..table + len);
    }
}

#[test]
fn tables_that_name_each_other_break_nothing() {
    let Some(shop) = Shop::new() else { return };
    let images = ["cluster_size=4096", "cluster_size=512"].map(|options| sound(&shop, options));
    let time = Duration::from_secs(number("MOIRAI_IMAGE_SECONDS").unwrap_or(0));
    let (begin, first) = (Instant::now(), number("MOIRAI_IMAGE_SEED").unwrap_or(1));
    for seed in first.. {
        // A stack that overflows ends the tests; the last of these lines says where.
        println!("MOIRAI_IMAGE_SEED={seed}");
        let mut chance = Chance(seed);
        let index = usize::try_from(chance.below(2)).unwrap();
        let mut bytes = images[index].clone();
        let tables = tables(&images[index]);
        for _ in 0..=chance.below(4) {
            let (table, len) = tables[usize::try_from(chance.below(4)).unwrap()];
            let at = table + usize::try_from(chance.below(len as u64 / 8)).unwrap() * 8;
            let place = [0, 512, 4096, bytes.len() as u64, 1 << 40, chance.below(40) * 512];
            let place = match chance.below(10) {
                known @ 0..4 => tables[usize::try_from(known).unwrap()].0 as u64,
                other => place[usize::try_from(other - 4).unwrap()],
            };
            let flags = [0, 0, 1, 1 << 62, 1 << 63, 1 << 63, 3 << 62, 1 << 63 | 1];
            let entry = place | flags[usize::try_from(chance.below(8)).unwrap()];
            bytes[at..at + 8].copy_from_slice(&entry.to_be_bytes());
        }
        std::fs::write(shop.path("image"), bytes).unwrap();
        use_it(&shop);
        if seed - first >= 300 && begin.elapsed() >= time {
            break;
        }
    }
}

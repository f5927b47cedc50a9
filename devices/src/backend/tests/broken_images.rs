//! Images in which somebody has changed bytes: each is refused with a reason, or gives error
//! statuses, or wrong data; nothing breaks and nothing hangs.

use std::process::Command;

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

#[test]
fn a_byte_changed_in_a_table_breaks_nothing() {
    let Some(shop) = Shop::new() else { return };
    let sound = sound(&shop, "cluster_size=4096");
    let field = |at: usize| {
        let entry = u64::from_be_bytes(*sound[at..].first_chunk().unwrap());
        usize::try_from(entry & 0x00ff_ffff_ffff_fe00).unwrap()
    };
    let (l1, reftable) = (field(40), field(48));
    let (l2, refblock) = (field(l1), field(reftable));
    for (table, len) in [(l1, 16), (reftable, 16), (l2, 128), (refblock, 32)] {
        change(&shop, &sound, table..table + len);
    }
}

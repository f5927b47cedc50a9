//! Sizes that are not whole sectors, and disks whose blocks are larger than a guest's sectors.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::many::{Action, Many, deeds};
use super::*;
use crate::backend::faulty::{Fault, Faulty};
use crate::backend::{Cuts, Volume};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n / 512 * 31 + n) % 250 + 1).unwrap()).collect()
}

fn film(len: usize) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("film");
    std::fs::write(&path, pattern(len)).unwrap();
    (directory, path)
}

/// Reads the last block, writes and zeroes it, and sees to it that the file stays as long as it is.
fn check_tail(len: usize, device_block: u32, block: u32) {
    let case = format!("{len} bytes, blocks of {block} on {device_block}");
    let (_directory, path) = film(len);
    let mut volume = Volume::open(&path, false).unwrap();
    volume.pretend_blocks(device_block);
    volume.set_block_size(block);
    let size = len.next_multiple_of(block as usize);
    assert_eq!(volume.size_bytes(), size as u64, "{case}");
    let disk = volume.disk(1, 256);
    assert_eq!((disk.block_size, disk.capacity_sectors), (block, size as u64 / 512), "{case}");
    let blocks_used = path.metadata().unwrap().blocks();
    let mut guest = Guest::new(disk);
    let start = size.saturating_sub(2 * 4096);
    let count = u32::try_from(size - start).unwrap();
    let sector = start as u64 / 512;
    let read = |guest: &mut Guest, volume: &mut Volume| {
        guest.mem.write_slice(&vec![0xee; count as usize], GuestAddress(DATA)).unwrap();
        assert_eq!(guest.serve(volume, IN, sector, &[writable(DATA, count)]), 0, "{case}");
        guest.bytes(DATA, count as usize)
    };
    let mut expected = pattern(len)[start.min(len)..].to_vec();
    let data = expected.len();
    expected.resize(count as usize, 0);
    assert!(read(&mut guest, &mut volume) == expected, "{case}: padded with zeros");
    // Everything is written, padding too; the padding stays zero and the file as long as it was.
    guest.mem.write_slice(&vec![0x77; count as usize], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, sector, &[readable(DATA, count)]), 0, "{case}");
    assert_eq!(guest.serve(&mut volume, FLUSH, 0, &[]), 0);
    expected[..data].fill(0x77);
    assert!(read(&mut guest, &mut volume) == expected, "{case}: after a write");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), len, "{case}");
    assert!(bytes[..start.min(len)] == pattern(len)[..start.min(len)], "{case}: before the write");
    assert!(bytes[start.min(len)..].iter().all(|byte| *byte == 0x77), "{case}");
    // The last sector alone.
    guest.mem.write_slice(&[0x55; 512], GuestAddress(DATA)).unwrap();
    let last = (size as u64 / 512) - 1;
    assert_eq!(guest.serve(&mut volume, OUT, last, &[readable(DATA, 512)]), 0, "{case}");
    let from = last * 512;
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.iter().skip(usize::try_from(from).unwrap()).all(|byte| *byte == 0x55), "{case}");
    for kind in [WRITE_ZEROES, DISCARD] {
        if kind == WRITE_ZEROES || disk_discards(&volume) {
            let range = (sector, count / 512, 0);
            assert_eq!(guest.serve_range(&mut volume, kind, range), 0, "{case}: {kind}");
        }
        bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), len, "{case}: {kind}");
        assert!(bytes[start.min(len)..].iter().all(|byte| *byte == 0), "{case}: {kind}");
    }
    assert!(path.metadata().unwrap().blocks() <= blocks_used + 8, "{case}: nothing behind the end");
    assert_eq!(guest.serve(&mut volume, IN, last + 1, &[writable(DATA, 512)]), 1, "{case}");
}

fn disk_discards(volume: &Volume) -> bool {
    volume.disk(1, 256).discard
}

#[test]
fn the_last_sector_is_there_and_what_is_behind_the_end_is_zero_and_stays_so() {
    for len in [1, 511, 512, 513, 1025, 4095, 4096, 4097, 30_001, 300_001, 300_032] {
        for (device, block) in [(512, 512), (512, 4096), (4096, 512), (4096, 4096), (16384, 512)] {
            check_tail(len, device, block);
        }
    }
}

#[test]
fn a_file_that_has_become_shorter_still_gives_an_error() {
    let (_directory, path) = film(10_001);
    let mut volume = Volume::open(&path, false).unwrap();
    let mut guest = Guest::new(volume.disk(1, 256));
    File::options().write(true).open(&path).unwrap().set_len(9000).unwrap();
    assert_eq!(guest.serve(&mut volume, IN, 19, &[writable(DATA, 512)]), 1);
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA, 8192)]), 0);
}

#[test]
fn the_largest_file_that_there_can_be_has_its_last_sector() {
    let path = Path::new("/dev/shm").join(format!("moirai-largest-{}", std::process::id()));
    let made = File::create_new(&path).and_then(|file| file.set_len(i64::MAX.cast_unsigned()));
    let volume = made.ok().and_then(|()| Volume::open(&path, false).ok());
    let _ = std::fs::remove_file(&path);
    let Some(mut volume) = volume else {
        assert!(std::env::var_os("MOIRAI_REQUIRE_KERNEL").is_none(), "no file of 8 EiB");
        eprintln!("NOT TESTED HERE: no file of 8 EiB");
        return;
    };
    volume.set_block_size(4096);
    assert_eq!(volume.size_bytes(), 1 << 63);
    let mut guest = Guest::new(volume.disk(1, 256));
    guest.mem.write_slice(&[7; 1024], GuestAddress(DATA)).unwrap();
    let sector = (1 << 54) - 2;
    assert_eq!(guest.serve(&mut volume, OUT, sector, &[readable(DATA, 1024)]), 0);
    assert_eq!(guest.serve(&mut volume, IN, sector, &[writable(DATA + 4096, 1024)]), 0);
    assert_eq!(guest.bytes(DATA + 4096, 1024), [[7; 1023].as_slice(), &[0]].concat());
}

#[test]
fn a_stripe_set_of_odd_files_has_every_byte_of_them_and_zeros_only_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let paths = [directory.path().join("a"), directory.path().join("b")];
    for (path, byte) in paths.iter().zip([1, 2]) {
        std::fs::write(path, vec![byte; 8192 + 1000]).unwrap();
    }
    let mut volume = Volume::open_striped(&paths, 4096, false).unwrap();
    assert_eq!(volume.size_bytes(), (4 * 4096 + 2000_u64).next_multiple_of(512));
    let mut guest = Guest::new(volume.disk(1, 256));
    let read = |guest: &mut Guest, volume: &mut Volume| {
        assert_eq!(guest.serve(volume, IN, 32, &[writable(DATA, 2048)]), 0);
        guest.bytes(DATA, 2048)
    };
    let expected = [vec![1; 1000], vec![2; 1000], vec![0; 48]].concat();
    assert_eq!(read(&mut guest, &mut volume), expected);
    guest.mem.write_slice(&[9; 2048], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, 32, &[readable(DATA, 2048)]), 0);
    assert_eq!(read(&mut guest, &mut volume), [vec![9; 2000], vec![0; 48]].concat());
    for path in &paths {
        let bytes = std::fs::read(path).unwrap();
        assert_eq!((bytes.len(), &bytes[8192..]), (9192, &[9; 1000][..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..Default::default()
    })]
    /// Requests of 512 bytes and more, many at a time, none of which touches the sectors of another
    /// one that is in flight: on blocks of 4 KiB most of them share blocks.
    #[test]
    fn many_small_requests_in_the_same_blocks_lose_nothing(
        deeds in deeds(64, 200),
        block in prop::sample::select(vec![4096_u32, 16384]),
        cut in 1_u64..8,
    ) {
        let (_directory, path) = film(32 << 10);
        let mut volume = Volume::open(&path, false).unwrap();
        volume.pretend_blocks(block);
        let short = deeds.into_iter().map(|(action, at, len)| (action, at, len.min(12)));
        let short: Vec<_> = short.collect();
        let model = Many::new(&volume, pattern(32 << 10)).cut(cut * 4096).run(&mut volume, &short);
        prop_assert!(std::fs::read(&path).unwrap() == model);
    }
}

#[test]
fn a_part_of_a_block_is_read_changed_and_written_and_counted() {
    let (_directory, path) = film(64 << 10);
    let mut volume = Volume::open(&path, false).unwrap();
    if !volume.is_direct() {
        assert!(std::env::var_os("MOIRAI_REQUIRE_DIRECT").is_none(), "no O_DIRECT");
        eprintln!("NOT TESTED HERE: no O_DIRECT");
        return;
    }
    volume.pretend_blocks(4096);
    let disk = volume.disk(1, 256);
    assert_eq!((disk.block_size, disk.topology.physical_block_bytes), (512, 4096));
    let mut guest = Guest::new(disk);
    guest.mem.write_slice(&[9; 16384], GuestAddress(DATA)).unwrap();
    // One sector; then from the middle of a block over a whole one into the next.
    assert_eq!(guest.serve(&mut volume, OUT, 3, &[readable(DATA, 512)]), 0);
    assert_eq!((volume.counters().read_modify_writes, guest.turns), (1, 2));
    assert_eq!(guest.serve(&mut volume, OUT, 12, &[readable(DATA, 8192)]), 0);
    assert_eq!(volume.counters().read_modify_writes, 3);
    let mut model = pattern(64 << 10);
    model[1536..2048].fill(9);
    model[6144..6144 + 8192].fill(9);
    assert!(std::fs::read(&path).unwrap() == model);
    // Whole blocks cost nothing more, and neither do reads.
    assert_eq!(guest.serve(&mut volume, OUT, 64, &[readable(DATA, 8192)]), 0);
    assert_eq!(guest.serve(&mut volume, IN, 3, &[writable(DATA, 1024)]), 0);
    assert_eq!(guest.bytes(DATA, 1024), model[1536..2560]);
    assert_eq!((volume.counters().read_modify_writes, guest.turns), (3, 1));
    assert_eq!(volume.counters().copied_by_kernel_bytes, 0, "nothing went through the page cache");
    assert_eq!(guest.serve_range(&mut volume, WRITE_ZEROES, (1, 17, 1)), 0);
    model[32768..40960].fill(9);
    model[512..512 * 18].fill(0);
    assert!(std::fs::read(&path).unwrap() == model);
    assert_eq!(volume.counters().read_modify_writes, 5);
}

#[test]
fn errors_and_short_counts_between_reading_and_writing_a_block_harm_nothing_else() {
    let (_directory, path) = film(64 << 10);
    let mut inner = Volume::open(&path, false).unwrap();
    inner.pretend_blocks(4096);
    let mut guest = Guest::new(inner.disk(1, 256));
    let plan = |number| match number {
        0 => Fault::Error(libc::EIO),
        1 => Fault::Delay(3),
        2 => Fault::Short,
        _ => Fault::None,
    };
    let mut volume = Faulty::new(inner, plan);
    guest.mem.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, 3, &[readable(DATA, 512)]), 1);
    assert_eq!(guest.serve(&mut volume, OUT, 4, &[readable(DATA, 512)]), 0, "its block is free");
    // A device that never moves a whole block is one that fails.
    assert!(guest.serve(&mut volume, OUT, 5, &[readable(DATA, 512)]) <= 1);
    assert_eq!(guest.serve(&mut volume, OUT, 6, &[readable(DATA, 512)]), 0);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[3 * 512..4 * 512], pattern(64 << 10)[3 * 512..4 * 512]);
    assert_eq!(
        (&bytes[4 * 512..5 * 512], &bytes[6 * 512..7 * 512]),
        (&[9; 512][..], &[9; 512][..])
    );
}

/// A loop device with sectors of 4 KiB over a file; `None` without the privilege.
pub(super) struct Loop {
    pub(super) device: PathBuf,
}

impl Loop {
    pub(super) fn new(path: &Path) -> Option<Self> {
        let words = ["--sector-size", "4096", "--find", "--show"];
        let output = Command::new("losetup").args(words).arg(path).output();
        let Some(output) = output.ok().filter(|output| output.status.success()) else {
            assert!(std::env::var_os("MOIRAI_REQUIRE_LOOP").is_none(), "no loop device");
            eprintln!("NOT TESTED HERE: no loop device with sectors of 4096 bytes");
            return None;
        };
        let device = String::from_utf8_lossy(&output.stdout).trim().into();
        Some(Self { device })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

#[test]
fn a_device_with_sectors_of_4096_bytes_shows_512_and_loses_nothing() {
    let (_directory, path) = film(1 << 20);
    let Some(device) = Loop::new(&path) else { return };
    let mut volume = Volume::open(&device.device, false).unwrap();
    assert_eq!((volume.align(), volume.disk(1, 256).block_size), (4096, 512));
    // What a partitioning tool does.
    let mut guest = Guest::new(volume.disk(1, 256));
    guest.mem.write_slice(&[7; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, 1, &[readable(DATA, 512)]), 0);
    assert_eq!(guest.serve(&mut volume, OUT, 2047, &[readable(DATA, 512)]), 0);
    assert_eq!(guest.serve(&mut volume, FLUSH, 0, &[]), 0);
    assert_eq!(volume.counters().read_modify_writes, 2);
    let mut model = pattern(1 << 20);
    model[512..1024].fill(7);
    model[2047 * 512..].fill(7);
    let actions = (0..400_u64).map(|n| match n % 5 {
        0 => (Action::Zero(false), n * 7 % 2000, n % 20 + 1),
        1 => (Action::Read, n * 13 % 2000, n % 30 + 1),
        _ => (Action::Write(u8::try_from(n % 200).unwrap()), n * 3 % 2000, n % 11 + 1),
    });
    let deeds: Vec<_> = actions.collect();
    let model = Many::new(&volume, model).run(&mut volume, &deeds);
    drop(volume);
    let mut bytes = vec![0; 1 << 20];
    File::open(&device.device).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == model);
}

#[test]
fn a_device_that_ends_within_a_block_is_refused() {
    let (_directory, path) = film((1 << 20) + 512);
    let Some(device) = Loop::new(&path) else { return };
    let refusal = Volume::open(&device.device, false).unwrap_err().to_string();
    assert!(refusal.contains("the last block of 4096 is cut off"), "{refusal}");
}

#[test]
fn a_cut_keeps_to_what_a_part_of_a_block_needs() {
    let (_directory, path) = film(64 << 10);
    let mut volume = Volume::open(&path, false).unwrap();
    volume.pretend_blocks(4096);
    let cuts = Cuts { read: 4096, write: 4096, discard: 4096, write_zeroes: 4096 };
    let deeds = [(Action::Write(3), 1, 40), (Action::Read, 3, 60), (Action::Zero(true), 5, 33)];
    let model = Many::new(&volume, pattern(64 << 10)).cut(cuts.read).run(&mut volume, &deeds);
    assert!(std::fs::read(&path).unwrap() == model);
}

//! Volumes that work, and volumes that are missing, too short, read-only, full or failing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::many::{Many, deeds};
use super::*;
use crate::backend::faulty::{Fault, Faulty};
use crate::backend::{Cuts, Volume, VolumeError};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;

/// Bytes that differ in every sector.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n / 512 * 31 + n) % 251).unwrap()).collect()
}

/// A file of `len` patterned bytes.
fn film(len: usize) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("film");
    std::fs::write(&path, pattern(len)).unwrap();
    (directory, path)
}

fn open(path: &Path) -> Volume {
    let volume = Volume::open(path, false).unwrap();
    if !volume.is_direct() {
        assert!(std::env::var_os("MOIRAI_REQUIRE_DIRECT").is_none(), "no O_DIRECT");
        eprintln!("NOT TESTED HERE: {} has no O_DIRECT", path.display());
    }
    volume
}

fn guest_of(volume: &Volume) -> Guest {
    Guest::new(volume.disk(1, 256))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn requests_that_are_cut_leave_the_file_as_a_plain_model_says(
        deeds in deeds(2048, 60),
        cut in 1_u64..40,
    ) {
        let (_directory, path) = film(1 << 20);
        let mut volume = open(&path);
        let model = Many::new(&volume, pattern(1 << 20)).cut(cut * 4096).run(&mut volume, &deeds);
        prop_assert!(std::fs::read(&path).unwrap() == model);
    }
}

#[test]
fn a_request_that_is_cut_has_as_many_parts_and_no_byte_of_it_is_copied() {
    let (_directory, path) = film(1 << 20);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    guest.mem.write_obj(IN, GuestAddress(0x4000)).unwrap();
    guest.mem.write_obj(0_u64, GuestAddress(0x4008)).unwrap();
    guest.driver.post(&[readable(0x4000, 16), writable(DATA, 1 << 20), writable(0x4100, 1)]);
    let next = guest.frontend.next_request(&guest.mem, &mut guest.queue).unwrap();
    let Next::Request(Taken { request, .. }) = next else { panic!("no request") };
    let mut job = Job::paced(request, Cuts { read: 256 << 10, ..Cuts::NONE });
    let mut step = volume.submit(&mut guest.ring, 0, &mut job).unwrap();
    let mut sizes = Vec::new();
    while step == Step::Pending {
        if let Some((_, bytes)) = job.next() {
            sizes.push(bytes);
            job.allow();
            assert_eq!(volume.submit(&mut guest.ring, 0, &mut job), Ok(Step::Pending));
        }
        let completion = wait(&mut guest.ring);
        step = volume
            .completed(&mut guest.ring, completion.token, &mut job, completion.result)
            .unwrap();
    }
    assert!((0..4).all(|part| job.is_over(part)));
    assert_eq!(sizes, [256 << 10; 3], "and the one that was allowed at first");
    assert!(guest.bytes(DATA, 1 << 20) == pattern(1 << 20));
    if volume.is_direct() {
        assert_eq!(volume.counters().direct_bytes, 1 << 20);
    }
}

#[test]
fn a_read_fills_the_guest_without_a_copy() {
    let (_directory, path) = film(1 << 20);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    let data = [writable(DATA, 65536), writable(DATA + 0x20000, 4096)];
    assert_eq!(guest.serve(&mut volume, IN, 16, &data), OK);
    let expected = &pattern(1 << 20)[8192..8192 + 69632];
    assert_eq!(guest.bytes(DATA, 65536), expected[..65536]);
    assert_eq!(guest.bytes(DATA + 0x20000, 4096), expected[65536..]);
    if volume.is_direct() {
        let counters = volume.counters();
        assert_eq!((counters.direct_bytes, counters.copied_by_us_bytes), (69632, 0));
        assert_eq!(counters.copied_by_kernel_bytes, 0);
    }
}

#[test]
fn a_misaligned_buffer_bounces_and_is_counted() {
    let (_directory, path) = film(1 << 20);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    // Odd addresses and a segment that ends inside a sector.
    let data = [writable(DATA + 1, 700), writable(DATA + 0x1003, 4096 - 700)];
    assert_eq!(guest.serve(&mut volume, IN, 8, &data), OK);
    let got = [guest.bytes(DATA + 1, 700), guest.bytes(DATA + 0x1003, 4096 - 700)].concat();
    assert_eq!(got, pattern(1 << 20)[4096..8192]);
    if volume.is_direct() {
        assert_eq!(volume.counters().copied_by_us_bytes, 4096);
    }
    let data = [readable(DATA + 1, 700), readable(DATA + 0x1003, 4096 - 700)];
    assert_eq!(guest.serve(&mut volume, OUT, 0, &data), OK);
    assert_eq!(std::fs::read(&path).unwrap()[..4096], pattern(1 << 20)[4096..8192]);
}

#[test]
fn what_is_written_is_on_the_disk_after_a_flush() {
    let (_directory, path) = film(1 << 16);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    guest.mem.write_slice(&[7; 8192], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, 8, &[readable(DATA, 8192)]), OK);
    assert_eq!(guest.serve(&mut volume, FLUSH, 0, &[]), OK);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((&bytes[4096..12288], bytes.len()), (&[7; 8192][..], 1 << 16));
    assert_eq!(bytes[..4096], pattern(1 << 16)[..4096]);
    // A driver without FLUSH.
    guest.frontend.set_features(0);
    assert_eq!(guest.serve(&mut volume, OUT, 0, &[readable(DATA, 512)]), OK);
    assert_eq!(std::fs::read(&path).unwrap()[..512], [7; 512]);
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zeros() {
    let (_directory, path) = film(1 << 20);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    assert_eq!(guest.serve_range(&mut volume, WRITE_ZEROES, (8, 16, 0)), OK);
    assert_eq!(guest.serve_range(&mut volume, WRITE_ZEROES, (64, 8, 1)), OK);
    assert_eq!(guest.serve_range(&mut volume, DISCARD, (128, 8, 0)), OK);
    assert_eq!(guest.serve_range(&mut volume, DISCARD, (128, 0, 0)), OK);
    let bytes = std::fs::read(&path).unwrap();
    let mut expected = pattern(1 << 20);
    expected[4096..12288].fill(0);
    expected[32768..36864].fill(0);
    expected[65536..69632].fill(0);
    assert_eq!(bytes, expected);
}

#[test]
fn a_file_system_without_zeroing_gets_zeros_written() {
    let Some(full) = SmallDisk::new(4 << 20) else { return };
    let path = full.path("film");
    std::fs::write(&path, pattern(3 << 20)).unwrap();
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    let sectors = (2 << 20) / 512 + 3;
    assert_eq!(guest.serve_range(&mut volume, WRITE_ZEROES, (5, sectors, 0)), OK);
    let mut expected = pattern(3 << 20);
    expected[5 * 512..(5 + sectors as usize) * 512].fill(0);
    assert_eq!(std::fs::read(&path).unwrap(), expected);
}

#[test]
fn a_volume_that_became_shorter_gives_an_error_status() {
    let (_directory, path) = film(64 << 10);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    File::options().write(true).open(&path).unwrap().set_len(10_000).unwrap();
    assert_eq!(guest.serve(&mut volume, IN, 64, &[writable(DATA, 4096)]), IOERR);
    // The first part of this one is there.
    assert_eq!(guest.serve(&mut volume, IN, 8, &[writable(DATA, 8192)]), IOERR);
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA, 4096)]), OK);
    assert_eq!(guest.frontend.counters.io_errors, 2);
}

#[test]
fn a_read_only_volume_refuses_writes_and_zeroing() {
    let (_directory, path) = film(64 << 10);
    let mut volume = Volume::open(&path, true).unwrap();
    let mut guest = guest_of(&volume);
    assert_eq!(guest.serve(&mut volume, OUT, 0, &[readable(DATA, 4096)]), IOERR);
    assert_eq!(guest.serve_range(&mut volume, WRITE_ZEROES, (0, 8, 0)), 2);
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA, 4096)]), OK);
    assert_eq!(std::fs::read(&path).unwrap(), pattern(64 << 10));
}

#[test]
fn a_file_that_may_not_be_written_gives_an_error_status() {
    let (_directory, path) = film(64 << 10);
    // Opened for reading although the guest believes that it may write.
    let mut volume =
        Volume::from_file(File::open(&path).unwrap(), "film".to_owned(), false).unwrap();
    let mut guest = guest_of(&volume);
    assert_eq!(guest.serve(&mut volume, OUT, 0, &[readable(DATA, 4096)]), IOERR);
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA, 4096)]), OK);
}

#[test]
fn a_full_file_system_gives_an_error_status_and_harms_nothing_else() {
    let Some(full) = SmallDisk::new(64 << 10) else { return };
    let path = full.path("sparse");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    guest.mem.write_slice(&[9; 1 << 18], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, 0, &[readable(DATA, 4096)]), OK);
    assert_eq!(guest.serve(&mut volume, OUT, 256, &[readable(DATA, 1 << 18)]), IOERR);
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA + 0x80000, 4096)]), OK);
    assert_eq!(guest.bytes(DATA + 0x80000, 4096), [9; 4096]);
}

#[test]
fn volumes_that_cannot_be_used_say_why() {
    let (directory, path) = film(0);
    let missing = Volume::open(&directory.path().join("nothing"), true).unwrap_err();
    assert!(matches!(missing, VolumeError::Missing(_)), "{missing}");
    let empty = Volume::open(&path, true).unwrap_err().to_string();
    assert!(empty.contains("film is empty; give it a size: `truncate -s"), "{empty}");
    for (path, read_only) in [(directory.path(), true), (directory.path(), false)] {
        let error = Volume::open(path, read_only).unwrap_err();
        assert!(matches!(error, VolumeError::NotAVolume(_)), "{error}");
    }
    let device = Volume::open(Path::new("/dev/zero"), true).unwrap_err();
    assert!(matches!(device, VolumeError::NotAVolume(_)), "{device}");
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let pipe = Volume::open(&pipe, true).unwrap_err();
    assert!(matches!(pipe, VolumeError::NotAVolume(_)), "{pipe}");
}

#[test]
fn the_capacity_counts_the_last_sector_and_the_name_is_stable() {
    let (_directory, path) = film(10_000);
    let (volume, again) = (open(&path), open(&path));
    assert_eq!((volume.size_bytes(), volume.disk(1, 64).capacity_sectors), (10_240, 20));
    assert_eq!(volume.id(), again.id());
    assert_ne!(volume.id(), [0; 20]);
    let mut volume = volume;
    let mut guest = guest_of(&volume);
    assert_eq!(guest.serve(&mut volume, IN, 18, &[writable(DATA, 512)]), OK);
    assert_eq!(guest.bytes(DATA, 512), pattern(10_000)[9216..9728]);
}

#[test]
fn short_reads_and_delays_change_nothing_but_the_number_of_turns() {
    let (_directory, path) = film(1 << 20);
    let plan = |number| match number {
        0 => Fault::Short,
        1 => Fault::Delay(3),
        _ => Fault::None,
    };
    let mut volume = Faulty::new(open(&path), plan);
    let mut guest = guest_of(volume.inner());
    for (sector, turns) in [(0, 3..20), (128, 4..5), (256, 1..2)] {
        assert_eq!(guest.serve(&mut volume, IN, sector, &[writable(DATA, 65536)]), OK);
        let start = usize::try_from(sector).unwrap() * 512;
        assert_eq!(guest.bytes(DATA, 65536), pattern(1 << 20)[start..start + 65536]);
        assert!(turns.contains(&guest.turns), "sector {sector}: {} turns", guest.turns);
    }
}

#[test]
fn an_injected_error_becomes_a_status() {
    let (_directory, path) = film(1 << 20);
    let plan = |number| if number == 0 { Fault::Error(libc::EIO) } else { Fault::None };
    let mut volume = Faulty::new(open(&path), plan);
    let mut guest = guest_of(volume.inner());
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA, 4096)]), IOERR);
    assert_eq!(guest.serve(&mut volume, IN, 0, &[writable(DATA, 4096)]), OK);
}

#[test]
fn a_full_ring_delays_a_request_and_loses_none() {
    let (_directory, path) = film(1 << 16);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    for token in 0..u64::from(guest.ring.capacity()) {
        guest.ring.nop(token).unwrap();
    }
    guest.mem.write_obj(FLUSH, GuestAddress(0x4000)).unwrap();
    guest.driver.post(&[readable(0x4000, 16), writable(0x4100, 1)]);
    let next = guest.frontend.next_request(&guest.mem, &mut guest.queue).unwrap();
    let Next::Request(Taken { request, .. }) = next else { panic!("no request") };
    let mut job = Job::new(request);
    assert_eq!(volume.submit(&mut guest.ring, 99, &mut job), Err(Deferred::RingFull));
    wait(&mut guest.ring);
    assert_eq!(volume.submit(&mut guest.ring, 99, &mut job), Ok(Step::Pending));
}

#[test]
fn a_second_name_of_the_file_sees_what_the_guest_wrote() {
    // A misaligned place on a volume with larger blocks goes through the page cache; both ways must
    // see each other's data.
    let (_directory, path) = film(1 << 16);
    let mut volume = open(&path);
    let mut guest = guest_of(&volume);
    let other = File::options().read(true).write(true).open(&path).unwrap();
    other.write_all_at(&[3; 4096], 4096).unwrap();
    assert_eq!(guest.serve(&mut volume, IN, 8, &[writable(DATA, 4096)]), OK);
    assert_eq!(guest.bytes(DATA, 4096), [3; 4096]);
    guest.mem.write_slice(&[4; 4096], GuestAddress(DATA)).unwrap();
    assert_eq!(guest.serve(&mut volume, OUT, 8, &[readable(DATA, 4096)]), OK);
    let mut bytes = [0; 4096];
    other.read_exact_at(&mut bytes, 4096).unwrap();
    assert_eq!(bytes, [4; 4096]);
}

/// A file system of its own with little space, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let none = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("none", directory.path(), "tmpfs", none, options.as_c_str()) {
            Ok(()) => Some(Self(directory)),
            Err(errno) => {
                assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none(), "tmpfs: {errno}");
                eprintln!("NOT TESTED HERE: cannot mount a tmpfs: {errno}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

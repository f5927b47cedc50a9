//! Stripe sets: the bytes are where they should be, and sets that are none are refused.

use std::fs::File;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::many::{Many, deeds};
use super::*;
use crate::backend::{Volume, VolumeError};

const UNIT: u64 = 4096;
const ROWS: u64 = 100;
/// What the files have behind their last whole unit: no whole sectors.
const REST: u64 = 1300;

/// So many empty files of `ROWS` units.
fn files(count: usize) -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..count).map(|n| directory.path().join(format!("part{n}"))).collect();
    for path in &paths {
        File::create(path).unwrap().set_len(UNIT * ROWS + REST).unwrap();
    }
    (directory, paths)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn many_requests_at_a_time_leave_the_files_as_a_plain_model_says(
        count in 2_usize..5,
        deeds in deeds((ROWS * UNIT + REST) * 2 / 512, 60),
        block in prop::sample::select(vec![512_u32, 4096]),
        cut in 1_u64..40,
    ) {
        let (_directory, paths) = files(count);
        let mut volume = Volume::open_striped(&paths, UNIT, false).unwrap();
        volume.pretend_blocks(block);
        let size = usize::try_from(volume.size_bytes()).unwrap();
        let data = (UNIT * ROWS + REST) * count as u64;
        prop_assert_eq!(size as u64, data.next_multiple_of(512));
        // The last sector is tested apart: what is written behind the end is forgotten.
        let model = Many::new(&volume, vec![0; size]).cut(cut * 4096).run(&mut volume, &deeds);
        let files: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let unit = usize::try_from(UNIT).unwrap();
        let rows = usize::try_from(UNIT * ROWS).unwrap();
        for (number, expected) in model[..rows * count].chunks(unit).enumerate() {
            let row = number / count * unit;
            prop_assert!(files[number % count][row..row + unit] == *expected, "unit {}", number);
        }
        let rest = usize::try_from(REST).unwrap();
        for (file, expected) in files.iter().zip(model[rows * count..].chunks(rest)) {
            prop_assert_eq!(file.len(), rows + rest);
            prop_assert!(file[rows..] == *expected, "the last row");
        }
    }
}

#[test]
fn one_failing_file_fails_the_request_and_no_other() {
    let (_directory, paths) = files(2);
    let mut volume = Volume::open_striped(&paths, UNIT, false).unwrap();
    let mut guest = Guest::new(volume.disk(1, 256));
    File::options().write(true).open(&paths[1]).unwrap().set_len(UNIT).unwrap();
    let read = |guest: &mut Guest, volume: &mut Volume, sector, len| {
        guest.serve(volume, 0, sector, &[writable(DATA, len)])
    };
    assert_eq!(read(&mut guest, &mut volume, 0, 8192), 0);
    assert_eq!(read(&mut guest, &mut volume, 16, 8192), 1);
    assert_eq!(read(&mut guest, &mut volume, 16, 4096), 0);
    assert_eq!(guest.serve(&mut volume, 4, 0, &[]), 0);
    let row = volume.disk(1, 256).topology.optimal_io_bytes;
    assert_eq!(u64::from(row), UNIT * 2);
}

#[test]
fn sets_that_are_none_are_refused() {
    let (directory, mut paths) = files(2);
    let refusal = |paths: &[PathBuf], unit| Volume::open_striped(paths, unit, false).unwrap_err();
    assert!(matches!(refusal(&paths, 1000), VolumeError::StripeShape));
    assert!(matches!(refusal(&paths[..1], UNIT), VolumeError::StripeShape));
    let twice = [paths[0].clone(), paths[0].clone()];
    assert!(matches!(refusal(&twice, UNIT), VolumeError::StripeTwice(_)));
    assert!(matches!(refusal(&paths, 1 << 20), VolumeError::TooSmall { .. }));
    File::options().write(true).open(&paths[1]).unwrap().set_len(UNIT).unwrap();
    let sizes = refusal(&paths, UNIT).to_string();
    assert!(
        sizes.contains("have to have the same size") && sizes.contains("part1 has 4096"),
        "{sizes}"
    );
    paths[1] = directory.path().join("nothing");
    let missing = refusal(&paths, UNIT).to_string();
    assert!(
        missing.ends_with("nothing does not exist; create it or correct the path"),
        "{missing}"
    );
}

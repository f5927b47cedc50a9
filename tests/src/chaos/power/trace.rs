//! What is written to the disk whose power is cut: numbered blocks with flushes among them, or what
//! Linux's ext4 wrote to a disk of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::block::{self, BLOCK, Known};
use super::super::driver::{Driver, Job};
use super::super::random::Chance;
use super::super::weak::{Event, VOLUME, Weak};

/// Size of the disk that a guest sees, in bytes.
pub(super) const BYTES: u64 = 16 << 20;
/// Blocks that are written, and how many writes there are.
pub(super) const BLOCKS: u64 = 512;
const WRITES: u64 = 1500;
/// Of how many requests one is a flush.
const FLUSHES: u64 = 12;
const LARGEST: usize = 64 << 10;

/// From this length of the record on, each block holds at least the write of this number.
pub(super) struct Promise {
    pub(super) from: usize,
    pub(super) known: Vec<Known>,
}

/// Writes numbered blocks; what was promised, and in the end what was tried.
pub(super) fn numbered(
    driver: &mut Driver,
    disk: &Weak,
    chance: &mut Chance,
) -> Result<(Vec<Promise>, Vec<Known>), String> {
    let mut known = vec![Known::default(); usize::try_from(BLOCKS).unwrap_or(0)];
    let (mut promises, mut flush) = (Vec::new(), None);
    let mut left = WRITES;
    while left > 0 || driver.under_way().next().is_some() {
        while left > 0 && driver.has_room() {
            left -= 1;
            if flush.is_none() && chance.below(FLUSHES) == 0 {
                // What is acknowledged now is stable when this has come back.
                flush = Some(known.clone());
                driver.begin(Job::Flush, &[]);
                continue;
            }
            let number = chance.below(BLOCKS);
            let job = Job::Write { sector: block::sector(number) };
            if driver.under_way().any(|other| other == job) {
                continue;
            }
            let mut data = [0; BLOCK];
            let entry = &mut known[usize::try_from(number).unwrap_or(0)];
            entry.tried += 1;
            block::fill(&mut data, number, entry.tried);
            driver.begin(job, &data);
        }
        let answer = driver.wait().map_err(|error| error.to_string())?;
        if !answer.ok {
            return Err(format!("{:?} failed", answer.job));
        }
        match answer.job {
            Job::Write { sector } => {
                let place = usize::try_from(sector / block::sector(1)).unwrap_or(0);
                known[place].acknowledged = known[place].tried;
            }
            _ => {
                let from = disk.events(<[Event]>::len);
                promises.extend(flush.take().map(|known| Promise { from, known }));
            }
        }
    }
    Ok((promises, known))
}

/// Does to a disk what was done to another one. Between two flushes, what does not overlap is under
/// way together.
pub(super) fn again(driver: &mut Driver, events: &[Event]) -> Result<(), String> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for event in events {
        match event {
            Event::Write { offset, data } => {
                let end = offset + data.len() as u64;
                if ranges.iter().any(|(from, to)| from < &end && offset < to) {
                    settle(driver)?;
                    ranges.clear();
                }
                ranges.push((*offset, end));
                for (at, piece) in (0..).zip(data.chunks(LARGEST)) {
                    if !driver.has_room() {
                        succeeded(driver)?;
                    }
                    let sector = (offset + at * LARGEST as u64) / 512;
                    driver.begin(Job::Write { sector }, piece);
                }
            }
            Event::Flush => {
                settle(driver)?;
                ranges.clear();
                driver.begin(Job::Flush, &[]);
                settle(driver)?;
            }
            Event::Resize(_) => {}
        }
    }
    settle(driver)
}

fn settle(driver: &mut Driver) -> Result<(), String> {
    while driver.under_way().next().is_some() {
        succeeded(driver)?;
    }
    Ok(())
}

fn succeeded(driver: &mut Driver) -> Result<(), String> {
    let answer = driver.wait().map_err(|error| error.to_string())?;
    if answer.ok { Ok(()) } else { Err(format!("{:?} failed", answer.job)) }
}

/// What ext4 writes while files come, grow, are renamed and go, with and without fsync: events, and
/// how many of them made the file system.
pub(super) fn file_system(folder: &Path) -> Result<(Vec<Event>, usize), String> {
    let (place, store) = (folder.join("traced"), folder.join("traced.store"));
    let failed = |error: std::io::Error| error.to_string();
    fs::File::create(&store).and_then(|store| store.set_len(BYTES)).map_err(failed)?;
    let disk = Weak::record(&place, &store).map_err(failed)?;
    let device = run("losetup", &["--find", "--show", &place.join(VOLUME).to_string_lossy()])?;
    let traced = trace(device.trim(), &folder.join("mounted"), &disk);
    let detached = run("losetup", &["--detach", device.trim()]);
    let made = traced?;
    detached?;
    Ok((disk.events(<[Event]>::to_vec), made))
}

fn trace(device: &str, place: &Path, disk: &Weak) -> Result<usize, String> {
    let failed = |error: std::io::Error| error.to_string();
    run("mkfs.ext4", &["-q", "-b", "1024", "-J", "size=1", device])?;
    run("sync", &[])?;
    let made = disk.events(<[Event]>::len);
    fs::create_dir_all(place).map_err(failed)?;
    run("mount", &["-t", "ext4", device, &place.to_string_lossy()])?;
    let worked = work(place).map_err(failed);
    run("umount", &[&place.to_string_lossy()])?;
    worked.map(|()| made)
}

fn work(place: &Path) -> std::io::Result<()> {
    for round in 0..24_u8 {
        let folder = place.join(format!("folder-{}", round % 4));
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("file-{round}"));
        fs::write(&file, vec![round; 3000 * usize::from(round + 1)])?;
        if round % 3 != 0 {
            fs::File::open(&file)?.sync_all()?;
        }
        fs::rename(&file, folder.join("renamed"))?;
        if round % 5 == 4 {
            fs::remove_dir_all(place.join(format!("folder-{}", round % 3)))?;
            rustix::fs::sync();
        }
    }
    Ok(())
}

/// Runs a program of the machine; what it said.
pub(super) fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let said = crate::said(&output);
    if output.status.success() { Ok(said) } else { Err(format!("{program} {words:?}: {said}")) }
}

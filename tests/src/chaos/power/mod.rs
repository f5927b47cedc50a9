//! Power loss: a flush means stable storage.
//!
//! An export has its volume on a file system of ours that notes every write and flush in order
//! (`super::weak`; no kernel module is needed, and it stands below the service). A driver writes
//! through the export. Then the power is cut after any event, and what a disk with a volatile cache
//! may have left is looked at: numbered blocks must be there as they were flushed, ext4 must be
//! whole after its journal was replayed, a qcow2 image must be sound for qemu-img.

mod cut;
mod trace;

use std::path::Path;
use std::time::{Duration, Instant};

use moirai_bench::driver::{Driver as Service, Start};
use serde_json::json;

use super::block::{self, BLOCK, Known};
use super::driver::Driver;
use super::random::Chance;
use super::weak::{Event, VOLUME, Weak};
use crate::{core, moirai_binary};
use trace::{BLOCKS, BYTES, Promise, run};

/// What a power loss is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    qcow2: bool,
    file_system: bool,
}

const CASES: [Case; 4] = [
    Case { qcow2: false, file_system: false },
    Case { qcow2: true, file_system: false },
    Case { qcow2: false, file_system: true },
    Case { qcow2: true, file_system: true },
];

/// What was recorded, and what must hold of it.
struct Recorded {
    case: Case,
    base: Vec<u8>,
    events: Vec<Event>,
    /// Cuts before this one say nothing: the file system is not made yet.
    from: usize,
    promises: Vec<Promise>,
    tried: Vec<Known>,
}

impl Case {
    const fn name(self) -> &'static str {
        match (self.qcow2, self.file_system) {
            (false, false) => "raw, numbered blocks",
            (true, false) => "qcow2, numbered blocks",
            (false, true) => "raw, ext4",
            (true, true) => "qcow2, ext4",
        }
    }
}

/// Cuts the power at so many points of each case; whether everything was as it has to be.
///
/// # Errors
/// It cannot be tried here.
pub(super) fn main(folder: &Path, points: u64, seed: u64) -> Result<bool, String> {
    println!("power: {points} cuts of each case, seed {seed}; recorded below the volume by FUSE");
    let begin = Instant::now();
    let mut chance = Chance::new(seed);
    let (mut wrong, mut all) = (Vec::new(), 0);
    for case in CASES {
        let folder = folder.join(case.name().replace([',', ' '], ""));
        let recorded = record(case, &folder, &mut chance)?;
        let mut broken = 0_u64;
        for _ in 0..points {
            let length = recorded.events.len() - recorded.from;
            let cut = recorded.from + usize::try_from(chance.below(length as u64 + 1)).unwrap_or(0);
            all += 1;
            if let Err(why) = recorded.judge(cut, &folder, &mut chance) {
                broken += 1;
                wrong.push(format!("{}, cut after event {cut}: {why}", case.name()));
            }
        }
        if !case.file_system && recorded.forgets_flushes().breaks(points, &folder, &mut chance) == 0
        {
            wrong.push(format!("{}: a disk that forgets flushes was not found", case.name()));
        }
        let flushes = recorded.events.iter().filter(|event| **event == Event::Flush).count();
        let events = recorded.events.len();
        println!(
            "{:<24} {events:>6} events, {flushes:>4} flushes, {points:>5} cuts, {broken} broken",
            case.name()
        );
    }
    for wrong in wrong.iter().take(10) {
        println!("BROKEN: {wrong}");
    }
    let seconds = begin.elapsed().as_secs();
    println!("{}", json!({ "seed": seed, "cuts": all, "broken": wrong.len(), "seconds": seconds }));
    Ok(wrong.is_empty())
}

/// Writes through an export, and keeps what arrives below it.
fn record(case: Case, folder: &Path, chance: &mut Chance) -> Result<Recorded, String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let traced = if case.file_system { Some(trace::file_system(folder)?) } else { None };
    let store = folder.join("store");
    let (path, size) = (store.to_string_lossy(), BYTES.to_string());
    let format = if case.qcow2 { "qcow2" } else { "raw" };
    run("qemu-img", &["create", "-q", "-f", format, &path, &size])?;
    let base = std::fs::read(&store).map_err(|error| error.to_string())?;
    let disk = Weak::record(&folder.join("disk"), &store).map_err(|error| error.to_string())?;
    let driver = serve(case, folder)?;
    let mut writer = connect(&folder.join("db.sock"))?;
    let (mut promises, mut tried, mut from) = (Vec::new(), Vec::new(), 0);
    if let Some((events, made)) = traced {
        trace::again(&mut writer, &events[..made])?;
        from = disk.events(<[Event]>::len);
        trace::again(&mut writer, &events[made..])?;
    } else {
        (promises, tried) = trace::numbered(&mut writer, &disk, chance)?;
    }
    drop(writer);
    driver.end().map_err(|error| error.to_string())?;
    let events = disk.events(<[Event]>::to_vec);
    Ok(Recorded { case, base, events, from, promises, tried })
}

/// A host service with nothing but this export.
fn serve(case: Case, folder: &Path) -> Result<Service, String> {
    let (path, core) = (folder.display(), core());
    let format = if case.qcow2 { "format = \"qcow2\"\n" } else { "" };
    let text = format!(
        "[host]\ncores = [{core}]\nsocket = \"{path}/host.sock\"\nstate_dir = \
         \"{path}/state\"\n[[disk]]\nname = \"disk\"\npath = \"{path}/disk\"\n[[export]]\nname = \
         \"db\"\nsocket = \"db.sock\"\n[export.disk]\ndisk = \"disk\"\nvolume = \"{VOLUME}\"\n\
         {format}extra = true\n"
    );
    let config = folder.join("host.toml");
    std::fs::write(&config, text).map_err(|error| error.to_string())?;
    let start = Start::new(&moirai_binary(), &config, &folder.join("host.sock"));
    start.ends_with_this_thread().serve().map_err(|error| error.to_string())
}

fn connect(socket: &Path) -> Result<Driver, String> {
    let begin = Instant::now();
    loop {
        match Driver::connect(socket) {
            Err(_) if begin.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result.map_err(|error| format!("{}: {error}", socket.display())),
        }
    }
}

impl Recorded {
    /// The same of a service that answers flushes and does not do them: the proof that this would
    /// be seen.
    fn forgets_flushes(&self) -> Self {
        let events = self.events.iter();
        let events = events.map(|event| match event {
            Event::Flush => Event::Write { offset: 0, data: Vec::new() },
            other => other.clone(),
        });
        let promises = self.promises.iter();
        let promises = promises.map(|it| Promise { from: it.from, known: it.known.clone() });
        Self {
            case: self.case,
            base: self.base.clone(),
            events: events.collect(),
            from: self.from,
            promises: promises.collect(),
            tried: self.tried.clone(),
        }
    }

    /// At how many of so many points something is not as it has to be.
    fn breaks(&self, points: u64, folder: &Path, chance: &mut Chance) -> usize {
        let cuts = (0..points).map(|_| chance.below(self.events.len() as u64));
        let cuts: Vec<_> = cuts.filter_map(|cut| usize::try_from(cut).ok()).collect();
        cuts.into_iter().filter(|cut| self.judge(*cut, folder, chance).is_err()).count()
    }

    /// Looks at what a cut has left.
    fn judge(&self, cut: usize, folder: &Path, chance: &mut Chance) -> Result<(), String> {
        let image = cut::image(&self.base, &self.events, cut, chance);
        let (left, raw) = (folder.join("left"), folder.join("left.raw"));
        let failed = |error: std::io::Error| error.to_string();
        let contents = if self.case.qcow2 {
            std::fs::write(&left, image).map_err(failed)?;
            let [left, raw] = [&left, &raw].map(|path| path.to_string_lossy().into_owned());
            sound(&left)?;
            run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &left, &raw])?;
            std::fs::read(&raw).map_err(failed)?
        } else {
            image
        };
        if !self.case.file_system {
            return self.blocks(&contents, cut);
        }
        std::fs::write(&raw, contents).map_err(failed)?;
        whole(&raw.to_string_lossy())
    }

    /// Whether each block is what the last flush before the cut promised, or something newer.
    fn blocks(&self, contents: &[u8], cut: usize) -> Result<(), String> {
        let promise = self.promises.iter().rev().find(|promise| promise.from <= cut);
        for block in 0..BLOCKS {
            let place = usize::try_from(block).unwrap_or(0);
            let promised = promise.map_or(0, |it| it.known[place].acknowledged);
            let known = Known { acknowledged: promised, tried: self.tried[place].tried };
            let found = &contents[place * BLOCK..(place + 1) * BLOCK];
            block::judge(found, block, known).map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}

/// What `qemu-img check` says. Clusters that are lost to everybody (status 3) are harmless.
fn sound(image: &str) -> Result<(), String> {
    const LEAKED: i32 = 3;
    let words = ["check", "-f", "qcow2", image];
    let output = std::process::Command::new("qemu-img").args(words).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.code() {
        Some(0 | LEAKED) => Ok(()),
        _ => Err(format!("qemu-img check: {}", crate::said(&output).trim())),
    }
}

/// Whether ext4 is whole after a mount would have replayed its journal.
fn whole(image: &str) -> Result<(), String> {
    run("e2fsck", &["-y", "-E", "journal_only", image])?;
    run("e2fsck", &["-f", "-n", image]).map(drop)
}

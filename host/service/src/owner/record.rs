//! Who holds a thing: one line of JSON for each, in the file of its locks. Only a help for
//! messages; what counts are the locks.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::usage::Usage;
use crate::state::start_ticks;

/// Most that is read or kept of a file.
const RECORDS_BYTES: u64 = 64 << 10;
/// Clock ticks per second in /proc, on every machine that we run on.
const TICKS_PER_S: u64 = 100;

/// Who holds a thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// How.
    usage: Usage,
    /// The process; 0 if it is not known.
    pid: u32,
    /// When it started, so that a reused number is noticed.
    start_ticks: u64,
    /// What it was called as: `moirai host`.
    program: String,
    /// For what part of it: `tenant cinema`; may be empty.
    what: String,
}

impl Holder {
    /// This process, for `what`.
    pub(super) fn this_process(usage: Usage, what: &str) -> Self {
        let pid = std::process::id();
        Self {
            usage,
            pid,
            start_ticks: start_ticks(pid.cast_signed()).unwrap_or(0),
            program: program(),
            what: what.to_owned(),
        }
    }

    /// Somebody who left no line.
    fn unknown(usage: Usage) -> Self {
        let (program, what) = (String::new(), String::new());
        Self { usage, pid: 0, start_ticks: 0, program, what }
    }

    fn lives(&self) -> bool {
        start_ticks(self.pid.cast_signed()) == Some(self.start_ticks)
    }

    /// For how long it has been there; `None` if that cannot be seen from here.
    fn age(&self) -> Option<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime: u64 = uptime.split('.').next()?.parse().ok()?;
        let begin = self.start_ticks / TICKS_PER_S;
        self.lives().then(|| Duration::from_secs(uptime.saturating_sub(begin)))
    }
}

impl fmt::Display for Holder {
    /// As `process 4711 (moirai host, tenant cinema, started 5 min ago)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return write!(f, "another host service");
        }
        write!(f, "process {} ({}", self.pid, self.program)?;
        if !self.what.is_empty() {
            write!(f, ", {}", self.what)?;
        }
        match self.age().map(|age| age.as_secs()) {
            None => write!(f, ")"),
            Some(s @ 0..120) => write!(f, ", started {s} s ago)"),
            Some(s @ 120..7200) => write!(f, ", started {} min ago)", s / 60),
            Some(s) => write!(f, ", started {} h ago)", s / 3600),
        }
    }
}

/// What this process was called as: its name, and its first word if that is a command.
fn program() -> String {
    let mut words = std::env::args();
    let path = words.next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    match words.next().filter(|word| word.bytes().all(|c| c.is_ascii_lowercase())) {
        Some(command) => format!("{name} {command}"),
        None => name,
    }
}

/// Adds a line; all others are dropped unless somebody else uses the thing.
pub(super) fn add(file: &mut File, holder: &Holder, others: bool) -> io::Result<()> {
    let mut all = if others { read(file) } else { Vec::new() };
    if u64::try_from(all.len()).unwrap_or(u64::MAX) * 256 > RECORDS_BYTES {
        all.retain(Holder::lives);
    }
    all.push(holder.clone());
    write(file, &all)
}

/// Removes one line.
pub(super) fn remove(file: &mut File, holder: &Holder) -> io::Result<()> {
    let mut all = read(file);
    if let Some(place) = all.iter().position(|line| line == holder) {
        all.remove(place);
    }
    write(file, &all)
}

/// Who uses the thing like that. Of those that left a line, one that lives.
pub(super) fn find(file: &mut File, usage: Usage) -> Holder {
    let all: Vec<_> = read(file).into_iter().filter(|holder| holder.usage == usage).collect();
    let living = all.iter().find(|holder| holder.lives()).or(all.first());
    living.cloned().unwrap_or_else(|| Holder::unknown(usage))
}

fn read(file: &mut File) -> Vec<Holder> {
    let mut text = String::new();
    // What cannot be read or understood is not known.
    let _ = file.seek(SeekFrom::Start(0));
    let _ = file.take(RECORDS_BYTES).read_to_string(&mut text);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn write(file: &mut File, all: &[Holder]) -> io::Result<()> {
    let mut text = String::new();
    for holder in all {
        text.push_str(&serde_json::to_string(holder).map_err(io::Error::other)?);
        text.push('\n');
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

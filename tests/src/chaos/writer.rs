//! A writer: a process of its own at an export's socket. It writes numbered blocks at random,
//! notes what was acknowledged, and reads all of them back when it begins and when it is told to.
//!
//! It says what it found in lines of JSON, and ends when nobody listens to it, or when the service
//! hangs up; `keeper` starts it again.
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use super::block::{self, BLOCK};
use super::driver::{Answer, Driver, Job};
use super::ledger::Ledger;
use super::random::Chance;

/// Blocks that it writes to: the first ones of its volume.
pub(super) const BLOCKS: u64 = 1024;
/// Blocks that one read takes.
const AT_ONCE: u64 = 16;
/// A read that fails is tried again, as long as a disk may be out of order.
const READS: Duration = Duration::from_secs(30);
/// How long there may be nobody at the socket.
const NOBODY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(1);

/// Of how many requests one is a flush.
const FLUSHES: u64 = 40;

/// The words of a writer.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Words {
    socket: PathBuf,
    ledger: PathBuf,
    seed: u64,
}

struct Writer {
    driver: Driver,
    ledger: Ledger,
    chance: Chance,
    acknowledged: u64,
    refused: u64,
    flushes: u64,
    lost: Vec<String>,
}

/// The process: until its standard input ends, or the service hangs up.
pub(super) fn main(words: &Words) -> ExitCode {
    match run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writer of {}: {error}", words.socket.display());
            ExitCode::FAILURE
        }
    }
}

fn run(words: &Words) -> io::Result<()> {
    let ledger = Ledger::open(&words.ledger, BLOCKS)?;
    let driver = connect(&words.socket)?;
    let chance = Chance::new(words.seed);
    let lost = Vec::new();
    let mut writer =
        Writer { driver, ledger, chance, acknowledged: 0, refused: 0, flushes: 0, lost };
    writer.verify()?;
    let told = orders();
    loop {
        match told.try_recv() {
            Ok(()) => writer.verify()?,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        writer.write()?;
        while let Some(answer) = writer.next()? {
            writer.take(&answer)?;
        }
        std::thread::sleep(PAUSE);
    }
}

/// One for each line of the standard input.
fn orders() -> Receiver<()> {
    let (order, orders) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || order.send(()).is_err() {
                return;
            }
        }
    });
    orders
}

fn connect(socket: &Path) -> io::Result<Driver> {
    let begin = Instant::now();
    loop {
        match Driver::connect(socket) {
            Ok(driver) => return Ok(driver),
            Err(error) if begin.elapsed() > NOBODY => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Writer {
    /// Fills the queue. No block has two writes under way: which is the last would be open.
    fn write(&mut self) -> io::Result<()> {
        while self.driver.has_room() {
            if self.chance.below(FLUSHES) == 0 {
                self.driver.begin(Job::Flush, &[]);
                continue;
            }
            let block = self.chance.below(BLOCKS);
            let job = Job::Write { sector: block::sector(block) };
            if self.driver.under_way().any(|other| other == job) {
                continue;
            }
            let mut data = [0; BLOCK];
            block::fill(&mut data, block, self.ledger.tries(block)?);
            self.driver.begin(job, &data);
        }
        Ok(())
    }

    /// The next answer, if it is there.
    fn next(&mut self) -> io::Result<Option<Answer>> {
        if let Some(answer) = self.driver.answer() {
            return Ok(Some(answer));
        }
        if self.driver.is_gone() {
            return Err(io::Error::other("the service has hung up"));
        }
        if self.driver.is_forgotten() {
            println!("{}", json!({ "forgotten": self.driver.under_way().count() }));
            return Err(io::Error::other("the service does not answer"));
        }
        Ok(None)
    }

    fn take(&mut self, answer: &Answer) -> io::Result<()> {
        match answer.job {
            Job::Write { sector } if answer.ok => {
                self.ledger.acknowledged(sector / block::sector(1))?;
                self.acknowledged += 1;
            }
            Job::Flush if answer.ok => self.flushes += 1,
            _ => self.refused += u64::from(!answer.ok),
        }
        Ok(())
    }

    /// Reads everything back, when nothing is under way, and says what it found.
    fn verify(&mut self) -> io::Result<()> {
        while self.driver.under_way().next().is_some() {
            match self.next()? {
                Some(answer) => self.take(&answer)?,
                None => std::thread::sleep(PAUSE),
            }
        }
        let begin = Instant::now();
        for block in (0..BLOCKS).step_by(usize::try_from(AT_ONCE).unwrap_or(1)) {
            let (sector, bytes) = (block::sector(block), AT_ONCE * BLOCK as u64);
            let data = self.read(Job::Read { sector, bytes }, begin)?;
            for (block, found) in (block..).zip(data.chunks_exact(BLOCK)) {
                self.lost.extend(block::judge(found, block, self.ledger.known(block)));
            }
        }
        let written =
            (0..BLOCKS).filter(|&block| self.ledger.known(block).acknowledged > 0).count();
        let (acknowledged, refused, flushes) = (self.acknowledged, self.refused, self.flushes);
        println!(
            "{}",
            json!({
                "verified": written,
                "lost": self.lost.len(),
                "what": self.lost.first(),
                "acknowledged": acknowledged,
                "refused": refused,
                "flushes": flushes,
            })
        );
        (self.acknowledged, self.refused, self.flushes) = (0, 0, 0);
        self.lost.clear();
        Ok(())
    }

    fn read(&mut self, job: Job, begin: Instant) -> io::Result<Vec<u8>> {
        loop {
            self.driver.begin(job, &[]);
            let answer = loop {
                match self.next()? {
                    Some(answer) => break answer,
                    None => std::thread::sleep(PAUSE / 10),
                }
            };
            if answer.ok {
                return Ok(answer.data);
            }
            if begin.elapsed() > READS {
                println!("{}", json!({ "unreadable": format!("{job:?}") }));
                return Err(io::Error::other(format!("{job:?} fails on and on")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

//! The types between a film and whoever sends it: settings, what comes next, notes, errors.

use crate::pace::{FALLBACK_BPS, NoRate};
use crate::ts::NoPacket;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use moirai_libos::memory::{OutOfMemory, Payload};
use moirai_libos::request::{Refusal, RequestError};
use thiserror::Error;

/// The greatest chunk that makes sense.
pub const CHUNK_MAX: u64 = 4 << 20;

/// How a film is read and sent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of a read, a multiple of a sector and at least three sectors.
    pub chunk: u64,
    /// Reads in flight.
    pub reads: u16,
    /// Start again at the end.
    pub looped: bool,
    /// Whose clock counts; `None`: the first program's.
    pub program: Option<u16>,
    /// Length of the film; `None`: that of its volume, but for padding.
    pub bytes: Option<u64>,
    /// Bits per second where the film has no clock.
    pub rate_bps: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chunk: 65536,
            reads: 4,
            looped: false,
            program: None,
            bytes: None,
            rate_bps: FALLBACK_BPS,
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A packet, due so many ticks after the film's start.
    Packet {
        /// System clock ticks (27 MHz).
        due_ticks: u64,
        /// Where its bytes are.
        payload: [Option<Payload>; 2],
    },
    /// The disk has not delivered it yet.
    Wait,
    /// The film is over.
    Finished,
}

/// Something that the operator should know of a film that is sent all the same.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Note {
    /// The film has no two clock references that say how fast it is.
    #[error("{}: it is sent at {rate_bps} bit/s, rate= sets another pace", no_clock(*.why, ""))]
    NoClock {
        /// What it has instead.
        why: NoRate,
        /// The pace.
        rate_bps: u64,
    },
    /// As far as could be read, it has none.
    #[error(
        "{}: until a clock goes on, it is sent at {rate_bps} bit/s, rate= sets another pace{}",
        no_clock(*.why, &alloc::format!(" in its first {bytes} bytes")), further(*.chunk)
    )]
    LateClock {
        /// What it has instead.
        why: NoRate,
        /// Bytes that were looked through.
        bytes: u64,
        /// The pace.
        rate_bps: u64,
        /// A greater value for `chunk=`, if there is one.
        chunk: Option<u64>,
    },
    /// No table names the program that was asked for.
    #[error("program={wanted} is not followed: {}; {REMEDY}", unnamed(.named))]
    NoTable {
        /// What was asked for.
        wanted: u16,
        /// The programs that are named.
        named: Vec<u16>,
    },
    /// The clock of the program that was asked for does not show.
    #[error("program={wanted} is not followed: its clock does not show{}; \
             {REMEDY}", others(.named, *.wanted))]
    NoProgramClock {
        /// What was asked for.
        wanted: u16,
        /// The programs that are named.
        named: Vec<u16>,
    },
}

const REMEDY: &str = "the first clock that goes on counts, as it does without program=";

/// A film cannot be sent (any further). `F`: the volume's own fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilmError<F> {
    /// The volume is unusable.
    #[error(transparent)]
    Volume(F),
    /// A request was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A chunk cannot be read, however often it is tried.
    #[error("cannot read the film at byte {offset}: {error}")]
    Unreadable {
        /// Where, in bytes.
        offset: u64,
        /// What the volume said last.
        error: RequestError,
    },
    /// The film would be longer than its volume.
    #[error(
        "bytes={bytes}: the volume has only {capacity} bytes; without bytes= it is read to its end"
    )]
    TooLong {
        /// What was asked for.
        bytes: u64,
        /// What there is.
        capacity: u64,
    },
    /// There are no packets anywhere.
    #[error(
        "no MPEG transport stream packet at byte {} of the volume, but {:#04x}, and none behind it",
        .0.position, .0.byte
    )]
    NoPacket(NoPacket),
    /// The film's program association table lacks the program that was asked for.
    #[error("the film has no program {wanted}: {}; without program= the first counts", has(.named))]
    NoProgram {
        /// What was asked for.
        wanted: u16,
        /// What there is.
        named: Vec<u16>,
    },
    /// No memory for buffers.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

/// More programs than this are not written out.
const WRITTEN_MAX: usize = 20;

fn list(programs: &[u16]) -> String {
    let mut text = String::new();
    for (place, program) in programs.iter().take(WRITTEN_MAX).enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{program}", if place > 0 { ", " } else { "" });
    }
    if programs.len() > WRITTEN_MAX {
        text.push_str(", ...");
    }
    text
}

fn no_clock(why: NoRate, place: &str) -> String {
    match why {
        NoRate::Missing => alloc::format!("the film has no two clock references (PCR){place}"),
        NoRate::Still => {
            alloc::format!(
                "the film's clock stands still: all its references (PCR){place} are the same"
            )
        }
        NoRate::Jumping => alloc::format!(
            "the film's clock never goes on: it jumps from each of its references (PCR){place} to \
             the next"
        ),
    }
}

fn further(chunk: Option<u64>) -> String {
    chunk.map_or_else(String::new, |chunk| alloc::format!("; chunk={chunk} looks further ahead"))
}

fn has(programs: &[u16]) -> String {
    match programs {
        [] => String::from("its table of programs (PAT) names none"),
        [one] => alloc::format!("it has only program={one}"),
        many => alloc::format!("it has the programs {}", list(many)),
    }
}

fn unnamed(programs: &[u16]) -> String {
    match programs {
        [] => String::from("the film has no table of its programs (PAT)"),
        named => alloc::format!("as far as its table (PAT) is there, {}", has(named)),
    }
}

fn others(programs: &[u16], wanted: u16) -> String {
    let others: Vec<u16> = programs.iter().copied().filter(|&number| number != wanted).collect();
    match others.as_slice() {
        [] => String::new(),
        others => alloc::format!(" (other programs are {})", list(others)),
    }
}

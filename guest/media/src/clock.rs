//! Which clock of a film counts: that of one program. The program tables name it. Without tables it
//! is the first clock that shows; if that stops, another one that goes on takes its place.

use crate::TICKS_PER_SECOND;
use crate::psi::{self, Listed, PAT_PID, Section};
use crate::ts::{PCR_WRAP, Packet};
use alloc::vec::Vec;

/// References are at most 100 ms apart: while another clock goes on for so long, ours has stopped.
const STOPPED_AFTER: u64 = TICKS_PER_SECOND / 2;
/// Other clocks that are watched.
const RIVALS_MAX: usize = 16;

/// A reading of the clock that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// In ticks, less than [`PCR_WRAP`].
    pub pcr: u64,
    /// The film says that this clock has nothing to do with the readings before.
    pub declared: bool,
}

/// Why the clock that counts is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Astray {
    /// The film has no table of its programs.
    NoTable,
    /// The clock of the program does not show.
    NoClock,
}

/// Another clock: what it showed first since ours was last seen.
#[derive(Clone, Copy, Debug)]
struct Rival {
    pid: u16,
    first: u64,
}

/// Follows the clock of one program through the packets of a film.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The program that was asked for.
    wanted: Option<u16>,
    /// The program that is followed, and the packets of its map table.
    program: Option<(u16, u16)>,
    missing: bool,
    listed: Listed,
    astray: Option<Astray>,
    association: Section,
    map: Section,
    pid: Option<u16>,
    /// What the map table said last: only when it says something else, it counts again. A clock
    /// that it names and that does not go is left for good.
    named: Option<u16>,
    rivals: Vec<Rival>,
    declared: bool,
}

impl Clock {
    /// Follows `program`, or if `None` the first that the film names.
    #[must_use]
    pub fn new(program: Option<u16>) -> Self {
        Self { wanted: program, ..Self::default() }
    }

    /// The film's table does not have the program that was asked for.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// The programs that the film's table names so far.
    #[must_use]
    pub fn programs(&self) -> &[u16] {
        self.listed.numbers()
    }

    /// Was a program asked for that says nothing about the clock, and why?
    #[must_use]
    pub fn astray(&self) -> Option<Astray> {
        self.astray
    }

    /// All packets were seen: what has not shown will not.
    pub fn finish(&mut self) {
        if self.pid.is_none() || self.program.is_none() {
            self.note_astray();
        }
    }

    fn note_astray(&mut self) {
        let why = if self.program.is_some() { Astray::NoClock } else { Astray::NoTable };
        self.astray = self.astray.or(self.wanted.map(|_| why));
    }

    /// The film starts again.
    pub fn restart(&mut self) {
        self.association.clear();
        self.map.clear();
        self.rivals.clear();
        self.declared = true;
    }

    /// Looks at the next packet; gives a reading if it has one of the clock that counts.
    pub fn read(&mut self, packet: &Packet<'_>) -> Option<Reading> {
        if packet.pid == PAT_PID {
            self.read_association(packet);
        } else if self.program.is_some_and(|(_, map_pid)| map_pid == packet.pid) {
            self.read_map(packet);
        }
        if self.pid == Some(packet.pid) && packet.discontinuity {
            self.declared = true;
        }
        let pcr = packet.pcr?;
        if self.pid.is_none() && self.wanted.is_none() {
            self.pid = Some(packet.pid);
        }
        if self.pid != Some(packet.pid) && !self.replaces(packet.pid, pcr) {
            return None;
        }
        self.rivals.clear();
        let declared = core::mem::take(&mut self.declared) || packet.discontinuity;
        Some(Reading { pcr, declared })
    }

    /// Has our clock stopped, so that another one takes its place?
    fn replaces(&mut self, pid: u16, pcr: u64) -> bool {
        let Some(rival) = self.rivals.iter_mut().find(|rival| rival.pid == pid) else {
            if self.rivals.len() < RIVALS_MAX {
                self.rivals.push(Rival { pid, first: pcr });
            }
            return false;
        };
        let gone_on = (pcr + PCR_WRAP - rival.first) % PCR_WRAP;
        if gone_on > PCR_WRAP / 2 {
            rival.first = pcr;
        }
        let replaces = (STOPPED_AFTER..=PCR_WRAP / 2).contains(&gone_on);
        if replaces {
            self.pid = Some(pid);
            self.note_astray();
        }
        replaces
    }

    fn read_association(&mut self, packet: &Packet<'_>) {
        let Some(section) = self.association.add(packet) else { return };
        self.listed.add(section);
        let wanted = self.wanted.or(self.program.map(|(number, _)| number));
        let mut programs = psi::programs(section);
        let found = programs.find(|&(number, _)| wanted.is_none_or(|wanted| wanted == number));
        // A film that drops the program it began with goes on with the first that is left.
        let found = match (found, self.wanted) {
            (None, None) => psi::programs(section).next(),
            (found, _) => found,
        };
        // Sections that have not come may list it.
        self.missing = found.is_none() && self.program.is_none() && self.listed.is_whole();
        if found.is_some() && found != self.program {
            self.program = found;
            self.map.clear();
        }
    }

    fn read_map(&mut self, packet: &Packet<'_>) {
        let (Some((number, _)), Some(section)) = (self.program, self.map.add(packet)) else {
            return;
        };
        let Some(pid) = psi::clock_pid(section, number) else { return };
        if self.pid != Some(pid) && self.named != Some(pid) {
            self.declared = self.pid.is_some();
            self.pid = Some(pid);
        }
        self.named = Some(pid);
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;

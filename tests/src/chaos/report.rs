//! What a run has found: a table of faults, and one line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use moirai_scheduler::Span;
use serde_json::json;

use super::fault::Fault;
use super::film::Seen;
use super::judge::{Has, Look};
use super::keeper::Found;

/// One kind of fault.
#[derive(Debug, Default)]
struct Row {
    times: u64,
    turn: Option<Span>,
    found: Found,
    broken: u64,
    late: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: BTreeMap<Fault, Row>,
    film: Seen,
    broken: Vec<String>,
    /// Promises about time, see [`Report::machine`].
    late: Vec<String>,
    first: Option<Has>,
    last: Option<Has>,
    lives: u64,
}

impl Report {
    /// A fault and what was seen after it.
    pub(super) fn note(&mut self, fault: Fault, mut look: Look) {
        let row = self.rows.entry(fault).or_default();
        row.times += 1;
        row.turn = row.turn.max(look.turn);
        let what = std::mem::take(&mut look.found.what);
        let lost = what.into_iter().map(|what| format!("lost: {what}"));
        let broken: Vec<_> = look.broken.into_iter().chain(lost).collect();
        row.broken += u64::from(!broken.is_empty());
        row.late += look.late.len() as u64;
        self.late.extend(look.late.into_iter().map(|it| format!("{}: {it}", fault.name())));
        row.found.join(look.found);
        self.broken.extend(broken.into_iter().map(|it| format!("{}: {it}", fault.name())));
    }

    /// A life of the host service with what it had at its end.
    pub(super) fn life(&mut self, end: (Seen, Vec<String>, Vec<Fault>), has: Has) {
        let (film, broken, during) = end;
        self.lives += 1;
        let names: Vec<_> = during.iter().map(|fault| fault.name()).collect();
        let late =
            film.lateness().map(|it| format!("life {}: {it} ({})", self.lives, names.join(", ")));
        if late.is_some()
            && let Some(calm) = self.rows.get_mut(&Fault::Calm)
        {
            calm.late += u64::from(during.contains(&Fault::Calm));
        }
        self.late.extend(late);
        self.film.join(&film);
        self.first.get_or_insert(has);
        self.last = Some(has);
        self.broken.extend(broken.into_iter().map(|it| format!("life {}: {it}", self.lives)));
    }

    /// Something that belongs to no fault.
    pub(super) fn wrong(&mut self, what: impl IntoIterator<Item = String>) {
        self.broken.extend(what);
    }

    /// Whether everything was kept.
    pub(super) fn success(&self) -> bool {
        let in_time = self.late.is_empty() || self.machine().is_some();
        self.broken.is_empty() && self.sum(|row| row.found.lost) == 0 && in_time
    }

    /// Why promises about time cannot be judged on this machine: they broke with no fault, too.
    pub(super) fn machine(&self) -> Option<String> {
        let calm = self.rows.get(&Fault::Calm).filter(|calm| calm.late > 0)?;
        let (late, times) = (calm.late, calm.times);
        Some(format!("the machine breaks them without a fault: {late} in {times} calm times"))
    }

    fn sum(&self, of: impl Fn(&Row) -> u64) -> u64 {
        self.rows.values().map(of).sum()
    }

    fn turn(&self) -> Option<Span> {
        self.rows.values().filter_map(|row| row.turn).max()
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<16} {:>6} {:>12} {:>10} {:>6} {:>12} {:>8}\n",
            "fault", "times", "longest turn", "verified", "lost", "acknowledged", "refused"
        );
        let millis = |turn: Option<Span>| {
            let tenths = |turn: Span| turn.as_micros() / 100;
            turn.map_or("-".to_owned(), |it| format!("{}.{} ms", tenths(it) / 10, tenths(it) % 10))
        };
        let mut line = |name: &str, times, turn, verified, lost, acknowledged, refused| {
            let turn = millis(turn);
            let _ = writeln!(
                text,
                "{name:<16} {times:>6} {turn:>12} {verified:>10} {lost:>6} {acknowledged:>12} \
                 {refused:>8}"
            );
        };
        for (fault, row) in &self.rows {
            let Found { verified, lost, acknowledged, refused, .. } = row.found;
            line(fault.name(), row.times, row.turn, verified, lost, acknowledged, refused);
        }
        line(
            "all",
            self.sum(|row| row.times),
            self.turn(),
            self.sum(|row| row.found.verified),
            self.sum(|row| row.found.lost),
            self.sum(|row| row.found.acknowledged),
            self.sum(|row| row.found.refused),
        );
        text + &self.below()
    }

    fn below(&self) -> String {
        let Seen { packets, lost, late, late_in_stall, late_max_us, .. } = self.film;
        let mut text = format!(
            "film: {packets} packets, {lost} lost, {late} late, {late_in_stall} late in stalls, at \
             most {late_max_us} us\n"
        );
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let has = |it: Has| {
                format!("{} descriptors, {} threads, {} KiB", it.files, it.threads, it.kib)
            };
            let lives = self.lives;
            let _ = writeln!(
                text,
                "at the end of life 1: {}; of life {lives}: {}",
                has(first),
                has(last)
            );
        }
        for broken in &self.broken {
            let _ = writeln!(text, "NOT KEPT: {broken}");
        }
        for late in &self.late {
            let _ = writeln!(text, "LATE: {late}");
        }
        text
    }

    /// All of it in one line.
    pub(super) fn json(&self, seed: u64, took: Duration) -> String {
        let faults: BTreeMap<_, _> =
            self.rows.iter().map(|(fault, row)| (fault.name(), row.times)).collect();
        let last = self.last.unwrap_or_default();
        json!({
            "seed": seed,
            "seconds": took.as_secs(),
            "faults": faults,
            "survived": self.sum(|row| row.times) - self.sum(|row| row.broken),
            "longest_turn_us": self.turn().map_or(0, Span::as_micros),
            "blocks_verified": self.sum(|row| row.found.verified),
            "blocks_lost": self.sum(|row| row.found.lost),
            "writes_acknowledged": self.sum(|row| row.found.acknowledged),
            "film_packets": self.film.packets,
            "film_lost": self.film.lost,
            "film_late": self.film.late,
            "film_late_in_stall": self.film.late_in_stall,
            "host_lives": self.lives,
            "descriptors": last.files,
            "memory_kib": last.kib,
            "not_kept": self.broken,
            "late": self.late,
            "judged_in_time": self.machine().is_none(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_adds_up_and_what_was_not_kept_is_in_it() {
        let mut report = Report::default();
        let found = Found { verified: 100, acknowledged: 7, ..Found::default() };
        let look = Look { turn: Some(Span::from_micros(1500)), found, ..Look::default() };
        report.note(Fault::DiskFull, look.clone());
        report.note(Fault::DiskFull, Look { turn: None, ..look.clone() });
        assert!(report.success());
        let table = report.table();
        assert!(
            table.contains("disk full             2       1.5 ms        200      0"),
            "{table}"
        );
        report.note(Fault::ApiFlood, Look { broken: vec!["a miss".into()], ..look });
        assert!(!report.success() && report.table().contains("NOT KEPT: api flood: a miss"));
        assert!(report.json(1, Duration::from_secs(2)).contains("\"survived\":2"));
    }

    #[test]
    fn what_is_late_counts_unless_it_is_late_without_a_fault_too() {
        let late = || Look { late: vec!["1 misses".to_owned()], ..Look::default() };
        let mut report = Report::default();
        report.note(Fault::Calm, Look::default());
        report.note(Fault::DiskFull, late());
        assert!(!report.success());
        report.note(Fault::Calm, late());
        assert!(report.success() && report.machine().is_some());
    }
}

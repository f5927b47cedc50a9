//! The same guests under Moirai and QEMU (`tests/lab/bench.sh`, which runs in the machine):
//! medians, and the ratio of every pair, Moirai by QEMU. How far the ratios of a row lie apart is
//! the noise.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::time::Duration;

use super::args::Kind;
use super::machine::{self, End, Input};
use super::place::{Place, quoted};
use super::programs;
use crate::root;

/// What is measured, in the order of the table.
const MEASURED: [&str; 10] = [
    "boot_ms",
    "login_ms",
    "vmm_kib",
    "read_4k_alone_us",
    "ping_ms",
    "read_4k_deep_iops",
    "write_4k_deep_iops",
    "read_128k_kb_s",
    "tcp_out_kbit_s",
    "tcp_in_kbit_s",
];

/// Runs the benchmark in a machine and prints its table.
pub(super) fn run(
    place: &Place,
    rounds: u32,
    kind: Option<Kind>,
    limit: Duration,
) -> io::Result<u8> {
    let debian = programs::debian(place)?;
    let kind = match kind {
        None => "",
        Some(Kind::Small) => "small",
        Some(Kind::Debian) => "debian",
    };
    let results = place.run.join("results");
    let script = quoted(&root().join("tests/lab/bench.sh").to_string_lossy());
    let to = quoted(&results.to_string_lossy());
    let (environment, warm) = (place.environment(), place.warm());
    let command = format!("{environment}{warm}exec {script} {to} {rounds} {kind}");
    let copy = |mut pipe| io::copy(&mut pipe, &mut io::stderr());
    let disks = vec![debian; 2];
    let (end, copied) = machine::boot(place, &command, &disks, limit, Input::Nothing, copy)?;
    copied?;
    match end {
        End::Command(0) => {}
        End::Command(status) => return Ok(status),
        End::Early { reason, .. } => return Err(io::Error::other(reason)),
    }
    print!("{}", Results::read(&fs::read_to_string(results)?).table());
    Ok(0)
}

/// What was measured: of whom, what, and the value as it was written.
struct Results<'a>(Vec<(&'a str, &'a str, &'a str)>);

impl<'a> Results<'a> {
    /// Reads lines `WHO WHAT VALUE`.
    fn read(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?, words.next()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn column(&self, who: &str, what: &str) -> Vec<&'a str> {
        let of = self.0.iter().filter(|(of, measured, _)| (*of, *measured) == (who, what));
        of.map(|(_, _, value)| *value).collect()
    }

    /// The median; of an even number of values, the lower one of those in the middle.
    fn median(&self, who: &str, what: &str) -> &'a str {
        let mut values: Vec<(f64, &str)> = Vec::new();
        for text in self.column(who, what) {
            values.push((text.parse().unwrap_or(f64::INFINITY), text));
        }
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        values.get(values.len().saturating_sub(1) / 2).map_or("-", |(_, text)| text)
    }

    /// Of every pair that was measured in the same round.
    fn ratios(&self, who: &str, by: &str, what: &str) -> String {
        let pairs = self.column(who, what).into_iter().zip(self.column(by, what));
        let ratio = |(a, b): (&str, &str)| {
            let (a, b) = (a.parse::<f64>().ok()?, b.parse::<f64>().ok()?);
            (b > 0.0).then(|| format!("{:.2}", a / b))
        };
        pairs.filter_map(ratio).collect::<Vec<_>>().join("/")
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |c: [&str; 9]| {
            let _ = writeln!(
                text,
                "{:<20} {:>10} {:>10} {:<15} {:>10} {:>10} {:<15} {:>13} {}",
                c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8]
            );
        };
        row([
            "",
            "mmio",
            "microvm",
            "ratios",
            "pci",
            "q35",
            "ratios",
            "pci, prefault",
            "ratios to q35",
        ]);
        for what in MEASURED {
            if self.column("qemu-q35", what).is_empty() {
                continue;
            }
            row([
                what,
                self.median("moirai-mmio", what),
                self.median("qemu-microvm", what),
                &self.ratios("moirai-mmio", "qemu-microvm", what),
                self.median("moirai-pci", what),
                self.median("qemu-q35", what),
                &self.ratios("moirai-pci", "qemu-q35", what),
                self.median("moirai-pci-prefault", what),
                &self.ratios("moirai-pci-prefault", "qemu-q35", what),
            ]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "moirai-pci boot_ms 900\nqemu-q35 boot_ms 1000\nmoirai-pci boot_ms 100\n\
                        qemu-q35 boot_ms 400\nmoirai-pci boot_ms 1000.5\nqemu-q35 boot_ms 0\ncut \
                        off\n";

    #[test]
    fn the_median_is_a_value_that_was_measured() {
        let results = Results::read(TEXT);
        assert_eq!(results.median("moirai-pci", "boot_ms"), "900", "by size, not as text");
        assert_eq!(results.median("qemu-q35", "boot_ms"), "400");
        let even = Results::read("a x 4\na x 1\na x 3\na x 2");
        assert_eq!(even.median("a", "x"), "2");
        assert_eq!(even.median("a", "y"), "-");
        assert_eq!(Results::read("a x 5").median("a", "x"), "5");
    }

    #[test]
    fn ratios_are_those_of_pairs() {
        let results = Results::read(TEXT);
        assert_eq!(results.ratios("moirai-pci", "qemu-q35", "boot_ms"), "0.90/0.25");
        assert_eq!(results.ratios("moirai-mmio", "qemu-microvm", "boot_ms"), "");
    }

    #[test]
    fn the_table_has_a_row_for_everything_that_was_measured() {
        let table = Results::read(TEXT).table();
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.lines().nth(1).is_some_and(|row| row.starts_with("boot_ms")), "{table}");
    }
}

//! What the demo found out: the JSON object that its checks read, the table that people read, and
//! the verdict.

use std::fmt::Write as _;

use serde::Serialize;

use super::pulse::PulseReport;
use crate::recorder::Analysis;

/// The last line of `moirai demo --json`.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// Whether every guarantee was kept in the run with scheduling.
    pub kept: bool,
    /// Whether the same load without scheduling ruined the film, as it must for the comparison to
    /// mean anything.
    pub control_failed: bool,
    /// With Moirai's scheduling.
    pub with: RunReport,
    /// The control: FIFO everywhere, fair CPU.
    pub without: RunReport,
    /// How late a timer of the highest priority was in the run with scheduling.
    pub noise_floor_us: NoiseReport,
    /// Share of the run with scheduling in which the machine itself stood still, 0 to 1.
    pub stalled_share: f64,
    /// Payload bytes that Moirai copied between disk and link, in both runs.
    pub payload_copies: u64,
}

/// Lateness of the noise probe, microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct NoiseReport {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Longest.
    pub max: u64,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunReport {
    /// What each tenant got.
    pub tenants: Vec<TenantReport>,
    /// What the tenant that sleeps and wakes says of its jobs.
    pub pulse: PulseReport,
    /// Whether all of them were on time but for those that a stall of the machine excuses.
    pub pulse_on_time: bool,
    /// What each receiver saw.
    pub receivers: Vec<ReceiverReport>,
    /// Share of the run in which the machine itself stood still, 0 to 1.
    pub stalled_share: f64,
}

/// Service of one tenant.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// CPU time.
    pub cpu: ServiceReport,
    /// Disk time.
    pub disk: ServiceReport,
    /// Transmission time.
    pub link: ServiceReport,
}

/// Service on one resource, nanoseconds in every second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ServiceReport {
    /// What its contract promises.
    pub reserved: u64,
    /// What it got of that.
    pub guaranteed: u64,
    /// What it got of the slack.
    pub extra: u64,
    /// Periods in the whole run in which it wanted its slice and did not get it.
    pub misses: u64,
    /// The same, but the machine stood still in that period.
    pub misses_in_stall: u64,
}

/// What one receiver saw.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReceiverReport {
    /// Its name.
    pub name: String,
    /// Packets that arrived; frames for the player.
    pub packets: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Packets more than 20 ms behind the RTP clock, outside stalls of the machine.
    pub late: u64,
    /// The same, but the machine stood still while they were due, or so shortly before that the
    /// film was still recovering from it.
    pub late_in_stall: u64,
    /// 99th percentile of the lateness, microseconds.
    pub late_p99_us: u64,
    /// Largest lateness, microseconds.
    pub late_max_us: u64,
    /// RFC 3550 jitter, microseconds.
    pub jitter_us: u64,
    /// Errors and discontinuities that ffmpeg reported; 0 for a recorder.
    pub decode_errors: u64,
    /// The first of these reports, word by word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

impl ReceiverReport {
    pub(super) fn recorder(name: String, seen: &Analysis) -> Self {
        Self {
            name,
            packets: seen.packets,
            lost: seen.lost,
            late: seen.late,
            late_in_stall: seen.late_in_stall,
            late_p99_us: seen.late_p99_us,
            late_max_us: seen.late_max_us,
            jitter_us: seen.jitter_us,
            ..Self::default()
        }
    }

    /// Whether the film came through as promised.
    fn is_intact(&self) -> bool {
        self.packets > 0 && self.lost == 0 && self.late == 0 && self.decode_errors == 0
    }
}

impl RunReport {
    /// Whether the tenant with reservations got them and its film arrived on time, everywhere.
    #[must_use]
    pub fn kept(&self, tenant: &str) -> bool {
        let served = self.tenants.iter().filter(|report| report.name == tenant);
        let missed = served.map(|t| t.cpu.misses + t.disk.misses + t.link.misses).sum::<u64>();
        missed == 0
            && !self.receivers.is_empty()
            && self.receivers.iter().all(ReceiverReport::is_intact)
    }
}

impl DemoReport {
    /// The table of both runs.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (title, run) in
            [("with scheduling", &self.with), ("without (FIFO, fair CPU)", &self.without)]
        {
            tenants(&mut text, title, run);
            receivers(&mut text, run);
            jobs(&mut text, run.pulse);
        }
        let noise = self.noise_floor_us;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "noise floor of this machine: p50 {} us, p99 {} us, max {} us; stalled {:.2}% of the \
             run",
            noise.p50,
            noise.p99,
            noise.max,
            self.stalled_share * 100.0
        );
        let _ = writeln!(text, "payload bytes copied by Moirai: {}", self.payload_copies);
        let verdict = match (self.kept, self.control_failed) {
            (true, true) => "guarantees kept; the same load without scheduling ruined the film",
            (true, false) => {
                "guarantees kept, BUT the control was kept too: this load shows nothing"
            }
            (false, _) => "guarantees NOT kept",
        };
        let _ = writeln!(text, "{verdict}");
        text
    }
}

/// Share of a second in percent.
fn percent(service: u64) -> f64 {
    // Exact for anything below 2^53 ns.
    #[allow(clippy::cast_precision_loss, reason = "display only")]
    let service = service as f64;
    service / 1e7
}

fn tenants(text: &mut String, title: &str, run: &RunReport) {
    let _ = writeln!(text, "\n{title:<26}{:^32}{:^32}{:^32}", "CPU", "disk", "link");
    let _ = write!(text, "{:<26}", "tenant");
    for _ in 0..3 {
        let _ = write!(text, " {:>7}{:>7}{:>7}{:>8}  ", "reserv", "guar", "extra", "missed");
    }
    text.push('\n');
    for tenant in &run.tenants {
        let _ = write!(text, "{:<26}", tenant.name);
        for service in [tenant.cpu, tenant.disk, tenant.link] {
            let _ = write!(
                text,
                " {:>6.1}%{:>6.1}%{:>6.1}%{:>8}  ",
                percent(service.reserved),
                percent(service.guaranteed),
                percent(service.extra),
                format!("{}+{}", service.misses, service.misses_in_stall)
            );
        }
        text.push('\n');
    }
}

fn receivers(text: &mut String, run: &RunReport) {
    let _ = writeln!(
        text,
        "{:<26} {:>9}{:>8}{:>8}{:>10}{:>12}{:>12}{:>10}{:>8}",
        "receiver", "packets", "lost", "late", "in stall", "p99 us", "max us", "jitter", "errors"
    );
    for receiver in &run.receivers {
        let _ = writeln!(
            text,
            "{:<26} {:>9}{:>8}{:>8}{:>10}{:>12}{:>12}{:>10}{:>8}",
            receiver.name,
            receiver.packets,
            receiver.lost,
            receiver.late,
            receiver.late_in_stall,
            receiver.late_p99_us,
            receiver.late_max_us,
            receiver.jitter_us,
            receiver.decode_errors
        );
        for complaint in &receiver.complaints {
            let _ = writeln!(text, "    {complaint}");
        }
    }
}

fn jobs(text: &mut String, pulse: PulseReport) {
    let PulseReport { t_ms: _, jobs, late, undone, worst_us, start_worst_us } = pulse;
    let _ = writeln!(
        text,
        "pulse: {jobs} jobs, {late} late, {undone} not done; the slowest was done {worst_us} us \
         after its wake-up and began {start_worst_us} us after it"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(late: u64, misses: u64) -> RunReport {
        let cpu = ServiceReport { misses, ..ServiceReport::default() };
        RunReport {
            tenants: vec![TenantReport { name: "cinema".into(), cpu, ..TenantReport::default() }],
            receivers: vec![ReceiverReport { packets: 10, late, ..ReceiverReport::default() }],
            ..RunReport::default()
        }
    }

    #[test]
    fn one_late_packet_or_one_missed_period_breaks_the_promise() {
        assert!(run(0, 0).kept("cinema"));
        assert!(!run(1, 0).kept("cinema"));
        assert!(!run(0, 1).kept("cinema"));
    }

    #[test]
    fn a_film_that_nobody_received_did_not_arrive_on_time() {
        let mut silent = run(0, 0);
        silent.receivers[0].packets = 0;
        assert!(!silent.kept("cinema"));
        silent.receivers.clear();
        assert!(!silent.kept("cinema"));
    }

    #[test]
    fn misses_of_the_other_tenants_are_not_the_promise() {
        assert!(run(0, 7).kept("somebody else"));
    }
}

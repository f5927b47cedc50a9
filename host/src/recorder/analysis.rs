//! From arrivals to lateness, loss and jitter. Pure.
//!
//! The sender's clock is not ours, but it runs at the same rate (RTP time stamps count it). The
//! packet that came soonest after its time stamp fixes the offset; every other packet is *late* by
//! how much longer it took. This is the strictest reading: no packet is early.

use moirai_scheduler::Nanos;
use serde::{Deserialize, Serialize};

use super::Arrival;
use super::rtp::CLOCK_HZ;
use crate::dispatcher::Stall;

/// A packet further behind the RTP clock than this is late.
pub const LATE_NS: Nanos = 20_000_000;

/// What one receiver saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Packets that arrived.
    pub packets: u64,
    /// Packets missing between the first and the last sequence number.
    pub lost: u64,
    /// Packets more than [`LATE_NS`] behind the RTP clock, outside stalls of the machine.
    pub late: u64,
    /// The same, but the machine stood still between the packet's due time and its arrival.
    pub late_in_stall: u64,
    /// 99th percentile of the lateness, microseconds.
    pub late_p99_us: u64,
    /// Largest lateness, microseconds.
    pub late_max_us: u64,
    /// Interarrival jitter at the end (RFC 3550 section 6.4.1), microseconds.
    pub jitter_us: u64,
}

/// One packet on the common time line, for plots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// When it should have come, CLOCK_MONOTONIC.
    pub due: Nanos,
    /// How much later it came.
    pub late: Nanos,
}

/// Lateness of every packet, in order of arrival. Time stamps may wrap around.
#[must_use]
pub fn lateness(arrivals: &[Arrival]) -> Vec<Lateness> {
    let Some(first) = arrivals.first() else { return Vec::new() };
    let mut media = Vec::with_capacity(arrivals.len());
    let (mut ticks, mut last) = (0i64, first.timestamp);
    for arrival in arrivals {
        // The difference modulo 2^32 as a signed number unwraps the counter in both directions.
        ticks += i64::from(arrival.timestamp.wrapping_sub(last).cast_signed());
        last = arrival.timestamp;
        media.push(i128::from(ticks) * 1_000_000_000 / i128::from(CLOCK_HZ));
    }
    let offset = |(arrival, media): (&Arrival, &i128)| i128::from(arrival.at) - media;
    let base = arrivals.iter().zip(&media).map(offset).min().unwrap_or(0);
    let line = arrivals.iter().zip(&media).map(|(arrival, media)| {
        let due = Nanos::try_from(base + media).unwrap_or(0);
        Lateness { due, late: arrival.at.saturating_sub(due) }
    });
    line.collect()
}

/// Sums up what one receiver saw.
#[must_use]
pub fn analyse(arrivals: &[Arrival], stalls: &[Stall]) -> Analysis {
    let line = lateness(arrivals);
    let mut result = Analysis {
        packets: arrivals.len() as u64,
        lost: lost(arrivals),
        jitter_us: jitter_ns(&line) / 1_000,
        ..Analysis::default()
    };
    for packet in line.iter().filter(|packet| packet.late > LATE_NS) {
        let arrived = packet.due + packet.late;
        if stalls.iter().any(|stall| stall.begin < arrived && packet.due < stall.end) {
            result.late_in_stall += 1;
        } else {
            result.late += 1;
        }
    }
    let mut sorted: Vec<Nanos> = line.iter().map(|packet| packet.late).collect();
    sorted.sort_unstable();
    if let Some(&max) = sorted.last() {
        result.late_max_us = max / 1_000;
        result.late_p99_us =
            sorted.get((sorted.len() - 1) * 99 / 100).map_or(0, |late| late / 1_000);
    }
    result
}

/// Sequence numbers missing between the first and the highest one, wrap-around unfolded.
fn lost(arrivals: &[Arrival]) -> u64 {
    let Some(first) = arrivals.first() else { return 0 };
    let (mut unfolded, mut last) = (0i64, first.sequence);
    let mut seen: Vec<i64> = Vec::with_capacity(arrivals.len());
    for arrival in arrivals {
        unfolded += i64::from(arrival.sequence.wrapping_sub(last).cast_signed());
        last = arrival.sequence;
        seen.push(unfolded);
    }
    seen.sort_unstable();
    seen.dedup();
    let span = seen.first().zip(seen.last()).map_or(0, |(low, high)| high - low + 1);
    u64::try_from(span).unwrap_or(0).saturating_sub(seen.len() as u64)
}

/// RFC 3550: `J += (|D| - J) / 16`, D the difference of the lateness of neighbours. Kept in
/// sixteenths so that the division loses nothing.
fn jitter_ns(line: &[Lateness]) -> Nanos {
    let mut sixteenths: u64 = 0;
    for pair in line.windows(2) {
        if let [before, after] = pair {
            let difference = before.late.abs_diff(after.late);
            sixteenths = (sixteenths + difference).saturating_sub((sixteenths + 8) / 16);
        }
    }
    sixteenths / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets `gap_ticks` apart, each delayed by what `delay` says.
    fn stream(count: u16, delay: impl Fn(u16) -> Nanos) -> Vec<Arrival> {
        let packet = |n: u16| Arrival {
            at: 1_000_000_000 + u64::from(n) * 10_000_000 + delay(n),
            sequence: n.wrapping_add(65_530),
            timestamp: (u32::from(n) * 900).wrapping_sub(5_000),
        };
        (0..count).map(packet).collect()
    }

    #[test]
    fn a_stream_in_time_has_no_lateness_across_both_wrap_arounds() {
        let analysis = analyse(&stream(100, |_| 0), &[]);
        assert_eq!(analysis, Analysis { packets: 100, ..Analysis::default() });
    }

    #[test]
    fn lateness_is_counted_against_the_soonest_packet() {
        let analysis = analyse(&stream(100, |n| if n < 50 { 30_000_000 } else { 1_000_000 }), &[]);
        assert_eq!((analysis.late, analysis.late_max_us), (50, 29_000));
    }

    #[test]
    fn a_late_packet_in_a_stall_is_counted_apart() {
        let late = |n| if n == 10 || n == 60 { 25_000_000 } else { 0 };
        let due = 1_000_000_000 + 10 * 10_000_000;
        let stall = Stall { begin: due + 1_000_000, end: due + 24_000_000 };
        let analysis = analyse(&stream(100, late), &[stall]);
        assert_eq!((analysis.late, analysis.late_in_stall), (1, 1));
    }

    #[test]
    fn loss_is_what_is_missing_and_reordering_is_no_loss() {
        let mut arrivals = stream(100, |_| 0);
        arrivals.remove(3);
        arrivals.remove(70);
        arrivals.swap(20, 21);
        assert_eq!(analyse(&arrivals, &[]).lost, 2);
    }

    #[test]
    fn jitter_converges_to_the_mean_difference_of_neighbours() {
        let analysis = analyse(&stream(2_000, |n| u64::from(n % 2) * 2_000_000), &[]);
        assert!((1_950..=2_050).contains(&analysis.jitter_us), "{}", analysis.jitter_us);
    }

    #[test]
    fn nothing_received_is_nothing_analysed() {
        assert_eq!(analyse(&[], &[]), Analysis::default());
    }
}

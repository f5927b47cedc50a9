//! From arrivals to lateness, loss and jitter. Pure.
//!
//! The sender's clock is not ours, but it runs at the same rate (RTP time stamps count it). The
//! packet that came soonest after its time stamp fixes the offset; every other packet is *late* by
//! how much longer it took. This is the strictest reading: no packet is early.

use serde::{Deserialize, Serialize};

use super::Arrival;
use super::rtp::CLOCK_HZ;
use moirai_runtime::Stall;
use moirai_scheduler::{Moment, Span};

/// A packet further behind the RTP clock than this is late.
pub const LATE: Span = Span::from_millis(20);

/// What one receiver saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Packets that arrived.
    pub packets: u64,
    /// Packets missing between the first and the last sequence number.
    pub lost: u64,
    /// Packets more than [`LATE`] behind the RTP clock, outside stalls of the machine.
    pub late: u64,
    /// The same, but the machine stood still between the packet's due time and its arrival, or so
    /// shortly before that what had piled up was still being worked off ([`Stalls`]).
    pub late_in_stall: u64,
    /// 99th percentile of the lateness, microseconds.
    pub late_p99_us: u64,
    /// Largest lateness, microseconds.
    pub late_max_us: u64,
    /// Interarrival jitter at the end (RFC 3550 section 6.4.1), microseconds.
    pub jitter_us: u64,
}

/// When the machine stood still, and how fast a stream recovers from that.
///
/// What a stall has held up does not leave at once when it is over: the stream goes on with what it
/// has reserved, of which its present packets need the share `used_permille`. So a stall of length
/// L leaves the stream L behind, and that delay shrinks by the unused share of the time that
/// passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stalls<'a> {
    /// The stalls, in any order.
    pub stalls: &'a [Stall],
    /// Service that the stream uses of what it has reserved, in thousandths; 1000 never recovers.
    pub used_permille: u64,
}

impl Stalls<'_> {
    /// Whether any stall touches the time from `due` to `arrived`.
    fn touch(&self, due: Moment, arrived: Moment) -> bool {
        self.stalls.iter().any(|stall| stall.begin < arrived && due < stall.end)
    }

    /// How far behind the stalls before `time` have left the stream.
    fn behind(&self, time: Moment) -> Span {
        let mut stalls: Vec<&Stall> = self.stalls.iter().filter(|s| s.end <= time).collect();
        stalls.sort_unstable_by_key(|stall| stall.begin);
        let unused = 1000u64.saturating_sub(self.used_permille);
        let recover = |behind: Span, from: Moment, to: Moment| {
            let gained = to.since(from).wide() * u128::from(unused) / 1000;
            behind.saturating_sub(Span::from_wide(gained))
        };
        let (mut behind, mut seen) = (Span::ZERO, Moment::ZERO);
        for stall in stalls {
            behind = recover(behind, seen, stall.begin);
            // Several cores may see the same stall: each moment counts once.
            behind += stall.end.since(stall.begin.max(seen));
            seen = seen.max(stall.end);
        }
        recover(behind, seen, time)
    }
}

/// One packet on the common time line, for plots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// When it should have come, CLOCK_MONOTONIC.
    pub due: Moment,
    /// How much later it came.
    pub late: Span,
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
    let offset = |(arrival, media): (&Arrival, &i128)| i128::from(arrival.at.as_nanos()) - media;
    let base = arrivals.iter().zip(&media).map(offset).min().unwrap_or(0);
    let line = arrivals.iter().zip(&media).map(|(arrival, media)| {
        let due = Moment::from_nanos(u64::try_from(base + media).unwrap_or(0));
        Lateness { due, late: arrival.at.since(due) }
    });
    line.collect()
}

/// Sums up what one receiver saw.
#[must_use]
pub fn analyse(arrivals: &[Arrival], stalls: &Stalls<'_>) -> Analysis {
    let line = lateness(arrivals);
    let mut result = Analysis {
        packets: arrivals.len() as u64,
        lost: lost(arrivals),
        jitter_us: jitter(&line).as_micros(),
        ..Analysis::default()
    };
    for packet in line.iter().filter(|packet| packet.late > LATE) {
        let arrived = packet.due + packet.late;
        let excused = packet.late - LATE <= stalls.behind(packet.due);
        if excused || stalls.touch(packet.due, arrived) {
            result.late_in_stall += 1;
        } else {
            result.late += 1;
        }
    }
    let mut sorted: Vec<Span> = line.iter().map(|packet| packet.late).collect();
    sorted.sort_unstable();
    if let Some(&max) = sorted.last() {
        result.late_max_us = max.as_micros();
        result.late_p99_us =
            sorted.get((sorted.len() - 1) * 99 / 100).map_or(0, |late| late.as_micros());
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
fn jitter(line: &[Lateness]) -> Span {
    let mut sixteenths: u64 = 0;
    for pair in line.windows(2) {
        if let [before, after] = pair {
            let difference = before.late.abs_diff(after.late).as_nanos();
            sixteenths = (sixteenths + difference).saturating_sub((sixteenths + 8) / 16);
        }
    }
    Span::from_nanos(sixteenths / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Span = Span::from_millis(10);

    /// Packets `gap_ticks` apart, each delayed by what `delay` says.
    fn stream(count: u16, delay: impl Fn(u16) -> u64) -> Vec<Arrival> {
        let packet = |n: u16| Arrival {
            at: Moment::from_secs(1) + u64::from(n) * TEN + Span::from_nanos(delay(n)),
            sequence: n.wrapping_add(65_530),
            timestamp: (u32::from(n) * 900).wrapping_sub(5_000),
        };
        (0..count).map(packet).collect()
    }

    #[test]
    fn a_stream_in_time_has_no_lateness_across_both_wrap_arounds() {
        let analysis = analyse(&stream(100, |_| 0), &Stalls::default());
        assert_eq!(analysis, Analysis { packets: 100, ..Analysis::default() });
    }

    #[test]
    fn lateness_is_counted_against_the_soonest_packet() {
        let delays = |n| if n < 50 { 30_000_000 } else { 1_000_000 };
        let analysis = analyse(&stream(100, delays), &Stalls::default());
        assert_eq!((analysis.late, analysis.late_max_us), (50, 29_000));
    }

    #[test]
    fn a_late_packet_in_a_stall_is_counted_apart() {
        let late = |n| if n == 10 || n == 60 { 25_000_000 } else { 0 };
        let due = Moment::from_secs(1) + 10 * TEN;
        let stall = Stall { begin: due + Span::from_millis(1), end: due + Span::from_millis(24) };
        let stalls = Stalls { stalls: &[stall], used_permille: 900 };
        let analysis = analyse(&stream(100, late), &stalls);
        assert_eq!((analysis.late, analysis.late_in_stall), (1, 1));
    }

    #[test]
    fn what_a_stall_has_held_up_is_worked_off_with_the_unused_share() {
        let stalls = [(100, 200), (150, 200), (250, 300)];
        let at = Moment::from_nanos;
        let stalls = stalls.map(|(begin, end)| Stall { begin: at(begin), end: at(end) });
        let stalls = Stalls { stalls: &stalls, used_permille: 600 };
        assert_eq!(
            stalls.behind(at(150)).as_nanos(),
            0,
            "a stall that lasts is no stall that has been"
        );
        assert_eq!(stalls.behind(at(200)).as_nanos(), 100);
        assert_eq!(stalls.behind(at(300)).as_nanos(), 100 - 20 + 50);
        assert_eq!(stalls.behind(at(400)).as_nanos(), 130 - 40);
        assert_eq!(stalls.behind(at(10_000)).as_nanos(), 0);
    }

    #[test]
    fn later_than_the_stalls_explain_is_late() {
        // Ten milliseconds of stall, then packets 25 ms late that recover by a tenth of the time.
        let stall = Stall { begin: Moment::from_secs(1), end: Moment::from_secs(1) + TEN };
        let delay = |n| if (10..20).contains(&n) { 25_000_000 } else { 0 };
        let stalls = Stalls { stalls: &[stall], used_permille: 960 };
        let analysis = analyse(&stream(100, delay), &stalls);
        // Behind by 10 ms - 0.04 * (due - end): 5 ms are left 125 ms after the end of the stall.
        assert_eq!((analysis.late_in_stall, analysis.late), (4, 6));
    }

    #[test]
    fn loss_is_what_is_missing_and_reordering_is_no_loss() {
        let mut arrivals = stream(100, |_| 0);
        arrivals.remove(3);
        arrivals.remove(70);
        arrivals.swap(20, 21);
        assert_eq!(analyse(&arrivals, &Stalls::default()).lost, 2);
    }

    #[test]
    fn jitter_converges_to_the_mean_difference_of_neighbours() {
        let uneven = stream(2_000, |n| u64::from(n % 2) * 2_000_000);
        let analysis = analyse(&uneven, &Stalls::default());
        assert!((1_950..=2_050).contains(&analysis.jitter_us), "{}", analysis.jitter_us);
    }

    #[test]
    fn nothing_received_is_nothing_analysed() {
        assert_eq!(analyse(&[], &Stalls::default()), Analysis::default());
    }
}

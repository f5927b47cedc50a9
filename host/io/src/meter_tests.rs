//! Every busy nanosecond is charged once, and to whom it should be.

use moirai_scheduler::{Amount, Moment, Span};
use proptest::prelude::*;

use super::*;

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn work(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

#[test]
fn units_that_overlap_share_the_time_by_weight_and_an_idle_disk_costs_nobody() {
    let mut meter = Meter::with_depth(2);
    let large = meter.begin(work(300), at(1_000));
    let small = meter.begin(work(100), at(1_100));
    let large = meter.end(large, at(1_300)).unwrap();
    let small = meter.end(small, at(1_350)).unwrap();
    assert_eq!((large.share, small.share), (work(100 + 150), work(50 + 50)));
    assert_eq!(
        (large.begun, small.begun, large.alone, small.alone),
        (at(1_000), at(1_100), false, false)
    );
    assert_eq!((meter.busy(), meter.in_flight()), (Span::from_nanos(350), 0));
    let alone = meter.begin(work(7), at(9_000));
    assert_eq!(
        meter.end(alone, at(9_010)),
        Some(Ended { share: work(10), begun: at(9_000), alone: true })
    );
    assert_eq!((meter.end(alone, at(9_020)), meter.busy()), (None, Span::from_nanos(360)));
}

proptest! {
    #[test]
    fn charges_add_up_to_the_busy_time(
        steps in prop::collection::vec((0_u64..1_000_000, 0_usize..8, 0_u64..5_000_000), 1..200),
    ) {
        let mut meter = Meter::default();
        let (mut now, mut paid) = (Moment::ZERO, Amount::ZERO);
        let mut inside = [None; 8];
        for (pause, place, weight) in steps {
            now += Span::from_nanos(pause);
            match inside[place].take() {
                Some(unit) => paid += meter.end(unit, now).unwrap().share,
                None => inside[place] = Some(meter.begin(Amount::from_nanos(weight), now)),
            }
            if meter.in_flight() == 0 {
                prop_assert_eq!(paid, meter.busy().service());
            }
        }
        for unit in inside.into_iter().flatten() {
            paid += meter.end(unit, now).unwrap().share;
        }
        prop_assert_eq!(paid, meter.busy().service());
    }
}

/// A disk that looks for the blocks of several units at a time and moves them one after the other;
/// its time is divided by weight and in equal parts.
#[derive(Default)]
struct Disk {
    now: Moment,
    /// When the wire to it is free.
    free: Moment,
    /// What is inside: bytes, end, names.
    inside: Vec<(u64, Moment, [UnitId; 2])>,
    meters: [Meter; 2],
}

const ACCESS: Span = Span::from_micros(60);

/// What a unit of so many bytes costs alone.
fn alone(bytes: u64) -> Amount {
    ACCESS.service() + Amount::from_nanos(bytes / 2)
}

impl Disk {
    fn begin(&mut self, bytes: u64) {
        self.free = self.free.max(self.now + ACCESS) + Span::from_nanos(bytes / 2);
        let [by_weight, equal] = &mut self.meters;
        let names = [by_weight.begin(alone(bytes), self.now), equal.begin(Amount::ONE, self.now)];
        self.inside.push((bytes, self.free, names));
    }

    /// The next unit comes back: its bytes and its two shares.
    fn end(&mut self) -> (u64, [Amount; 2]) {
        let place = (0..self.inside.len()).min_by_key(|place| self.inside[*place].1).unwrap();
        let (bytes, end, names) = self.inside.swap_remove(place);
        self.now = end;
        let [by_weight, equal] = &mut self.meters;
        let ended = [by_weight.end(names[0], end).unwrap(), equal.end(names[1], end).unwrap()];
        (bytes, ended.map(|ended| ended.share))
    }
}

#[test]
fn beside_large_units_a_small_one_is_charged_about_what_it_costs_alone() {
    const SMALL: u64 = 4 << 10;
    const LARGE: u64 = 1 << 20;
    let mut disk = Disk::default();
    // One small read at a time beside three large ones.
    [SMALL, LARGE, LARGE, LARGE].into_iter().for_each(|bytes| disk.begin(bytes));
    let (mut by_weight, mut equal) = (Amount::ZERO, Amount::ZERO);
    let (mut since, mut ends) = (Amount::ZERO, 0);
    for _ in 0..4_000 {
        let before = disk.now;
        let (bytes, [weighed, part]) = disk.end();
        if bytes == SMALL {
            (by_weight, equal) = (by_weight + weighed, equal + part);
            (since, ends) = (since + (disk.now - before).service(), ends + 1);
        }
        disk.begin(bytes);
    }
    let mean = |sum: Amount| sum / ends;
    let (by_weight, equal, since) = (mean(by_weight), mean(equal), mean(since));
    eprintln!(
        "4 KiB beside 1 MiB, {} ns alone: by weight {by_weight}, in equal parts {equal}, since the \
         previous completion {since}",
        alone(SMALL)
    );
    assert!(by_weight < alone(SMALL) * 3, "{by_weight}");
    assert!(equal > by_weight * 4, "{equal}");
}

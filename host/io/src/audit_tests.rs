//! What an outage of the machine excuses, and what it does not.

use moirai_scheduler::admission::WHOLE_PPM;
use moirai_scheduler::excuse::{Outage, union};
use moirai_scheduler::{ClientId, Moment, Span};

use super::*;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

fn miss(since: Moment, deadline: Moment, late: Span) -> Miss {
    Miss { client: ClientId(0), since, deadline, late }
}

fn outage(begin: Moment, end: Moment) -> Outage {
    Outage { begin, end }
}

#[test]
fn a_hiccup_excuses_a_miss_of_its_length_and_no_longer_one() {
    let hiccup = [outage(Moment::from_millis(50), Moment::from_nanos(50 * MS + 300 * US))];
    let alone =
        |late| excuse(&miss(Moment::ZERO, Moment::from_millis(100), late), &hiccup, WHOLE_PPM);
    assert_eq!(alone(Span::from_micros(300)), Some(Span::from_micros(300)));
    assert_eq!(alone(Span::from_micros(301)), None, "a long period is no excuse");
    let half_left =
        |late| excuse(&miss(Moment::ZERO, Moment::from_millis(100), late), &hiccup, WHOLE_PPM / 2);
    assert_eq!(
        half_left(Span::from_micros(600)),
        Some(Span::from_micros(300)),
        "the backlog goes at half the speed"
    );
    assert_eq!(half_left(Span::from_micros(601)), None);
}

#[test]
fn a_hiccup_before_the_promise_excuses_while_its_backlog_lasts() {
    let hiccup = [outage(Moment::ZERO, Moment::from_millis(1))];
    let after = |since| {
        excuse(
            &miss(since, since + Span::from_millis(10), Span::from_millis(1)),
            &hiccup,
            WHOLE_PPM / 4,
        )
    };
    assert_eq!(
        after(Moment::from_nanos(5 * MS - 1)),
        Some(Span::from_millis(1)),
        "one millisecond, and four of recovery"
    );
    assert_eq!(after(Moment::from_millis(5)), None);
    let late = miss(Moment::ZERO, Moment::from_millis(10), Span::from_millis(2));
    assert_eq!(
        excuse(&late, &[outage(Moment::from_millis(12), Moment::from_millis(15))], WHOLE_PPM),
        None,
        "it came after the end"
    );
}

#[test]
fn a_resource_that_is_promised_to_the_last_is_not_excused_for_ever() {
    let hiccup = [outage(Moment::ZERO, Moment::from_millis(1))];
    assert_eq!(
        excuse(&miss(Moment::from_millis(22), Moment::from_millis(30), Span::ONE), &hiccup, 0),
        None
    );
    assert_eq!(
        excuse(&miss(Moment::ZERO, Moment::from_millis(30), Span::from_millis(21)), &hiccup, 0),
        None
    );
}

#[test]
fn outages_add_up_and_the_same_time_is_counted_once() {
    let outages = union(
        [(7, 9), (1, 4), (3, 5), (5, 6), (8, 8)]
            .map(|(b, e)| outage(Moment::from_nanos(b), Moment::from_nanos(e)))
            .to_vec(),
    );
    assert_eq!(
        outages,
        [
            outage(Moment::from_nanos(1), Moment::from_nanos(6)),
            outage(Moment::from_nanos(7), Moment::from_nanos(9))
        ]
    );
    assert_eq!(
        excuse(
            &miss(Moment::ZERO, Moment::from_nanos(20), Span::from_nanos(7)),
            &outages,
            WHOLE_PPM
        ),
        Some(Span::from_nanos(7))
    );
    assert_eq!(
        excuse(
            &miss(Moment::ZERO, Moment::from_nanos(20), Span::from_nanos(8)),
            &outages,
            WHOLE_PPM
        ),
        None
    );
}

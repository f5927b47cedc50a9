//! What an outage of the machine excuses, and what it does not.

use moirai_scheduler::ClientId;
use moirai_scheduler::admission::WHOLE_PPM;

use super::*;

const US: Nanos = 1_000;
const MS: Nanos = 1_000_000;

fn miss(since: Nanos, deadline: Nanos, late: Nanos) -> Miss {
    Miss { client: ClientId(0), since, deadline, late }
}

fn outage(begin: Nanos, end: Nanos) -> Outage {
    Outage { begin, end }
}

#[test]
fn a_hiccup_excuses_a_miss_of_its_length_and_no_longer_one() {
    let hiccup = [outage(50 * MS, 50 * MS + 300 * US)];
    let alone = |late| excuse(&miss(0, 100 * MS, late), &hiccup, WHOLE_PPM);
    assert_eq!(alone(300 * US), Some(300 * US));
    assert_eq!(alone(301 * US), None, "a long period is no excuse");
    let half_left = |late| excuse(&miss(0, 100 * MS, late), &hiccup, WHOLE_PPM / 2);
    assert_eq!(half_left(600 * US), Some(300 * US), "the backlog goes at half the speed");
    assert_eq!(half_left(601 * US), None);
}

#[test]
fn a_hiccup_before_the_promise_excuses_while_its_backlog_lasts() {
    let hiccup = [outage(0, MS)];
    let after = |since| excuse(&miss(since, since + 10 * MS, MS), &hiccup, WHOLE_PPM / 4);
    assert_eq!(after(5 * MS - 1), Some(MS), "one millisecond, and four of recovery");
    assert_eq!(after(5 * MS), None);
    let late = miss(0, 10 * MS, 2 * MS);
    assert_eq!(
        excuse(&late, &[outage(12 * MS, 15 * MS)], WHOLE_PPM),
        None,
        "it came after the end"
    );
}

#[test]
fn a_resource_that_is_promised_to_the_last_is_not_excused_for_ever() {
    let hiccup = [outage(0, MS)];
    assert_eq!(excuse(&miss(22 * MS, 30 * MS, 1), &hiccup, 0), None);
    assert_eq!(excuse(&miss(0, 30 * MS, 21 * MS), &hiccup, 0), None);
}

#[test]
fn outages_add_up_and_the_same_time_is_counted_once() {
    let outages =
        union([(7, 9), (1, 4), (3, 5), (5, 6), (8, 8)].map(|(b, e)| outage(b, e)).to_vec());
    assert_eq!(outages, [outage(1, 6), outage(7, 9)]);
    assert_eq!(excuse(&miss(0, 20, 7), &outages, WHOLE_PPM), Some(7));
    assert_eq!(excuse(&miss(0, 20, 8), &outages, WHOLE_PPM), None);
}

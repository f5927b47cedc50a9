//! What the steps between the types do, and where they end.

use alloc::format;

use super::*;

#[test]
fn a_span_lies_between_two_moments_and_is_never_negative() {
    let (early, late) = (Moment::from_nanos(5), Moment::from_nanos(12));
    assert_eq!((late.since(early), late - early), (Span::from_nanos(7), Span::from_nanos(7)));
    assert_eq!(early.since(late), Span::ZERO);
    assert_eq!(early + Span::from_nanos(7), late);
    assert_eq!(late - Span::from_nanos(7), early);
    assert_eq!(Moment::MAX.saturating_add(Span::from_nanos(1)), Moment::MAX);
    assert_eq!(early.saturating_sub(Span::from_nanos(6)), Moment::ZERO);
}

#[test]
fn the_whole_resource_gives_a_nanosecond_of_service_in_each() {
    let (span, amount) = (Span::from_micros(3), Amount::from_micros(3));
    assert_eq!((span.service(), amount.time()), (amount, span));
}

#[test]
fn debt_is_signed_and_leaves_nothing() {
    assert_eq!(Amount::from_nanos(3).signed(), 3);
    assert_eq!(Amount::MAX.signed(), i64::MAX);
    assert_eq!(Amount::from_signed(-3), Amount::ZERO);
    assert_eq!(Amount::from_signed(3), Amount::from_nanos(3));
}

#[test]
fn quantities_are_summed_counted_and_end_at_the_ends_of_the_range() {
    let (one, three) = (Span::from_millis(1), Span::from_millis(3));
    assert_eq!((one + one + one, 3 * one, three - one - one), (three, three, one));
    assert_eq!((three / one, three / 3, (three + one) % three), (3, one, one));
    assert_eq!([one, one, one].into_iter().sum::<Span>(), three);
    assert_eq!((three.div_ceil(one + one), one.abs_diff(three)), (2, one + one));
    assert_eq!((three.checked_div(Span::ZERO), three.checked_rem(Span::ZERO)), (None, None));
    assert_eq!((one.checked_sub(three), one.saturating_sub(three)), (None, Span::ZERO));
    assert_eq!((Span::MAX.checked_add(one), Span::MAX.saturating_add(one)), (None, Span::MAX));
    assert_eq!((Span::MAX.checked_mul(2), Span::MAX.saturating_mul(2)), (None, Span::MAX));
    assert_eq!(Span::from_wide(three.wide() * 2), 2 * three);
    assert_eq!(Span::from_wide(u128::MAX), Span::MAX);
    assert_eq!(Span::from_secs(u64::MAX), Span::MAX, "also where a unit is read");
}

#[test]
fn the_text_of_each_is_the_plain_number() {
    let (moment, span) = (Moment::from_micros(7), Span::from_millis(2));
    assert_eq!(format!("{moment} {span:?} {:>4}", Amount::from_nanos(9)), "7000 2000000    9");
    assert_eq!((span.as_micros(), span.as_millis(), span.as_nanos()), (2_000, 2, 2_000_000));
    assert_eq!(Span::from_duration(span.duration()), span);
    assert_eq!(Span::from_duration(Duration::MAX), Span::MAX);
    assert!(Moment::default().is_zero() && !moment.is_zero());
}

//! Tests of when bytes are due.

use super::*;

#[test]
fn bytes_between_references_pass_at_an_even_rate() {
    let mut line = Timeline::default();
    line.add(1000, 500, false);
    line.add(2000, 27_500, false);
    // So they do in front of the first one.
    assert_eq!(line.due(0, false), Some(0));
    assert_eq!(line.due(500, false), Some(13_500));
    assert_eq!(line.due(1000, false), Some(27_000));
    assert_eq!(line.due(1500, false), Some(40_500));
    assert_eq!(line.due(2000, false), Some(54_000));
}

#[test]
fn behind_the_last_reference_the_rate_is_kept_only_at_the_end() {
    let mut line = Timeline::default();
    line.add(0, 0, false);
    line.add(1000, 1000, false);
    assert_eq!(line.due(1500, false), None);
    assert_eq!(line.due(1500, true), Some(1500));
}

#[test]
fn clock_that_wraps_goes_on() {
    let mut line = Timeline::default();
    line.add(0, PCR_WRAP - 100, false);
    line.add(1000, 900, false);
    assert_eq!(line.due(1000, false), Some(1000));
}

#[test]
fn time_does_not_jump_where_the_clock_does() {
    let mut line = Timeline::default();
    line.add(0, 50_000_000, false);
    line.add(1000, 50_027_000, false);
    line.jump();
    line.add(2000, 0, false);
    line.add(3000, 27_000, false);
    assert_eq!(line.due(2000, false), Some(54_000));
    assert_eq!(line.due(2500, false), Some(67_500));
    // A film that was cut: the clock goes back without anybody saying so.
    line.add(4000, 1_000, false);
    assert_eq!(line.due(4000, true), Some(108_000));
}

/// References every 40 ms and 1000 bytes, at the second with `jump` from there on.
fn with_jump(jump: i64, declared: bool) -> Timeline {
    let mut line = Timeline::default();
    for step in 0..50u64 {
        let jumped = if step < 25 { 0 } else { jump };
        let pcr = (PCR_WRAP + step * 1_080_000).checked_add_signed(jumped).unwrap_or(0);
        line.add(step * 1000, pcr % PCR_WRAP, declared && step == 25);
    }
    line
}

#[test]
fn jump_costs_no_time_whether_the_film_declares_it_or_not() {
    let second = 27_000_000;
    for jump in [5 * second, 3600 * second, -50 * second, -second / 50, 2 * second] {
        for declared in [true, false] {
            let mut line = with_jump(jump, declared);
            let found = (line.declared_jumps, line.undeclared_jumps);
            let expected = if declared || jump == -second / 50 { found } else { (0, 1) };
            assert_eq!(found, expected, "{jump}");
            assert!(!declared || found == (1, 0), "{jump}");
            let end = line.due(49_000, true).unwrap_or(0);
            assert!(end.abs_diff(49 * 1_080_000) <= 540_000, "{jump}: {end}");
        }
    }
}

#[test]
fn declared_jump_of_less_than_a_second_costs_no_time() {
    assert_eq!(with_jump(13_500_000, true).due(49_000, true), Some(49 * 1_080_000));
    let mut undeclared = with_jump(13_500_000, false);
    assert_eq!(undeclared.due(49_000, true), Some(49 * 1_080_000 + 13_500_000));
    assert_eq!(undeclared.undeclared_jumps, 0);
}

#[test]
fn rare_references_are_no_jumps() {
    let mut line = Timeline::default();
    for step in 0..5 {
        line.add(step * 1_000_000, step * 9 * 27_000_000, false);
    }
    assert_eq!(line.due(4_000_000, true), Some(36 * 27_000_000));
    assert_eq!(line.undeclared_jumps, 0);
}

#[test]
fn repeated_reference_says_nothing_new() {
    let mut line = Timeline::default();
    line.add(0, 0, false);
    line.add(1000, 1000, false);
    line.add(1188, 1000, false);
    line.add(2000, 2000, false);
    assert_eq!(line.due(1500, false), Some(1500));
    assert_eq!(line.undeclared_jumps, 0);
}

#[test]
fn due_times_never_shrink() {
    let (mut line, mut seed, mut pcr) = (Timeline::default(), 7u64, PCR_WRAP - 1_000_000);
    let mut last = 0;
    for step in 0..5000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        pcr = (pcr + seed % 3_000_000) % PCR_WRAP;
        if seed.is_multiple_of(97) {
            pcr = seed % PCR_WRAP;
        }
        line.add(step * 1316, pcr, false);
        if let Some(due) = line.due(step.saturating_sub(1) * 1316, false) {
            assert!(due >= last, "step {step}: {due} after {last}");
            last = due;
        }
    }
}

#[test]
fn without_two_references_the_fallback_counts_until_there_are() {
    let mut line = Timeline::new(8_000_000); // 27 ticks a byte
    line.add(376, 5, false);
    assert_eq!(line.due(0, false), None);
    assert!(!line.has_guessed());
    assert_eq!(line.due(376, true), Some(376 * 27));
    assert_eq!(line.due(1316, false), Some(1316 * 27), "it does not wait again");
    assert!(line.has_guessed());
    line.add(2376, 54_005, false);
    assert_eq!(line.due(2376, false), Some(376 * 27 + 54_000));
    assert_eq!(line.due(3000, false), None);
    let mut none = Timeline::new(1_000_000);
    assert_eq!((none.due(0, true), none.due(1000, true)), (Some(0), Some(216_000)));
    none.add(2000, 77, false);
    assert_eq!(none.due(2000, true), Some(432_000), "the first reference comes too late");
}

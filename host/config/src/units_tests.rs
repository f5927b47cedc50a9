//! What reads as a time, a size, a rate, and what does not.

use proptest::prelude::*;

use super::*;

#[test]
fn times_are_scaled_to_nanoseconds() {
    for (text, nanos) in [
        ("10ms", 10_000_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("1.5s", 1_500_000_000),
        ("0.000001ms", 1),
        (" 7 ns ", 7),
        ("0ms", 0),
        ("1.50000000000000000000000ms", 1_500_000),
    ] {
        assert_eq!(text.parse(), Ok(Time(nanos)), "{text}");
    }
}

#[test]
fn rates_keep_what_they_are_a_rate_of() {
    assert_eq!("8Mbit/s".parse(), Ok(Rate::Bits(8_000_000)));
    assert_eq!("20MB/s".parse(), Ok(Rate::Bytes(20_000_000)));
    assert_eq!("12.5%".parse(), Ok(Rate::Share(125_000)));
    assert_eq!("1MiB/s".parse(), Ok(Rate::Bytes(1 << 20)));
}

#[test]
fn sizes_count_in_powers_of_two() {
    assert_eq!("64M".parse(), Ok(Size(64 << 20)));
    assert_eq!("64K".parse(), Ok(Size(64 << 10)));
    assert_eq!("1.5G".parse(), Ok(Size(3 << 29)));
}

#[test]
fn each_broken_text_gets_its_own_error() {
    let error = |text: &str| text.parse::<Time>().expect_err(text);
    assert!(matches!(error(""), UnitError::Empty { .. }));
    assert!(matches!(error("-5ms"), UnitError::Negative { .. }));
    assert!(matches!(error("fast"), UnitError::NoNumber { .. }));
    assert!(matches!(error("1.2.3ms"), UnitError::NoNumber { .. }));
    assert!(matches!(error("10"), UnitError::NoUnit { .. }));
    assert!(matches!(error("10mS"), UnitError::UnknownUnit { .. }));
    assert!(matches!(error("99999999999999999999s"), UnitError::TooLarge { .. }));
    assert!(matches!(error("1.5ns"), UnitError::NotWhole { .. }));
}

#[test]
fn integers_are_the_smallest_unit_but_not_for_rates() {
    assert_eq!(serde_json::from_str::<Time>("5").expect("time"), Time(5));
    assert_eq!(serde_json::from_str::<Size>("5").expect("size"), Size(5));
    assert!(serde_json::from_str::<Rate>("5").is_err());
    assert!(serde_json::from_str::<Time>("-5").is_err());
    assert!(serde_json::from_str::<Time>("1.5").is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*") {
        let _ = text.parse::<Time>();
        let _ = text.parse::<Size>();
        let _ = text.parse::<Rate>();
    }

    #[test]
    fn texts_that_look_like_quantities_never_panic(text in "-?[0-9.]{0,45} \
                                                            ?(ns|ms|s|K|G|%|MB/s|bit/s|)") {
        let _ = text.parse::<Time>();
        let _ = text.parse::<Size>();
        let _ = text.parse::<Rate>();
    }

    #[test]
    fn every_value_reads_back_from_its_own_text(value: u64) {
        prop_assert_eq!(Time(value).to_string().parse(), Ok(Time(value)));
        prop_assert_eq!(Size(value).to_string().parse(), Ok(Size(value)));
        for rate in [Rate::Share(value), Rate::Bits(value), Rate::Bytes(value)] {
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}

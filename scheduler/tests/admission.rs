//! Admission: the closed forms, the exact test, refusals, and the ends of the ranges.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use moirai_scheduler::admission::{
    Channel, ChannelRefusal, DOrder, DrrQueue, Interrupt, Order, Overhead, Resource, WHOLE_PPM,
    admit, check, demand::Set, density_fits, drr_latency, reserved_ppm, utilisation_fits,
};
use moirai_scheduler::{Amount, Contract, Span, Weight};

const MS: u64 = 1_000_000;

fn contract(period: u64, slice: u64, deadline: u64) -> Contract {
    let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
    Contract::new(period, Amount::from_nanos(slice), deadline, None).unwrap()
}

fn plain(capacity_ppm: u32) -> Resource {
    Resource { capacity_ppm, blocking: Amount::ZERO, overhead: Overhead::NONE }
}

#[test]
fn three_thirds_fill_a_resource_exactly() {
    let third = contract(3 * MS, MS, 3 * MS);
    assert_eq!(check(&plain(WHOLE_PPM), &[third; 3]), Ok(()));
    assert_eq!(reserved_ppm(&[third; 3]), WHOLE_PPM);
    assert!(utilisation_fits(WHOLE_PPM, &[third; 3]));
    let more = contract(3 * MS, MS + 1, 3 * MS);
    assert!(check(&plain(WHOLE_PPM), &[third, third, more]).is_err());
    assert!(!utilisation_fits(WHOLE_PPM, &[third, third, more]));
    let mixed = [contract(2 * MS, MS, 2 * MS), contract(3 * MS, MS, 3 * MS)];
    let sixth = contract(6 * MS, MS, 6 * MS);
    assert_eq!(admit(&plain(WHOLE_PPM), &mixed, &sixth), Ok(()));
}

#[test]
fn an_early_deadline_is_refused_by_density_and_accepted_by_the_exact_test() {
    let set = [contract(10 * MS, 4 * MS, 4 * MS), contract(20 * MS, 8 * MS, 16 * MS)];
    assert!(!density_fits(WHOLE_PPM, &set));
    assert!(density_fits(WHOLE_PPM, &set[1..]) && density_fits(500_000, &set[1..]));
    assert!(!density_fits(499_999, &set[1..]));
    assert_eq!(check(&plain(WHOLE_PPM), &set), Ok(()));
    let set = [contract(10 * MS, 4 * MS, 4 * MS), contract(20 * MS, 8 * MS, 11 * MS)];
    let violation = check(&plain(WHOLE_PPM), &set).unwrap_err();
    assert_eq!(
        (violation.time, violation.demand, violation.supply),
        (Span::from_millis(14), Amount::from_millis(16), Amount::from_millis(14))
    );
}

/// Demand equals supply at 6 and at 10: the search for a violation has to go on from there.
#[test]
fn a_set_that_needs_all_there_is_at_some_deadline_fits() {
    let set = [contract(20, 4, 10), contract(40, 6, 6)];
    assert!(!density_fits(WHOLE_PPM, &set));
    assert_eq!(check(&plain(WHOLE_PPM), &set), Ok(()));
}

#[test]
fn a_unit_that_cannot_be_preempted_counts_against_the_first_deadline() {
    let resource = |blocking| Resource { blocking, ..plain(WHOLE_PPM) };
    let set = [contract(10 * MS, 4 * MS, 10 * MS)];
    assert_eq!(check(&resource(Amount::from_millis(6)), &set), Ok(()));
    let violation = check(&resource(Amount::from_nanos(6 * MS + 1)), &set).unwrap_err();
    assert_eq!(
        (violation.time, violation.demand),
        (Span::from_millis(10), Amount::from_nanos(10 * MS + 1))
    );
    assert_eq!(check(&resource(Amount::MAX), &[]), Ok(()), "nobody is there to be blocked");
}

#[test]
fn overheads_and_interrupts_take_their_part() {
    let mut overhead = Overhead {
        switch: Amount::from_nanos(MS / 2),
        cache: Amount::from_nanos(MS / 2),
        ..Overhead::NONE
    };
    let with = |overhead: &Overhead| Resource { overhead: overhead.clone(), ..plain(WHOLE_PPM) };
    let set = [contract(10 * MS, 8 * MS, 10 * MS)];
    assert_eq!(check(&with(&overhead), &set), Ok(()));
    overhead.interrupts.push(Interrupt { period: Span::from_millis(20), cost: Amount::ONE });
    assert_eq!(check(&with(&overhead), &set).unwrap_err().demand, Amount::from_nanos(10 * MS + 1));
    let overdrawn = Overhead { overrun: Amount::from_millis(2), ..Overhead::NONE };
    assert_eq!(check(&with(&overdrawn), &set), Ok(()));
    let overdrawn = Overhead { overrun: Amount::from_nanos(2 * MS + 1), ..Overhead::NONE };
    assert!(check(&with(&overdrawn), &set).is_err());
}

#[test]
fn a_refusal_names_what_is_left_and_the_nearest_contract() {
    let admitted = [contract(10 * MS, 6 * MS, 10 * MS)];
    let asked = contract(20 * MS, 8 * MS, 20 * MS);
    let refusal = admit(&plain(950_000), &admitted, &asked).unwrap_err();
    assert_eq!(refusal.requested, asked);
    assert_eq!(refusal.available_ppm, 350_000);
    assert_eq!(refusal.nearest, Some(contract(20 * MS, 7 * MS, 20 * MS)));
    assert!(refusal.violation.demand > refusal.violation.supply);
    let text = refusal.to_string();
    assert!(text.contains("ns up to"), "the demand that fails: {text}");
    assert!(text.contains("350000 ppm") && text.contains("7000000 ns in every 20000000"), "{text}");
}

#[test]
fn one_nanosecond_too_many_is_offered_back_as_one_less() {
    let admitted = [contract(10_000, 9_000, 10_000)];
    let refusal = admit(&plain(WHOLE_PPM), &admitted, &contract(10_000, 1_001, 10_000));
    assert_eq!(refusal.unwrap_err().nearest, Some(contract(10_000, 1_000, 10_000)));
}

#[test]
fn where_no_slice_fits_a_later_deadline_or_a_longer_period_is_offered() {
    let blocked = Resource { blocking: Amount::from_millis(5), ..plain(WHOLE_PPM) };
    let refusal = admit(&blocked, &[], &contract(20 * MS, 2 * MS, 4 * MS)).unwrap_err();
    assert_eq!(refusal.nearest, Some(contract(20 * MS, 2 * MS, 7 * MS)));
    let refusal = admit(&blocked, &[], &contract(4 * MS, 2 * MS, 4 * MS)).unwrap_err();
    assert_eq!(refusal.nearest, Some(contract(7 * MS, 2 * MS, 7 * MS)));
    let full = [contract(10 * MS, 10 * MS, 10 * MS)];
    let refusal = admit(&plain(WHOLE_PPM), &full, &contract(MS, 1, MS)).unwrap_err();
    assert_eq!((refusal.nearest, refusal.available_ppm), (None, 0));
}

/// So little is asked for that less is no offer: the period grows, and the deadline with it only if
/// it is the period.
#[test]
fn a_longer_period_keeps_a_deadline_that_was_asked_for() {
    let admitted = [contract(10 * MS, 7 * MS, 10 * MS)];
    let nearest = |period, slice, deadline| {
        let refusal = admit(&plain(WHOLE_PPM), &admitted, &contract(period, slice, deadline));
        refusal.unwrap_err().nearest
    };
    assert_eq!(nearest(1_000, 500, 600), Some(contract(1_667, 500, 600)));
    assert_eq!(nearest(1_000, 500, 1_000), Some(contract(1_667, 500, 1_667)));
}

#[test]
fn a_client_of_the_slack_costs_nothing() {
    let ten = Span::from_millis(10);
    let beggar = Contract::new(ten, Amount::ZERO, ten, Weight::new(1)).unwrap();
    let full = [contract(10 * MS, 10 * MS, 10 * MS); 1];
    assert_eq!(admit(&plain(WHOLE_PPM), &full, &beggar), Ok(()));
    assert_eq!(admit(&plain(0), &[], &beggar), Ok(()));
    assert_eq!(reserved_ppm(&[beggar]), 0);
}

#[test]
fn a_client_of_the_slack_with_which_the_resource_costs_too_much_is_refused() {
    let ten = Span::from_millis(10);
    let beggar = Contract::new(ten, Amount::ZERO, ten, Weight::new(1)).unwrap();
    let rounds = Interrupt { period: Span::from_millis(1), cost: Amount::from_nanos(MS / 4) };
    let overhead = Overhead { interrupts: vec![rounds], ..Overhead::NONE };
    let core = Resource { overhead, ..plain(WHOLE_PPM) };
    let promised = [contract(10 * MS, 8 * MS, 10 * MS)];
    let refusal = admit(&core, &promised, &beggar).unwrap_err();
    assert!(refusal.violation.demand > refusal.violation.supply);
    assert_eq!((refusal.nearest, refusal.later), (None, None));
}

#[test]
fn the_demand_curve_steps_at_every_deadline() {
    let set = [contract(10, 2, 5), contract(15, 3, 15)];
    let curve = Set::new(&plain(500_000), set).curve(Span::from_nanos(31), 10);
    let steps: Vec<_> = curve.iter().map(|it| (it.time.as_nanos(), it.demand.as_nanos())).collect();
    assert_eq!(steps, [(5, 2), (15, 7), (25, 9), (30, 12)]);
    assert_eq!(curve[1].supply, Amount::from_nanos(7));
    let set = Set::new(&plain(500_000), [contract(10, 2, 5)]);
    assert_eq!(
        (set.curve(Span::from_nanos(100), 0).len(), set.curve(Span::from_nanos(100), 3).len()),
        (0, 3)
    );
}

#[test]
fn nothing_overflows_at_the_ends_of_the_ranges() {
    let hour = Contract::PERIOD_MAX.as_nanos();
    let set = vec![contract(hour, hour, hour), contract(hour - 1, 1, 1), contract(1, 1, 1)];
    let greedy = Overhead {
        switch: Amount::MAX,
        cache: Amount::MAX,
        overrun: Amount::MAX,
        interrupts: vec![Interrupt { period: Span::ZERO, cost: Amount::MAX }; 3],
    };
    for capacity_ppm in [0, 1, WHOLE_PPM, u32::MAX] {
        for blocking in [Amount::ZERO, Amount::MAX] {
            let resource = Resource { capacity_ppm, blocking, overhead: greedy.clone() };
            assert!(check(&resource, &set).is_err());
            assert!(admit(&resource, &[], &set[0]).is_err());
        }
    }
    assert!(check(&plain(u32::MAX), &[contract(1, 1, 1)]).is_ok());
    assert!(check(&plain(0), &[contract(hour, 1, hour)]).is_err());
    let tight = [contract(hour, hour - 1, hour - 1), contract(hour - 1, 1, hour - 1)];
    let _ = check(&plain(WHOLE_PPM), &tight);
    assert_eq!(reserved_ppm(&[contract(1, 1, 1); 5000]), u32::MAX);
}

#[test]
fn drr_waits_no_longer_than_its_latency_bound() {
    let queues = [2, 3].map(|quantum| DrrQueue { quantum: Amount::from_nanos(quantum) });
    assert_eq!(drr_latency(&queues, 0), Some(Span::from_nanos(11)));
    assert_eq!(drr_latency(&queues, 2), None);
    assert_eq!(drr_latency(&[DrrQueue { quantum: Amount::MAX }; 2], 0), None);
}

#[test]
fn d_order_with_sorting_accepts_what_frozen_priorities_refuse() {
    let channel = |message, interval, deadline| {
        let (interval, deadline) = (Span::from_nanos(interval), Span::from_nanos(deadline));
        Channel { message: Amount::from_nanos(message), packet: Amount::ONE, interval, deadline }
    };
    let long = channel(6, 30, 30);
    let short = channel(5, 30, 10);
    let middle = channel(8, 30, 20);
    let mut sorted = DOrder::new(Order::Resorted, Amount::ONE);
    for channel in [long, middle, short] {
        sorted.admit(channel).unwrap();
    }
    assert_eq!(sorted.channels(), [short, middle, long]);
    let mut refused = sorted.clone();
    assert_eq!(refused.admit(channel(20, 40, 39)), Err(ChannelRefusal::Late { response: None }));
    assert_eq!(refused.channels(), sorted.channels());
    assert_eq!(sorted.admit(channel(5, 0, 10)), Err(ChannelRefusal::Malformed));
    let late = ChannelRefusal::Late { response: Some(Span::from_nanos(7)) }.to_string();
    assert_eq!(late, "a message could take 7 ns, longer than its deadline");
    assert_eq!(sorted.release(0), Some(short));
    assert_eq!(sorted.release(7), None);
    assert_eq!(sorted.release(2), None, "there are two");
}

#[test]
fn a_message_may_take_all_the_time_to_its_deadline_and_not_more() {
    let channel = |message, deadline| Channel {
        message: Amount::from_nanos(message),
        packet: Amount::ONE,
        interval: Span::from_nanos(30),
        deadline: Span::from_nanos(deadline),
    };
    assert_eq!(DOrder::new(Order::Frozen, Amount::ZERO).admit(channel(10, 10)), Ok(0));
    let longer = DOrder::new(Order::Frozen, Amount::ZERO).admit(channel(11, 10));
    assert_eq!(longer, Err(ChannelRefusal::Malformed));
}

#[test]
fn an_overload_that_shows_late_is_shown_where_it_shows() {
    let third = contract(3 * MS, MS, 3 * MS);
    let rest = contract(1_000 * MS, 333_400_000, 1_000 * MS);
    let violation = check(&plain(WHOLE_PPM), &[third, third, rest]).unwrap_err();
    assert!(
        violation.time > Span::from_millis(1_000) && violation.demand > violation.supply,
        "{violation:?}"
    );
}

#[test]
fn a_deadline_at_which_all_there_is_suffices_is_not_shown_as_an_overload() {
    // At 12 ms, 24 ms and 48 ms demand and supply are equal, although 110% are asked for.
    let (ten, twelve) = (contract(10 * MS, 6 * MS, 10 * MS), contract(12 * MS, 6 * MS, 12 * MS));
    let violation = check(&plain(WHOLE_PPM), &[ten, twelve]).unwrap_err();
    assert!(violation.demand > violation.supply, "{violation:?}");
}

#[test]
fn a_whole_slice_by_a_later_deadline_is_offered_where_it_fits() {
    let resource = plain(WHOLE_PPM);
    let admitted = [contract(20_000, 6_000, 6_000)];
    let refusal = admit(&resource, &admitted, &contract(40_000, 4_000, 8_000)).unwrap_err();
    let slice = |contract: Option<Contract>| {
        contract.map(|it| (it.slice().as_nanos(), it.deadline().as_nanos()))
    };
    assert_eq!(slice(refusal.nearest), Some((2_000, 8_000)));
    assert_eq!(slice(refusal.later), Some((4_000, 10_000)));
    let refusal = admit(&resource, &admitted, &contract(40_000, 35_000, 40_000)).unwrap_err();
    assert_eq!(refusal.later, None, "it has no later deadline");
}

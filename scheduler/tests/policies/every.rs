//! What all policies have in common, and contracts.

use super::*;

#[test]
fn every_policy_refuses_and_ignores_the_same_calls() {
    for name in POLICIES {
        let mut policy = policy_by_name(name, 2).unwrap();
        let (a, b) = (contract(10, 3, 10, 1), contract(10, 0, 10, 2));
        policy.add(A, a, Moment::ZERO).unwrap();
        policy.add(B, b, Moment::ZERO).unwrap();
        assert_eq!(policy.add(A, a, Moment::ZERO), Err(PolicyError::Exists(A)), "{name}");
        assert_eq!(
            policy.add(C, a, Moment::ZERO),
            Err(PolicyError::Full { capacity: 2 }),
            "{name}"
        );
        assert_eq!(policy.remove(C, Moment::ZERO), Err(PolicyError::Unknown(C)), "{name}");
        assert_eq!(policy.change(C, a, Moment::ZERO), Err(PolicyError::Unknown(C)), "{name}");
        assert_eq!((policy.account(C), policy.pick(Moment::ZERO)), (None, None), "{name}");
        wake(&mut *policy, C, 0);
        policy.block(C, Moment::ZERO);
        policy.charge(C, Extra, work(1), Moment::ZERO);
        wake(&mut *policy, A, 0);
        let pick = policy.pick(Moment::ZERO).unwrap();
        assert_eq!(pick.client, A, "{name}");
        policy.charge(A, pick.service, work(1), at(1));
        let account = policy.account(A).unwrap();
        assert_eq!(account.guaranteed + account.extra, work(1), "{name}");
        policy.change(A, b, at(1)).unwrap();
        policy.block(A, at(1));
        assert_eq!(policy.pick(at(1)), None, "{name}");
        wake(&mut *policy, A, 2);
        assert_eq!(policy.remove(A, at(2)).unwrap(), account, "{name}");
        assert_eq!(policy.pick(at(2)), None, "{name}");
        policy.add(A, a, at(2)).unwrap();
        assert_eq!(policy.account(A).unwrap(), <_>::default(), "{name}: the id is a new client");
    }
}

#[test]
fn every_policy_survives_the_ends_of_the_ranges() {
    for name in POLICIES {
        let mut policy = policy_by_name(name, 3).unwrap();
        let hour = Contract::PERIOD_MAX;
        let longest = Contract::new(
            Span::from_nanos(hour.as_nanos()),
            hour.service(),
            Span::from_nanos(hour.as_nanos()),
            Weight::new(u32::MAX),
        )
        .unwrap();
        policy.add(A, longest, Moment::MAX).unwrap();
        policy
            .add(
                B,
                Contract::new(
                    Span::from_nanos(1),
                    Amount::from_nanos(1),
                    Span::from_nanos(1),
                    None,
                )
                .unwrap(),
                Moment::ZERO,
            )
            .unwrap();
        policy.add(C, contract(10, 0, 0, 1), Moment::ZERO).unwrap();
        let head = Head { cost: Amount::MAX, arrival: Moment::MAX, position: u64::MAX };
        for now in [0, 1, hour.as_nanos(), u64::MAX, 7].map(Moment::from_nanos) {
            for id in [A, B, C] {
                policy.wake(id, head, now);
                if let Some(pick) = policy.pick(now) {
                    policy.charge(pick.client, pick.service, Amount::MAX, now);
                }
                policy.charge(id, Guaranteed, Amount::MAX, now);
                if let Some(policy) = policy.ranked() {
                    policy.ranks(now, &mut |_| {});
                }
                let _ = policy.timeout(now);
                policy.block(id, now);
            }
        }
        let account = policy.account(B).unwrap();
        assert_eq!(account.guaranteed.max(account.extra), Amount::MAX, "{name}");
    }
}

#[test]
fn policies_have_names_and_others_do_not() {
    assert_eq!(POLICIES[0], "atropos");
    let error = policy_by_name("Atropos", 1).err().unwrap();
    assert_eq!(error, UnknownPolicy { name: "Atropos".into() });
    assert!(
        error.to_string().ends_with("known are atropos, nemesis, xen, usd, drr, edf-channel, fifo")
    );
    assert_eq!(PolicyError::Exists(A).to_string(), "client 1 exists already");
    assert_eq!(PolicyError::Unknown(A).to_string(), "there is no client 1");
    assert_eq!(PolicyError::Full { capacity: 3 }.to_string(), "all 3 places are taken");
}

#[test]
fn four_numbers_are_a_contract_only_in_order() {
    let x = Weight::new(1);
    assert_eq!(
        Contract::new(Span::ZERO, Amount::ZERO, Span::ZERO, x),
        Err(ContractError::PeriodZero)
    );
    let period = Contract::PERIOD_MAX + Span::from_nanos(1);
    assert_eq!(
        Contract::new(period, Amount::from_nanos(1), Span::from_nanos(1), x),
        Err(ContractError::PeriodTooLong { period })
    );
    let over = ContractError::DeadlineOverPeriod {
        deadline: Span::from_nanos(11),
        period: Span::from_nanos(10),
    };
    assert_eq!(
        Contract::new(Span::from_nanos(10), Amount::from_nanos(1), Span::from_nanos(11), x),
        Err(over)
    );
    let late = ContractError::SliceOverDeadline {
        slice: Amount::from_nanos(6),
        deadline: Span::from_nanos(5),
    };
    assert_eq!(
        Contract::new(Span::from_nanos(10), Amount::from_nanos(6), Span::from_nanos(5), x),
        Err(late)
    );
    assert_eq!(
        Contract::new(Span::from_nanos(10), Amount::ZERO, Span::from_nanos(10), None),
        Err(ContractError::NothingAsked)
    );
    assert!(
        Contract::new(Contract::PERIOD_MAX, Amount::from_nanos(5), Span::from_nanos(5), None)
            .is_ok()
    );
    for error in [over, late, ContractError::PeriodZero, ContractError::NothingAsked] {
        assert!(error.to_string().len() > 20);
    }
}

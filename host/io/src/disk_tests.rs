//! A disk in virtual time: who gets how much of it beside whom, and what it is charged.

use moirai_scheduler::{
    Account, Amount, ClientId, Contract, Head, Moment, PolicyKind, Span, Weight, policy,
};

use super::*;
use crate::DeviceId;
use crate::schedule::Owner;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const UNDISTURBED: Circumstances = Circumstances { plain: true, undisturbed: true };

/// A tenant that asks for the same again and again, so many at a time.
#[derive(Clone, Copy)]
struct Asker {
    kind: Kind,
    bytes: u64,
    depth: usize,
}

#[derive(Default, Clone, Copy)]
struct Got {
    waiting: usize,
    done: u64,
    /// Longest time that one waited and was served, and since when the oldest one waits.
    longest: Span,
}

/// A device that looks for blocks of several units at a time and moves them one after the other. A
/// flush holds up everything after it.
struct Machine {
    disk: Disk,
    askers: Vec<(Asker, Got)>,
    inside: Vec<(Unit, usize, Moment, Moment)>,
    now: Moment,
    wire: Moment,
    flush: Span,
    /// Who asks again when: a guest needs that long to notice that it was answered.
    thinking: Vec<(Moment, usize)>,
}

const THINKS: Span = Span::from_micros(20);

impl Machine {
    fn new(max_unit: Amount, askers: &[(Asker, Contract)]) -> Self {
        let spec = DiskSpec {
            name: "d".into(),
            depth: 4,
            max_unit,
            blocking: max_unit,
            policy: PolicyKind::Atropos,
        };
        let mut disk = Disk::new(spec, policy(PolicyKind::Atropos, 8));
        for (number, (_, contract)) in (0..).zip(askers) {
            let client =
                disk.schedule.admit(Owner::Device(DeviceId(number)), *contract, Moment::ZERO);
            assert_eq!(client, Ok(ClientId(number)));
        }
        let askers = askers.iter().map(|(asker, _)| (*asker, Got::default())).collect();
        Self {
            disk,
            askers,
            inside: Vec::new(),
            now: Moment::ZERO,
            wire: Moment::ZERO,
            flush: Span::from_micros(50),
            thinking: Vec::new(),
        }
    }

    fn run(&mut self, until: Moment) {
        for asker in 0..self.askers.len() {
            self.askers[asker].1.waiting = self.askers[asker].0.depth;
            self.announce(asker);
        }
        while self.now < until {
            self.fill();
            let end = self.inside.iter().map(|it| it.3).min();
            let asks = self.thinking.iter().map(|it| it.0).min();
            let next = self.disk.timeout(self.now).into_iter().chain(end).chain(asks).min();
            self.now = next.expect("somebody waits for ever").max(self.now + Span::ONE);
            while let Some(place) = self.inside.iter().position(|it| it.3 <= self.now) {
                let (unit, asker, begun, end) = self.inside.swap_remove(place);
                self.disk.end(unit, end, |_| UNDISTURBED);
                let got = &mut self.askers[asker].1;
                got.done += 1;
                got.longest = got.longest.max(end - begun);
                self.thinking.push((end + THINKS, asker));
            }
            while let Some(place) = self.thinking.iter().position(|it| it.0 <= self.now) {
                let (_, asker) = self.thinking.swap_remove(place);
                self.askers[asker].1.waiting += 1;
                self.announce(asker);
            }
        }
    }

    fn fill(&mut self) {
        while let Some(pick) = self.disk.pick(self.now) {
            let asker = pick.client.0 as usize;
            let Asker { kind, bytes, .. } = self.askers[asker].0;
            let work = Work { kind, bytes, plain: true }.at_most(match kind {
                Kind::Read => self.disk.cuts(pick.service).read,
                _ => u64::MAX,
            });
            if !self.disk.takes(&pick, work, self.now) {
                return;
            }
            let unit = self.disk.begin(&pick, work, self.now);
            let time =
                if kind == Kind::Flush { self.flush } else { Span::from_nanos(work.bytes / 2) };
            self.wire = self.wire.max(self.now + Span::from_micros(60)) + time;
            self.inside.push((unit, asker, self.now, self.wire));
            self.askers[asker].1.waiting -= 1;
            self.announce(asker);
        }
    }

    fn announce(&mut self, asker: usize) {
        let waits = self.askers[asker].1.waiting > 0;
        let client = ClientId(u32::try_from(asker).unwrap());
        self.disk.schedule.head(client, waits.then(Head::default), self.now);
    }

    fn account(&self, asker: u32) -> Account {
        self.disk.schedule.account(ClientId(asker))
    }
}

fn promised(period: u64, slice: u64) -> Contract {
    let period = Span::from_nanos(period);
    Contract::new(period, Amount::from_nanos(slice), period, None).unwrap()
}

fn best_effort() -> Contract {
    Contract::new(Span::from_millis(10), Amount::ZERO, Span::from_millis(10), Weight::new(1))
        .unwrap()
}

fn reader(bytes: u64, depth: usize) -> Asker {
    Asker { kind: Kind::Read, bytes, depth }
}

#[test]
fn a_small_reader_with_a_contract_keeps_most_of_what_it_gets_alone_beside_large_ones() {
    let small = (reader(4096, 1), promised(100 * MS, 30 * MS));
    let large = (reader(1 << 20, 32), best_effort());
    let mut alone = Machine::new(Amount::from_millis(4), &[small]);
    alone.run(Moment::from_nanos(10 * SECOND));
    let mut beside = Machine::new(Amount::from_millis(4), &[small, large]);
    beside.run(Moment::from_nanos(10 * SECOND));
    let reads = |machine: &Machine| machine.askers[0].1.done / 10;
    let charge = |machine: &Machine| machine.account(0).guaranteed / machine.askers[0].1.done;
    eprintln!(
        "4 KiB alone: {} reads/s at {} ns, beside 1 MiB: {} reads/s at {} ns, and {} large ones",
        reads(&alone),
        charge(&alone),
        reads(&beside),
        charge(&beside),
        beside.askers[1].1.done / 10,
    );
    assert!(charge(&beside) < 2 * charge(&alone));
    assert_eq!(beside.account(0).misses, 0);
    assert!(reads(&beside) * 4 > reads(&alone), "{} of {}", reads(&beside), reads(&alone));
    assert!(beside.askers[1].1.done > 0);
}

#[test]
fn nobody_who_may_be_served_waits_for_ever() {
    let mut machine = Machine::new(
        Amount::from_millis(1),
        &[
            (reader(4096, 4), promised(10 * MS, 2 * MS)),
            (reader(64 << 10, 8), promised(20 * MS, 6 * MS)),
            (reader(4 << 20, 8), best_effort()),
            (reader(4096, 1), best_effort()),
        ],
    );
    machine.run(Moment::from_nanos(5 * SECOND));
    for (number, (_, got)) in machine.askers.iter().enumerate() {
        assert!(got.done > 100, "{number}: {}", got.done);
    }
    assert_eq!((machine.account(0).misses, machine.account(1).misses), (0, 0));
}

#[test]
fn what_is_charged_adds_up_to_the_time_in_which_the_disk_was_busy() {
    let asks = [
        (reader(4096, 3), promised(10 * MS, MS)),
        (reader(1 << 20, 3), promised(20 * MS, 6 * MS)),
        (Asker { kind: Kind::Flush, bytes: 0, depth: 1 }, best_effort()),
    ];
    let mut machine = Machine::new(Amount::from_millis(2), &asks);
    machine.run(Moment::from_nanos(SECOND));
    let paid: Amount =
        (0..3).map(|n| machine.account(n).guaranteed + machine.account(n).extra).sum();
    // What is inside at the end has not paid yet.
    let busy = machine.disk.busy();
    assert!(
        paid <= busy.service() && busy - paid.time() < Span::from_millis(10),
        "{paid} of {busy}"
    );
}

#[test]
fn a_flush_is_paid_by_who_asked_for_it_and_kept_off_the_reader_beside_it() {
    let read = (reader(64 << 10, 4), promised(20 * MS, 6 * MS));
    let flush = (Asker { kind: Kind::Flush, bytes: 0, depth: 4 }, best_effort());
    let mut machine = Machine::new(Amount::from_millis(2), &[read, flush]);
    machine.flush = Span::from_micros(900);
    machine.run(Moment::from_nanos(6 * SECOND));
    assert_eq!(machine.account(0).misses, 0, "in 300 periods");
    let flushes = machine.askers[1].1.done;
    let each = machine.account(1).extra / flushes;
    assert!((700 * US..1_100 * US).contains(&each.as_nanos()), "{each}");
    // Four reads of 92 us share the wire; together they take about 33 us each of it.
    let reads = machine.askers[0].1.done;
    assert!(machine.account(0).guaranteed / reads < Amount::from_micros(120));
}

#[test]
fn units_that_take_longer_than_declared_are_noticed_and_cut() {
    let read = (reader(4 << 20, 4), promised(100 * MS, 40 * MS));
    let mut machine = Machine::new(Amount::from_millis(1), &[read]);
    machine.run(Moment::from_nanos(SECOND));
    assert!(
        machine.disk.cuts(Service::Guaranteed).read <= 1 << 20,
        "{:?}",
        machine.disk.cuts(Service::Guaranteed)
    );
    assert_eq!(machine.disk.gauge.excess(machine.now), None, "parts fit");
    assert!(!machine.disk.writes_through());
    let flush = (Asker { kind: Kind::Flush, bytes: 0, depth: 1 }, best_effort());
    let mut machine = Machine::new(Amount::from_millis(1), &[read, flush]);
    machine.flush = Span::from_millis(4);
    machine.run(Moment::from_nanos(SECOND));
    let measured = machine.disk.gauge.excess(machine.now).unwrap();
    assert!((3 * MS..5 * MS).contains(&measured.as_nanos()), "{measured}");
    assert!(machine.disk.writes_through(), "so that flushes have less to do");
}

#[test]
fn a_unit_that_is_stuck_keeps_others_out_for_one_largest_unit_and_lets_no_more_slack_in() {
    let asks = [(reader(4096, 1), promised(20 * MS, 6 * MS)), (reader(4096, 1), best_effort())];
    let mut machine = Machine::new(Amount::from_millis(1), &asks);
    let work = |kind| Work { kind, bytes: 4096, plain: true };
    machine.askers[1].1.waiting = 1;
    machine.announce(1);
    let disk = &mut machine.disk;
    let slack = disk.pick(Moment::ZERO).unwrap();
    assert!(disk.takes(&slack, work(Kind::Discard), Moment::ZERO));
    let stuck = disk.begin(&slack, work(Kind::Discard), Moment::ZERO);
    disk.schedule.head(ClientId(1), Some(Head::default()), Moment::ZERO);
    disk.schedule.head(ClientId(0), Some(Head::default()), Moment::from_micros(10));
    let owed = disk.pick(Moment::from_micros(10)).unwrap();
    assert_eq!(owed.service, Service::Guaranteed);
    assert!(!disk.takes(&owed, work(Kind::Read), Moment::from_micros(10)));
    assert_eq!(
        disk.timeout(Moment::from_micros(10)),
        Some(Moment::from_millis(1)),
        "nothing else would wake the loop"
    );
    let owed = disk.pick(Moment::from_millis(1)).unwrap();
    assert!(disk.takes(&owed, work(Kind::Read), Moment::from_millis(1)));
    let read = disk.begin(&owed, work(Kind::Read), Moment::from_millis(1));
    disk.schedule.head(ClientId(0), None, Moment::from_millis(1));
    disk.end(read, Moment::from_nanos(MS + 60 * US), |_| UNDISTURBED);
    let slack = disk.pick(Moment::from_millis(2)).unwrap();
    assert_eq!(slack.service, Service::Extra);
    assert!(!disk.takes(&slack, work(Kind::Read), Moment::from_millis(2)));
    disk.end(stuck, Moment::from_millis(300), |_| UNDISTURBED);
    let slack = disk.pick(Moment::from_millis(300)).unwrap();
    assert!(disk.takes(&slack, work(Kind::Read), Moment::from_millis(300)));
}

/// A volume on dead storage: its request never comes back. Its client would keep its place in the
/// order until its next refill, and miss nothing.
#[test]
fn a_request_that_never_comes_back_holds_up_nobody_and_is_a_miss() {
    let contract =
        |slice, deadline| Contract::new(Span::from_nanos(SECOND), slice, deadline, None).unwrap();
    let reader = Asker { kind: Kind::Read, bytes: 4096, depth: 1 };
    let askers = [
        (reader, contract(Amount::from_millis(1), Span::from_millis(10))),
        (reader, contract(Amount::from_millis(100), Span::from_nanos(SECOND))),
    ];
    let mut disk = Machine::new(Amount::from_millis(1), &askers).disk;
    let work = Work { kind: Kind::Read, bytes: 4096, plain: true };
    for number in 0..2 {
        disk.schedule.head(ClientId(number), Some(Head::default()), Moment::ZERO);
    }
    let pick = disk.pick(Moment::ZERO).unwrap();
    assert!(pick.client == ClientId(0) && disk.takes(&pick, work, Moment::ZERO));
    let _stuck = disk.begin(&pick, work, Moment::ZERO);
    assert_eq!(
        disk.pick(Moment::from_nanos(10)),
        None,
        "what it was charged too much may come back"
    );
    assert_eq!(
        disk.timeout(Moment::from_nanos(10)),
        Some(Moment::from_millis(1)),
        "but not for longer than a unit may take"
    );
    let other = disk.pick(Moment::from_millis(1)).unwrap();
    assert!(other.client == ClientId(1) && disk.takes(&other, work, Moment::from_millis(1)));
    disk.find_overdue(Moment::from_millis(11));
    assert_eq!(disk.schedule.account(ClientId(0)).misses, 1, "due at 10 ms, still inside");
}

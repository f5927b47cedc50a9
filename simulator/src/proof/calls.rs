//! Every call to the policy under observation, and what is looked at around it.

use std::collections::VecDeque;

use moirai_scheduler::{
    Account, Amount, ClientId, ClientState, Contract, Head, Miss, Moment, Pick, Policy,
    PolicyError, Service, Ticket,
};

use super::{Checked, Record};
use crate::judge::Judge;
use crate::supply::Supply;

impl Policy for Checked {
    fn add(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        self.policy.add(id, contract, now)?;
        self.policy.set_blocking(self.limits.blocking);
        self.policy.set_wake_cost(self.limits.switch.service().saturating_mul(2));
        let supply = Supply::new(contract, self.limits.blocking + self.limits.overrun);
        let (awake, asleep_since, last) = (false, now, None);
        let (judge, inside, wakes) = (Judge::default(), VecDeque::new(), 0);
        let record =
            Record { id, contract, awake, asleep_since, last, supply, judge, inside, wakes };
        self.records.push(record);
        let clients = self.records.len();
        self.leads.push(Vec::new());
        self.leads.iter_mut().for_each(|row| row.resize(clients, (0, 0, 0)));
        Ok(())
    }

    fn remove(&mut self, id: ClientId, now: Moment) -> Result<Account, PolicyError> {
        self.policy.remove(id, now)
    }

    fn change(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        self.policy.change(id, contract, now)
    }

    fn wake(&mut self, id: ClientId, head: Head, now: Moment) {
        self.now = now;
        self.judge_all();
        let before = self.policy.state(id);
        self.policy.wake(id, head, now);
        let Some(index) = self.find(id) else { return };
        if self.records[index].awake {
            return self.observe_all();
        }
        self.records[index].awake = true;
        self.records[index].wakes += 1;
        self.forget_leads(index);
        self.records[index].supply.wakes(now);
        self.note_wake(index, before, head);
        let after = self.observe(index);
        self.observe_all();
        if let (Some(before), Some(after)) = (before, after) {
            let Record { contract, asleep_since, .. } = &self.records[index];
            let (s, d) = (
                i128::from(contract.slice().as_nanos()),
                i128::from(contract.deadline().as_nanos()),
            );
            // Where a kernel switches, a wake-up counts from when it was, not from when it is told.
            let told_late = self.limits.ranked && !head.arrival.is_zero();
            let woke = if told_late { head.arrival.max(*asleep_since).min(now) } else { now };
            let slept = i128::from(woke.since(*asleep_since).as_nanos());
            let until = i128::from(after.deadline.since(woke).as_nanos());
            let r = i128::from(after.left.max(0));
            let slept = if self.records[index].inside.is_empty() { slept } else { 0 };
            let holds = r * d <= until * s || r <= i128::from(before.left) - slept;
            self.check(4, holds, || format!("{before:?} -> {after:?} after a sleep of {slept}"));
        }
    }

    fn block(&mut self, id: ClientId, now: Moment) {
        self.now = now;
        self.judge_all();
        self.policy.block(id, now);
        let Some(index) = self.find(id) else { return };
        if !self.records[index].awake {
            return;
        }
        // A slice that was released in this call belongs to one that was still awake.
        if let Some(state) = self.policy.state(id) {
            let slices = self.policy.account(id).unwrap_or_default().refills;
            let judge = &mut self.records[index].judge;
            judge.after(state, slices, false, now);
            judge.before(true, now);
        }
        self.records[index].awake = false;
        self.observe_all();
        self.records[index].judge.sleeps();
        self.records[index].asleep_since = now;
        let kept = self.records[index].supply.sleeps(now);
        if self.limits.supplies() {
            self.check(6, kept, || format!("{id:?} before its sleep"));
        }
        self.observe(index);
    }

    fn pick(&mut self, now: Moment) -> Option<Pick> {
        self.now = now;
        self.judge_all();
        self.tally.decisions += 1;
        if self.limits.ranked {
            self.check_ranks();
        }
        let pick = self.policy.pick(now);
        self.check_pick(pick);
        pick
    }

    fn charge(&mut self, id: ClientId, service: Service, cost: Amount, now: Moment) {
        self.now = now;
        if let Some(index) = self.find(id)
            && service == Service::Guaranteed
        {
            self.records[index].judge.served(now - cost.time(), now);
        }
        self.judge_client(id);
        let before = self.policy.state(id);
        self.policy.charge(id, service, cost, now);
        self.check_service(id, service, cost, before, true);
    }

    fn hand_out(&mut self, pick: &Pick, estimate: Amount, now: Moment) -> Ticket {
        self.now = now;
        let index = self.judge_client(pick.client);
        if let Some(index) = index {
            self.records[index].judge.handed_out(pick.service, now);
            let wakes = self.records[index].wakes;
            self.records[index].inside.push_back(wakes);
        }
        let ticket = self.policy.hand_out(pick, estimate, now);
        index.and_then(|index| self.observe(index));
        ticket
    }

    fn complete(&mut self, ticket: Ticket, cost: Amount, now: Moment) {
        self.now = now;
        let mut recent = true;
        if let Some(index) = self.judge_client(ticket.client) {
            let record = &mut self.records[index];
            record.judge.returned(now);
            recent = record.inside.pop_front() == Some(record.wakes);
        }
        let before = self.policy.state(ticket.client);
        self.policy.complete(ticket, cost, now);
        self.check_service(ticket.client, ticket.service, cost, before, recent);
    }

    fn take_misses(&mut self, visit: &mut dyn FnMut(Miss)) {
        self.policy.take_misses(visit);
    }

    fn judge(&mut self, now: Moment) {
        self.now = now;
        self.judge_all();
        self.policy.judge(now);
        for index in 0..self.records.len() {
            let Record { id, judge, .. } = &self.records[index];
            let (id, seen) = (*id, judge.misses);
            let counted = self.policy.account(id).unwrap_or_default().misses;
            self.check(13, counted == seen, || format!("{id:?}: {counted} counted, {seen} seen"));
        }
    }

    fn timeout(&self, now: Moment) -> Option<Moment> {
        self.policy.timeout(now)
    }

    fn account(&self, id: ClientId) -> Option<Account> {
        self.policy.account(id)
    }

    fn state(&self, id: ClientId) -> Option<ClientState> {
        self.policy.state(id)
    }
}

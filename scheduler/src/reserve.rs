//! The machinery of all policies that keep contracts: budgets in order of deadline, of refill, and
//! of virtual time in the slack.
//!
//! Owns the clients of one resource. *When* a budget changes is here, and the same for all:
//!
//! | event | what happens |
//! | --- | --- |
//! | any call with a `now` | except `charge`: slices whose time has come are released first |
//! | pick | the runnable client with the earliest deadline, else slack |
//! | charge | the account of the pick pays; slack never touches a slice |
//!
//! *How* it changes is a [`Rules`]: one small type per policy (`atropos`, `nemesis`, ...).

mod ranked;

use alloc::collections::VecDeque;

use crate::budget::{Budget, Held};
use crate::contract::Contract;
use crate::heap::Heap;
use crate::policy::{
    Account, ClientId, ClientState, Head, Miss, Mode, Pick, Policy, PolicyError, Ranked, Service,
    Ticket,
};
use crate::promise::Found;
use crate::ranks::Ranks;
use crate::rules::Rules;
use crate::slack::{Slack, Virtual};
use crate::table::Table;
use crate::time::{Amount, Moment, Span};

/// The longest slack service between two picks of a preemptible resource, in nanoseconds. It
/// bounds how unfair slack can be (invariant 8).
pub const SLACK_QUANTUM: Amount = Amount::from_millis(1);

/// How many misses wait to be taken; the oldest are forgotten.
const MISSES_MAX: usize = 256;

#[derive(Debug)]
struct Client {
    id: ClientId,
    budget: Budget,
    virtual_time: Virtual,
    /// Units that others had handed out, and it itself, when it last fell asleep.
    hand_outs_seen: u64,
}

/// A policy that keeps contracts by the rules `R`.
#[derive(Debug)]
pub(crate) struct Reserve<R> {
    rules: R,
    clients: Table<Client>,
    /// Runnable clients by deadline.
    ready: Heap<(Moment, ClientId)>,
    /// Clients by next refill: those awake.
    refills: Heap<(Moment, ClientId)>,
    slack: Slack,
    /// Who is ranked; empty where the owner does not ask for ranks.
    ranks: Ranks,
    /// What a wake-up costs within a slice.
    wake_cost: Amount,
    /// Units that were handed out so far.
    hand_outs: u64,
    misses: VecDeque<Miss>,
    now: Moment,
    round: u64,
}

impl<R: Rules> Reserve<R> {
    pub(crate) const fn new(rules: R, capacity: usize) -> Self {
        Self {
            rules,
            clients: Table::new(capacity),
            ready: Heap::new(),
            refills: Heap::new(),
            slack: Slack::new(),
            ranks: Ranks::new(),
            wake_cost: Amount::ZERO,
            hand_outs: 0,
            misses: VecDeque::new(),
            now: Moment::ZERO,
            round: 0,
        }
    }

    /// Time never goes backwards here.
    fn clock(&mut self, now: Moment) -> Moment {
        self.now = self.now.max(now);
        self.now
    }

    /// Moves a client to where its state says that it belongs.
    fn place(&mut self, slot: usize) {
        self.collect(slot);
        let Some(Client { id, budget, virtual_time, .. }) = self.clients.get(slot) else { return };
        let contract = budget.contract;
        let owed = budget.runnable() || budget.settling();
        if owed {
            self.ready.set(slot, (budget.deadline, *id));
        } else {
            self.ready.remove(slot);
        }
        // The end of time is never reached: it would be reached again and again.
        let due = contract.slice() > Amount::ZERO && budget.refill < Moment::MAX;
        if due && (budget.awake || budget.held.is_some()) {
            self.refills.set(slot, (budget.refill, *id));
        } else {
            self.refills.remove(slot);
        }
        if budget.awake && !owed && contract.extra().is_some() {
            self.slack.set(slot, *id, *virtual_time);
        } else {
            self.slack.remove(slot);
        }
    }

    /// Counts what was found of a client's promises.
    fn collect(&mut self, slot: usize) {
        let Some(Client { id, budget, .. }) = self.clients.get_mut(slot) else { return };
        if !budget.promise.has_found() {
            return;
        }
        for Found { since, deadline, late } in budget.promise.take() {
            budget.account.misses = budget.account.misses.saturating_add(1);
            if self.misses.len() >= MISSES_MAX {
                self.misses.pop_front();
            }
            self.misses.push_back(Miss { client: *id, since, deadline, late });
        }
    }

    /// Tells the rules which contracts there are, promised and still in force.
    fn reckon(&mut self) {
        let both = |budget: &Budget| budget.natural.tighter(budget.contract);
        self.rules.reckon(&mut self.clients.iter().map(|(_, _, client)| both(&client.budget)));
    }

    /// Releases the slices whose time has come.
    fn release_due(&mut self, now: Moment) {
        while let Some(((refill, _), slot)) = self.refills.first()
            && refill <= now
        {
            if let Some(client) = self.clients.get_mut(slot) {
                client.budget.exact = self.hand_outs > 0;
                self.rules.refill(&mut client.budget, now);
            }
            self.place(slot);
        }
    }

    fn next_refill(&self) -> Option<Moment> {
        self.refills.first().map(|((refill, _), _)| refill)
    }
}

impl<R: Rules> Policy for Reserve<R> {
    fn add(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        let now = self.clock(now);
        let budget = Budget::new(contract, now);
        let client = Client { id, budget, virtual_time: 0, hand_outs_seen: 0 };
        self.misses.reserve(MISSES_MAX.saturating_sub(self.misses.len()));
        let slot = self.clients.add(id, client)?;
        let slots = self.clients.slots();
        self.ready.grow(slots);
        self.refills.grow(slots);
        self.slack.grow(slots);
        self.ranks.grow(slots);
        self.place(slot);
        self.reckon();
        Ok(())
    }

    fn remove(&mut self, id: ClientId, now: Moment) -> Result<Account, PolicyError> {
        self.clock(now);
        let (slot, client) = self.clients.remove(id)?;
        self.ready.remove(slot);
        self.refills.remove(slot);
        self.slack.remove(slot);
        self.reckon();
        Ok(client.budget.account)
    }

    fn change(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        let now = self.clock(now);
        self.release_due(now);
        let slot = self.clients.slot(id).ok_or(PolicyError::Unknown(id))?;
        if let Some(client) = self.clients.get_mut(slot) {
            client.budget.change(contract);
        }
        self.place(slot);
        self.reckon();
        Ok(())
    }

    fn wake(&mut self, id: ClientId, head: Head, now: Moment) {
        let now = self.clock(now);
        self.release_due(now);
        let Some(slot) = self.clients.slot(id) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.budget.awake {
            return;
        }
        client.budget.awake = true;
        client.budget.intruded = self.hand_outs != client.hand_outs_seen;
        let held = client.budget.unhold(now).is_some();
        client.virtual_time = self.slack.resume(client.virtual_time);
        if client.budget.contract.slice() > Amount::ZERO && !held {
            let since = self.ranks.woke(head, client.budget.asleep_since, now);
            let refills = client.budget.account.refills;
            self.rules.wake(&mut client.budget, since);
            if client.budget.account.refills == refills {
                client.budget.pay_wake(self.wake_cost);
            }
        }
        self.place(slot);
    }

    fn block(&mut self, id: ClientId, now: Moment) {
        let now = self.clock(now);
        self.release_due(now);
        let Some(slot) = self.clients.slot(id) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.budget.awake {
            client.budget.judge(now);
            client.budget.awake = false;
            client.budget.asleep_since = now;
            client.hand_outs_seen = self.hand_outs;
            if self.rules.laxity() > Span::ZERO && client.budget.left > 0 {
                let until = now.saturating_add(self.rules.laxity());
                client.budget.held = Some(Held { until, since: None });
            }
            self.place(slot);
        }
    }

    fn pick(&mut self, now: Moment) -> Option<Pick> {
        let now = self.clock(now);
        self.release_due(now);
        let next = self.next_refill().unwrap_or(Moment::MAX);
        self.round = self.round.wrapping_add(1);
        let round = self.round;
        while let Some(((_, id), slot)) = self.ready.first() {
            let Some(Client { budget, .. }) = self.clients.get_mut(slot) else { break };
            if let Some(held) = &mut budget.held {
                if now < held.until {
                    held.since.get_or_insert(now);
                    return None;
                }
                budget.unhold(now);
                budget.forfeit();
                self.place(slot);
                continue;
            }
            if budget.settling() {
                return None;
            }
            let left = Amount::from_signed(budget.left);
            let until = now.saturating_add(left.time()).min(next);
            return Some(Pick { client: id, service: Service::Guaranteed, until, round });
        }
        let (id, _) = self.slack.pick()?;
        let until = now.saturating_add(SLACK_QUANTUM.time()).min(next);
        Some(Pick { client: id, service: Service::Extra, until, round })
    }

    fn charge(&mut self, id: ClientId, service: Service, cost: Amount, now: Moment) {
        let now = self.clock(now);
        let Some(slot) = self.clients.slot(id) else { return };
        let Some(Client { budget, virtual_time, .. }) = self.clients.get_mut(slot) else { return };
        budget.book(service, cost, now);
        match (service, budget.contract.extra()) {
            (Service::Guaranteed, _) if budget.contract.slice() > Amount::ZERO => {
                budget.spend(cost, now)
            }
            (Service::Extra, Some(weight)) => {
                *virtual_time = Slack::after(*virtual_time, cost, weight);
            }
            _ => {}
        }
        self.place(slot);
    }

    fn hand_out(&mut self, pick: &Pick, estimate: Amount, now: Moment) -> Ticket {
        let now = self.clock(now);
        let Pick { client: id, service, .. } = *pick;
        let unknown = Ticket {
            client: id,
            service,
            estimate,
            due: None,
            slice: 0,
            since: now,
            cuts: 0,
            holds: false,
        };
        if !self.rules.charges_at_hand_out() {
            return unknown;
        }
        self.hand_outs = self.hand_outs.wrapping_add(1);
        let Some(slot) = self.clients.slot(id) else { return unknown };
        let Some(client) = self.clients.get_mut(slot) else { return unknown };
        let ticket = client.budget.hand_out(id, service, estimate, now);
        if let (Service::Extra, Some(weight)) = (service, client.budget.contract.extra()) {
            client.virtual_time = Slack::after(client.virtual_time, estimate, weight);
        }
        self.place(slot);
        ticket
    }

    fn complete(&mut self, mut ticket: Ticket, cost: Amount, now: Moment) {
        let Ticket { client: id, service, estimate, .. } = ticket;
        if !self.rules.charges_at_hand_out() {
            return self.charge(id, service, cost, now);
        }
        let now = self.clock(now);
        let Some(slot) = self.clients.slot(id) else { return };
        let Some(Client { budget, virtual_time, .. }) = self.clients.get_mut(slot) else { return };
        budget.book(service, cost, now);
        budget.settle(&mut ticket, cost, now);
        if let (Service::Extra, Some(weight)) = (service, budget.contract.extra()) {
            *virtual_time = Slack::settle(*virtual_time, estimate, cost, weight);
        }
        self.place(slot);
    }

    fn overdue(&mut self, ticket: &mut Ticket, now: Moment) {
        let now = self.clock(now);
        let Some(slot) = self.clients.slot(ticket.client) else { return };
        if let Some(client) = self.clients.get_mut(slot) {
            client.budget.overdue(ticket, now);
        }
        self.place(slot);
    }

    fn take_misses(&mut self, visit: &mut dyn FnMut(Miss)) {
        self.misses.drain(..).for_each(visit);
    }

    fn judge(&mut self, now: Moment) {
        let now = self.clock(now);
        for slot in 0..self.clients.slots() {
            if let Some(client) = self.clients.get_mut(slot) {
                client.budget.promise.resolve();
                client.budget.judge(now);
            }
            self.collect(slot);
        }
    }

    fn timeout(&self, _now: Moment) -> Option<Moment> {
        let first = self.ready.first().and_then(|(_, slot)| self.clients.get(slot));
        let held = first.and_then(|client| client.budget.held).map(|held| held.until);
        self.next_refill().into_iter().chain(held).chain(self.ranks.change()).min()
    }

    fn ranked(&mut self) -> Option<&mut dyn Ranked> {
        Some(self)
    }

    fn account(&self, id: ClientId) -> Option<Account> {
        let slot = self.clients.slot(id)?;
        self.clients.get(slot).map(|client| client.budget.account)
    }

    fn set_blocking(&mut self, blocking: Amount) {
        self.rules.set_blocking(blocking);
        self.reckon();
    }

    fn set_wake_cost(&mut self, cost: Amount) {
        self.wake_cost = cost;
    }

    fn state(&self, id: ClientId) -> Option<ClientState> {
        let Client { budget, .. } = self.clients.get(self.clients.slot(id)?)?;
        let mode = match budget.awake {
            true if budget.left > 0 => Mode::Running,
            true if budget.settling() => Mode::Settling,
            true => Mode::Waiting,
            false => Mode::Idle,
        };
        let &Budget { deadline, refill, left, .. } = budget;
        let promised = budget.promise.is_open();
        Some(ClientState { mode, deadline, refill, left, promised })
    }
}

#[cfg(test)]
mod tests;

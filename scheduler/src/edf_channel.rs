//! The link scheduler of real-time channels (Kandlur, Shin and Ferrari 1994; papers/001, §4.2).
//!
//! A contract is a channel: at most one message of `s` nanoseconds of transmission every `p = I`,
//! each with deadline `d = D`. A contract without a slice is best effort.
//!
//! 1. **Logical arrival** of a message: `l_0 = t_0`, `l_i = max(l_{i-1} + I, t_i)`; its deadline is
//!    `l_i + d`. So a burst costs buffers, and nobody's deadline.
//! 2. **Policing**: service of more than `s` belongs to the next message; what was overdrawn by a
//!    packet is taken from it.
//! 3. **Three queues**: messages whose logical arrival has come, by deadline; then best effort,
//!    first come first served; then early messages by logical arrival, but only of channels with
//!    `extra`. An early message sent keeps its logical arrival, so the channel gains nothing in the
//!    long run.
//! 4. Ties fall to the lower id.

use crate::contract::Contract;
use crate::heap::Heap;
use crate::policy::{Account, ClientId, Head, Pick, Policy, PolicyError, Service};
use crate::table::Table;
use crate::time::{Amount, Moment};

#[derive(Debug)]
struct Channel {
    id: ClientId,
    contract: Contract,
    account: Account,
    head: Option<Head>,
    /// Logical arrival of the current message.
    logical: Moment,
    /// What of the message was sent, or is overdrawn.
    sent: Amount,
    /// Whether the current message was judged late.
    late: bool,
}

impl Channel {
    fn deadline(&self) -> Moment {
        self.logical.saturating_add(self.contract.deadline())
    }

    /// Goes on to the next message if the current one has used up its slice.
    fn advance(&mut self, now: Moment) {
        let slice = self.contract.slice();
        let messages = self.sent.checked_div(slice).unwrap_or(0);
        if messages == 0 {
            return;
        }
        self.sent = self.sent.checked_rem(slice).unwrap_or(Amount::ZERO);
        let passed = self.contract.period().saturating_mul(messages);
        self.logical = self.logical.saturating_add(passed);
        if let Some(head) = self.head {
            self.logical = self.logical.max(head.arrival.min(now));
        }
        self.late = false;
        self.account.refills = self.account.refills.saturating_add(messages);
    }
}

/// EDF over real-time channels. See the module for its rules.
#[derive(Debug)]
pub struct EdfChannel {
    channels: Table<Channel>,
    current: Heap<(Moment, ClientId)>,
    best_effort: Heap<(Moment, ClientId)>,
    early: Heap<(Moment, ClientId)>,
    now: Moment,
    round: u64,
}

impl EdfChannel {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            channels: Table::new(capacity),
            current: Heap::new(),
            best_effort: Heap::new(),
            early: Heap::new(),
            now: Moment::ZERO,
            round: 0,
        }
    }

    /// Puts a channel into the queue that it belongs to.
    fn place(&mut self, slot: usize) {
        let Some(channel) = self.channels.get(slot) else { return };
        self.current.remove(slot);
        self.early.remove(slot);
        self.best_effort.remove(slot);
        let Some(head) = channel.head else { return };
        let id = channel.id;
        if channel.contract.slice() == Amount::ZERO {
            self.best_effort.set(slot, (head.arrival, id));
        } else if channel.logical <= self.now {
            self.current.set(slot, (channel.deadline(), id));
        } else {
            self.early.set(slot, (channel.logical, id));
        }
    }

    /// Makes early messages current whose logical arrival has come.
    fn mature(&mut self) {
        while let Some(((logical, _), slot)) = self.early.first()
            && logical <= self.now
        {
            self.place(slot);
        }
    }

    fn early_with_extra(&self) -> Option<ClientId> {
        let wants = |&(_, slot): &((Moment, ClientId), usize)| {
            self.channels.get(slot).is_some_and(|channel| channel.contract.extra().is_some())
        };
        self.early.iter().filter(wants).min().map(|((_, id), _)| id)
    }
}

impl Policy for EdfChannel {
    fn add(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError> {
        self.now = self.now.max(now);
        let account = Account::default();
        let (logical, sent) = (self.now, Amount::ZERO);
        let channel = Channel { id, contract, account, head: None, logical, sent, late: false };
        self.channels.add(id, channel)?;
        let slots = self.channels.slots();
        self.current.grow(slots);
        self.best_effort.grow(slots);
        self.early.grow(slots);
        Ok(())
    }

    fn remove(&mut self, id: ClientId, _now: Moment) -> Result<Account, PolicyError> {
        let (slot, channel) = self.channels.remove(id)?;
        self.current.remove(slot);
        self.best_effort.remove(slot);
        self.early.remove(slot);
        Ok(channel.account)
    }

    fn change(
        &mut self,
        id: ClientId,
        contract: Contract,
        _now: Moment,
    ) -> Result<(), PolicyError> {
        let slot = self.channels.slot(id).ok_or(PolicyError::Unknown(id))?;
        if let Some(channel) = self.channels.get_mut(slot) {
            channel.contract = contract;
        }
        self.place(slot);
        Ok(())
    }

    fn wake(&mut self, id: ClientId, head: Head, now: Moment) {
        self.now = self.now.max(now);
        let Some(slot) = self.channels.slot(id) else { return };
        if let Some(channel) = self.channels.get_mut(slot) {
            let passed = self.now >= channel.logical.saturating_add(channel.contract.period());
            if channel.head.is_none() && (channel.sent.is_zero() || passed) {
                channel.logical = channel.logical.max(head.arrival.min(self.now));
                channel.late = false;
            }
            channel.head = Some(head);
        }
        self.place(slot);
    }

    fn block(&mut self, id: ClientId, now: Moment) {
        self.now = self.now.max(now);
        let Some(slot) = self.channels.slot(id) else { return };
        if let Some(channel) = self.channels.get_mut(slot) {
            channel.head = None;
        }
        self.place(slot);
    }

    fn pick(&mut self, now: Moment) -> Option<Pick> {
        self.now = self.now.max(now);
        self.mature();
        self.round = self.round.wrapping_add(1);
        let round = self.round;
        let next = self.early.first().map_or(Moment::MAX, |((logical, _), _)| logical);
        if let Some(((_, client), slot)) = self.current.first() {
            let channel = self.channels.get(slot)?;
            let left = channel.contract.slice().saturating_sub(channel.sent);
            let until = self.now.saturating_add(left.time()).min(next);
            return Some(Pick { client, service: Service::Guaranteed, until, round });
        }
        let best_effort = self.best_effort.first().map(|((_, id), _)| id);
        let client = best_effort.or_else(|| self.early_with_extra())?;
        Some(Pick { client, service: Service::Extra, until: next, round })
    }

    fn charge(&mut self, id: ClientId, service: Service, cost: Amount, now: Moment) {
        self.now = self.now.max(now);
        let Some(slot) = self.channels.slot(id) else { return };
        if let Some(channel) = self.channels.get_mut(slot) {
            let account = match service {
                Service::Guaranteed => &mut channel.account.guaranteed,
                Service::Extra => &mut channel.account.extra,
            };
            *account = account.saturating_add(cost);
            if channel.contract.slice() > Amount::ZERO {
                let in_time = cost.saturating_sub(self.now.since(channel.deadline()).service());
                let owed = channel.contract.slice().saturating_sub(channel.sent);
                if !channel.late && in_time < owed.min(cost) {
                    channel.late = true;
                    channel.account.misses = channel.account.misses.saturating_add(1);
                }
                channel.sent = channel.sent.saturating_add(cost);
                channel.advance(self.now);
            }
        }
        self.place(slot);
    }

    fn timeout(&self, _now: Moment) -> Option<Moment> {
        self.early.first().map(|((logical, _), _)| logical)
    }

    fn account(&self, id: ClientId) -> Option<Account> {
        let slot = self.channels.slot(id)?;
        self.channels.get(slot).map(|channel| channel.account)
    }
}

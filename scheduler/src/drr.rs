//! Deficit round robin with real-time and best-effort queues and an elevator (papers/000, §4.2).
//!
//! 1. Every client is a queue. Its quantum: for a reserved client its share of a frame,
//!    `s * FRAME / p`; for one without a slice `weight *` [`BEST_EFFORT_QUANTUM`].
//! 2. At the start of a round every backlogged queue's deficit grows by its quantum.
//! 3. A unit is in the round if its cost is covered by the deficit of its queue. What a queue
//!    cannot use is carried over; a queue that runs empty carries nothing but debt.
//! 4. Within a round units go in elevator order (C-SCAN by [`Head::position`]): ahead of the arm
//!    first, then from the beginning again.
//! 5. When no backlogged queue has a unit in the round, the next round starts; rounds in which
//!    nobody could be served are skipped at once.
//! 6. Service charged is taken from the deficit, so a unit that cost more than announced is paid
//!    for in the next round.
//!
//! Latency of queue `i`: at most `3F - 2Q_i`, `F` the sum of the quanta
//! ([`crate::admission::drr_latency`]).

use crate::contract::Contract;
use crate::heap::Heap;
use crate::policy::{Account, ClientId, Head, Pick, Policy, PolicyError, Service};
use crate::table::Table;
use crate::time::{Amount, Moment, Span};

/// Nominal length of a round, in nanoseconds: reserved clients get their share of it.
pub const FRAME: Span = Span::from_millis(20);

/// Service for each unit of weight and round of a best-effort queue, in nanoseconds.
pub const BEST_EFFORT_QUANTUM: Amount = Amount::from_millis(1);

#[derive(Debug)]
struct Queue {
    id: ClientId,
    contract: Contract,
    account: Account,
    deficit: i128,
    head: Option<Head>,
    /// Rank in the elevator: sweeps of the arm so far, plus one if the head lies behind it.
    sweep: u64,
}

impl Queue {
    fn quantum(&self) -> i128 {
        if self.contract.slice() == Amount::ZERO {
            let weight = self.contract.extra().map_or(1, core::num::NonZeroU32::get);
            return i128::from(weight).saturating_mul(signed(BEST_EFFORT_QUANTUM));
        }
        let share = signed(self.contract.slice()).saturating_mul(i128::from(FRAME.as_nanos()));
        share.checked_div(i128::from(self.contract.period().as_nanos())).unwrap_or(1).max(1)
    }

    /// How much deficit the head lacks; zero or less if it is in the round.
    fn lacking(&self) -> Option<i128> {
        let cost = signed(self.head?.cost.max(Amount::ONE));
        Some(cost.saturating_sub(self.deficit))
    }
}

/// For sums with debt.
fn signed(amount: Amount) -> i128 {
    i128::from(amount.as_nanos())
}

/// Deficit round robin. See the module for its rules.
#[derive(Debug)]
pub struct Drr {
    queues: Table<Queue>,
    /// Units of this round: by sweep of the arm, position, id.
    work: Heap<(u64, u64, ClientId)>,
    /// Where the arm is: sweeps and position.
    arm: (u64, u64),
    round: u64,
}

impl Drr {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { queues: Table::new(capacity), work: Heap::new(), arm: (0, 0), round: 0 }
    }

    /// Puts the head of a queue into the work queue of this round, or takes it out.
    fn place(&mut self, slot: usize) {
        let Some(queue) = self.queues.get(slot) else { return };
        match (queue.head, queue.lacking()) {
            (Some(head), Some(lacking)) if lacking <= 0 => {
                self.work.set(slot, (queue.sweep, head.position, queue.id));
            }
            _ => self.work.remove(slot),
        }
    }

    /// Starts the next round in which somebody can be served.
    fn next_round(&mut self) {
        let rounds = |queue: &Queue| {
            let lacking = queue.lacking()?.max(1);
            lacking.checked_sub(1)?.checked_div(queue.quantum())?.checked_add(1)
        };
        let Some(rounds) = self.queues.iter().filter_map(|(_, _, queue)| rounds(queue)).min()
        else {
            return;
        };
        self.round = self.round.wrapping_add(1);
        for slot in 0..self.queues.slots() {
            let Some(queue) = self.queues.get_mut(slot) else { continue };
            if queue.head.is_some() {
                let earned = queue.quantum().saturating_mul(rounds);
                queue.deficit = queue.deficit.saturating_add(earned);
                self.place(slot);
            } else if queue.deficit < 0 {
                let earned = queue.quantum().saturating_mul(rounds);
                queue.deficit = queue.deficit.saturating_add(earned).min(0);
            }
        }
    }
}

impl Policy for Drr {
    fn add(&mut self, id: ClientId, contract: Contract, _now: Moment) -> Result<(), PolicyError> {
        let account = Account::default();
        self.queues.add(id, Queue { id, contract, account, deficit: 0, head: None, sweep: 0 })?;
        self.work.grow(self.queues.slots());
        Ok(())
    }

    fn remove(&mut self, id: ClientId, _now: Moment) -> Result<Account, PolicyError> {
        let (slot, queue) = self.queues.remove(id)?;
        self.work.remove(slot);
        Ok(queue.account)
    }

    fn change(
        &mut self,
        id: ClientId,
        contract: Contract,
        _now: Moment,
    ) -> Result<(), PolicyError> {
        let slot = self.queues.slot(id).ok_or(PolicyError::Unknown(id))?;
        if let Some(queue) = self.queues.get_mut(slot) {
            queue.contract = contract;
        }
        Ok(())
    }

    fn wake(&mut self, id: ClientId, head: Head, _now: Moment) {
        let Some(slot) = self.queues.slot(id) else { return };
        let (sweeps, position) = self.arm;
        if let Some(queue) = self.queues.get_mut(slot) {
            queue.head = Some(head);
            queue.sweep = if head.position < position { sweeps.wrapping_add(1) } else { sweeps };
        }
        self.place(slot);
    }

    fn block(&mut self, id: ClientId, _now: Moment) {
        let Some(slot) = self.queues.slot(id) else { return };
        if let Some(queue) = self.queues.get_mut(slot) {
            queue.head = None;
            queue.deficit = queue.deficit.min(0);
        }
        self.place(slot);
    }

    fn pick(&mut self, now: Moment) -> Option<Pick> {
        if self.work.first().is_none() {
            self.next_round();
        }
        let ((sweep, position, client), slot) = self.work.first()?;
        self.arm = (sweep, position);
        let queue = self.queues.get(slot)?;
        let service = if queue.contract.slice() > Amount::ZERO {
            Service::Guaranteed
        } else {
            Service::Extra
        };
        let left = Amount::from_nanos(u64::try_from(queue.deficit).unwrap_or(0));
        Some(Pick { client, service, until: now.saturating_add(left.time()), round: self.round })
    }

    fn charge(&mut self, id: ClientId, service: Service, cost: Amount, _now: Moment) {
        let Some(slot) = self.queues.slot(id) else { return };
        if let Some(queue) = self.queues.get_mut(slot) {
            let account = match service {
                Service::Guaranteed => &mut queue.account.guaranteed,
                Service::Extra => &mut queue.account.extra,
            };
            *account = account.saturating_add(cost);
            queue.deficit = queue.deficit.saturating_sub(signed(cost));
        }
        self.place(slot);
    }

    fn timeout(&self, _now: Moment) -> Option<Moment> {
        None
    }

    fn account(&self, id: ClientId) -> Option<Account> {
        let slot = self.queues.slot(id)?;
        self.queues.get(slot).map(|queue| queue.account)
    }
}

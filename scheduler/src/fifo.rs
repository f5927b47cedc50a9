//! First come first served: the control that every experiment is compared with.
//!
//! 1. The client whose head unit arrived first ([`Head::arrival`]) is served; ties: lower id.
//! 2. Nobody is owed anything: all service is extra, nothing is released, nothing is missed.
//! 3. A unit is served to its end: there is no quantum.

use crate::contract::Contract;
use crate::heap::Heap;
use crate::policy::{Account, ClientId, Head, Pick, Policy, PolicyError, Rank, Ranked, Service};
use crate::table::Table;
use crate::time::{Amount, Moment};

/// The control policy. See the module for its rules.
#[derive(Debug)]
pub struct Fifo {
    clients: Table<Account>,
    queue: Heap<(Moment, ClientId)>,
    round: u64,
}

impl Fifo {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { clients: Table::new(capacity), queue: Heap::new(), round: 0 }
    }
}

impl Policy for Fifo {
    fn add(&mut self, id: ClientId, _contract: Contract, _now: Moment) -> Result<(), PolicyError> {
        self.clients.add(id, Account::default())?;
        self.queue.grow(self.clients.slots());
        Ok(())
    }

    fn remove(&mut self, id: ClientId, _now: Moment) -> Result<Account, PolicyError> {
        let (slot, account) = self.clients.remove(id)?;
        self.queue.remove(slot);
        Ok(account)
    }

    fn change(&mut self, id: ClientId, _: Contract, _now: Moment) -> Result<(), PolicyError> {
        self.clients.slot(id).map(|_| ()).ok_or(PolicyError::Unknown(id))
    }

    fn wake(&mut self, id: ClientId, head: Head, _now: Moment) {
        if let Some(slot) = self.clients.slot(id) {
            self.queue.set(slot, (head.arrival, id));
        }
    }

    fn block(&mut self, id: ClientId, _now: Moment) {
        if let Some(slot) = self.clients.slot(id) {
            self.queue.remove(slot);
        }
    }

    fn pick(&mut self, _now: Moment) -> Option<Pick> {
        let ((_, client), _) = self.queue.first()?;
        self.round = self.round.wrapping_add(1);
        Some(Pick { client, service: Service::Extra, until: Moment::MAX, round: self.round })
    }

    fn charge(&mut self, id: ClientId, _service: Service, cost: Amount, _now: Moment) {
        if let Some(slot) = self.clients.slot(id)
            && let Some(account) = self.clients.get_mut(slot)
        {
            account.extra = account.extra.saturating_add(cost);
        }
    }

    fn timeout(&self, _now: Moment) -> Option<Moment> {
        None
    }

    fn ranked(&mut self) -> Option<&mut dyn Ranked> {
        Some(self)
    }

    fn account(&self, id: ClientId) -> Option<Account> {
        let slot = self.clients.slot(id)?;
        self.clients.get(slot).copied()
    }
}

/// Nobody is owed anything: on a core all stay in the kernel's fair class.
impl Ranked for Fifo {
    fn ranks(&mut self, _now: Moment, _visit: &mut dyn FnMut(Rank)) {}
}

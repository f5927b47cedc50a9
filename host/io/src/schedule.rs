//! Who is served by one disk or link: its policy, and the table of its clients.
//!
//! A *client* is what a scheduler knows: a number with a contract, with work or without. Its
//! *owner* is whose work that is. The two are apart because they are not one to one: what serves
//! several resources is a client of each, and a device may come to have several clients of one.

use std::collections::BTreeMap;

use moirai_scheduler::admission::WHOLE_PPM;
use moirai_scheduler::{
    Account, Amount, ClientId, Contract, Head, Mode, Moment, Pick, Policy, PolicyError, Ticket,
};

use crate::DeviceId;

/// Whose work a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A tenant's device, all of its queues.
    Device(DeviceId),
}

#[derive(Debug)]
struct Client {
    owner: Owner,
    contract: Contract,
    has_work: bool,
}

/// The policy of one resource and those that it serves.
pub(crate) struct Schedule {
    policy: Box<dyn Policy>,
    clients: BTreeMap<ClientId, Client>,
    /// Never reused: a unit may come back after its client has gone.
    next: u32,
    /// Clients with work.
    busy: usize,
    /// Clients with a guarantee.
    promised: usize,
    /// What is promised of the resource, in parts of 2^-60.
    share: u128,
}

impl Schedule {
    pub(crate) fn new(policy: Box<dyn Policy>) -> Self {
        let clients = BTreeMap::new();
        Self { policy, clients, next: 0, busy: 0, promised: 0, share: 0 }
    }

    /// Lets somebody in under a contract.
    pub(crate) fn admit(
        &mut self,
        owner: Owner,
        contract: Contract,
        now: Moment,
    ) -> Result<ClientId, PolicyError> {
        let id = ClientId(self.next);
        self.policy.add(id, contract, now)?;
        self.next = self.next.wrapping_add(1);
        self.clients.insert(id, Client { owner, contract, has_work: false });
        self.count(contract);
        Ok(id)
    }

    /// Gives a client another contract from its next refill on.
    pub(crate) fn change(
        &mut self,
        id: ClientId,
        contract: Contract,
        now: Moment,
    ) -> Result<(), PolicyError> {
        self.policy.change(id, contract, now)?;
        if let Some(client) = self.clients.get_mut(&id) {
            let old = std::mem::replace(&mut client.contract, contract);
            self.discount(old);
            self.count(contract);
        }
        Ok(())
    }

    /// Takes a client out; its last account.
    pub(crate) fn dismiss(&mut self, id: ClientId, now: Moment) -> Result<Account, PolicyError> {
        let account = self.policy.remove(id, now)?;
        if let Some(client) = self.clients.remove(&id) {
            self.discount(client.contract);
            self.busy -= usize::from(client.has_work);
        }
        Ok(account)
    }

    fn count(&mut self, contract: Contract) {
        self.promised += usize::from(contract.slice() > Amount::ZERO);
        self.share += share(contract);
    }

    fn discount(&mut self, contract: Contract) {
        self.promised -= usize::from(contract.slice() > Amount::ZERO);
        self.share -= share(contract);
    }

    /// The first unit of a client's work is this one now, or it has none.
    pub(crate) fn head(&mut self, id: ClientId, head: Option<Head>, now: Moment) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        self.busy -= usize::from(client.has_work);
        client.has_work = head.is_some();
        self.busy += usize::from(client.has_work);
        match head {
            Some(head) => self.policy.wake(id, head, now),
            None => self.policy.block(id, now),
        }
    }

    /// Whose unit is next.
    pub(crate) fn pick(&mut self, now: Moment) -> Option<Pick> {
        self.policy.pick(now)
    }

    /// The unit that was picked goes to the device.
    pub(crate) fn hand_out(&mut self, pick: &Pick, estimate: Amount, now: Moment) -> Ticket {
        self.policy.hand_out(pick, estimate, now)
    }

    /// Whose work a client is; `None` for one that has gone.
    pub(crate) fn owner(&self, id: ClientId) -> Option<Owner> {
        self.clients.get(&id).map(|client| client.owner)
    }

    /// The contract of a client; `None` for one that has gone.
    pub(crate) fn contract(&self, id: ClientId) -> Option<Contract> {
        self.clients.get(&id).map(|client| client.contract)
    }

    /// Whether anybody has work.
    pub(crate) fn has_work(&self) -> bool {
        self.busy > 0
    }

    /// How many clients have a guarantee.
    pub(crate) fn promised(&self) -> usize {
        self.promised
    }

    /// All guarantees, in the order in which they were admitted.
    pub(crate) fn guarantees(&self) -> impl Iterator<Item = (Owner, Contract)> {
        let all = self.clients.values().map(|client| (client.owner, client.contract));
        all.filter(|(_, contract)| contract.slice() > Amount::ZERO)
    }

    /// What is promised to nobody but this client, in parts per million.
    pub(crate) fn spare_ppm_beside(&self, id: ClientId) -> u32 {
        let own = self.clients.get(&id).map_or(0, |client| share(client.contract));
        let others =
            self.share.saturating_sub(own).saturating_mul(WHOLE_PPM.into()) >> SHARE_DIGITS;
        WHOLE_PPM.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX))
    }

    /// Whether a client has used its slice up and wants more.
    pub(crate) fn is_exhausted(&self, id: ClientId) -> bool {
        self.policy.state(id).is_some_and(|state| state.mode == Mode::Waiting)
    }

    /// Where a client stands, for who looks for a fault.
    #[cfg(test)]
    pub(crate) fn describe(&self, id: ClientId) -> String {
        format!("{:?}, {:?}", self.clients.get(&id), self.policy.state(id))
    }

    pub(crate) fn account(&self, id: ClientId) -> Account {
        self.policy.account(id).unwrap_or_default()
    }

    /// When to pick again although nothing happens.
    pub(crate) fn timeout(&self, now: Moment) -> Option<Moment> {
        self.policy.timeout(now)
    }

    /// For what is nobody's turn: what units have cost, misses, the blocking term.
    pub(crate) fn policy(&mut self) -> &mut dyn Policy {
        self.policy.as_mut()
    }
}

const SHARE_DIGITS: u32 = 60;

/// The part of a resource that a contract reserves, in parts of 2^-60, rounded up.
fn share(contract: Contract) -> u128 {
    (contract.slice().wide() << SHARE_DIGITS).div_ceil(contract.period().wide().max(1))
}

#[cfg(test)]
mod tests {
    use moirai_scheduler::{Span, Weight, policy_by_name};

    use super::*;

    const NINE: Span = Span::from_millis(9);
    const OWNER: Owner = Owner::Device(DeviceId(7));

    fn schedule() -> Schedule {
        Schedule::new(policy_by_name("atropos", 8).unwrap())
    }

    #[test]
    fn what_is_promised_follows_those_who_come_change_and_go() {
        let mut schedule = schedule();
        let third = Contract::new(NINE, Amount::from_millis(3), NINE, None).unwrap();
        let slack = Contract::new(NINE, Amount::ZERO, NINE, Weight::new(1)).unwrap();
        let ids = [third, third, slack].map(|it| schedule.admit(OWNER, it, Moment::ZERO).unwrap());
        assert_eq!((schedule.promised(), schedule.spare_ppm_beside(ids[0])), (2, 666_667));
        assert_eq!(schedule.spare_ppm_beside(ids[2]), 333_334);
        schedule.change(ids[2], third, Moment::ZERO).unwrap();
        assert_eq!(ids.map(|id| schedule.contract(id)), [Some(third); 3]);
        assert_eq!((schedule.promised(), schedule.spare_ppm_beside(ids[2])), (3, 333_334));
        schedule.dismiss(ids[0], Moment::ZERO).unwrap();
        assert_eq!((schedule.promised(), schedule.spare_ppm_beside(ids[1])), (2, 666_667));
    }

    #[test]
    fn a_number_is_not_used_twice_and_a_client_that_has_gone_has_no_work() {
        let mut schedule = schedule();
        let contract = Contract::new(NINE, Amount::from_millis(3), NINE, None).unwrap();
        let first = schedule.admit(OWNER, contract, Moment::ZERO).unwrap();
        schedule.head(first, Some(Head::default()), Moment::ZERO);
        assert!(schedule.has_work());
        schedule.dismiss(first, Moment::ZERO).unwrap();
        assert!(!schedule.has_work());
        assert_eq!((schedule.owner(first), schedule.contract(first)), (None, None));
        schedule.head(first, Some(Head::default()), Moment::ZERO);
        assert!(!schedule.has_work(), "nobody is there");
        let second = schedule.admit(OWNER, contract, Moment::ZERO).unwrap();
        assert_ne!(first, second);
    }
}

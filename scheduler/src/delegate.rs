//! The policies of the crate are wrappers of a [`crate::reserve::Reserve`] with their rules: every
//! call goes through.

/// Implements `Policy` for a public wrapper of a [`Reserve`], so that its rules stay private.
macro_rules! delegate_policy {
    ($name:ty) => {
        impl Policy for $name {
            fn add(&mut self, id: ClientId, c: Contract, now: Moment) -> Result<(), PolicyError> {
                self.0.add(id, c, now)
            }
            fn remove(&mut self, id: ClientId, now: Moment) -> Result<Account, PolicyError> {
                self.0.remove(id, now)
            }
            fn change(
                &mut self,
                id: ClientId,
                c: Contract,
                now: Moment,
            ) -> Result<(), PolicyError> {
                self.0.change(id, c, now)
            }
            fn wake(&mut self, id: ClientId, head: Head, now: Moment) {
                self.0.wake(id, head, now);
            }
            fn block(&mut self, id: ClientId, now: Moment) {
                self.0.block(id, now);
            }
            fn pick(&mut self, now: Moment) -> Option<Pick> {
                self.0.pick(now)
            }
            fn charge(&mut self, id: ClientId, service: Service, cost: Amount, now: Moment) {
                self.0.charge(id, service, cost, now);
            }
            fn hand_out(&mut self, pick: &Pick, estimate: Amount, now: Moment) -> Ticket {
                self.0.hand_out(pick, estimate, now)
            }
            fn complete(&mut self, ticket: Ticket, cost: Amount, now: Moment) {
                self.0.complete(ticket, cost, now);
            }
            fn overdue(&mut self, ticket: &mut Ticket, now: Moment) {
                self.0.overdue(ticket, now);
            }
            fn take_misses(&mut self, visit: &mut dyn FnMut(Miss)) {
                self.0.take_misses(visit);
            }
            fn judge(&mut self, now: Moment) {
                self.0.judge(now);
            }
            fn timeout(&self, now: Moment) -> Option<Moment> {
                self.0.timeout(now)
            }
            fn ranked(&mut self) -> Option<&mut dyn crate::policy::Ranked> {
                Some(self)
            }
            fn account(&self, id: ClientId) -> Option<Account> {
                self.0.account(id)
            }
            fn set_blocking(&mut self, blocking: Amount) {
                self.0.set_blocking(blocking);
            }
            fn set_wake_cost(&mut self, cost: Amount) {
                self.0.set_wake_cost(cost);
            }
            fn state(&self, id: ClientId) -> Option<ClientState> {
                self.0.state(id)
            }
        }

        impl crate::policy::Ranked for $name {
            fn ranks(&mut self, now: Moment, visit: &mut dyn FnMut(Rank)) {
                self.0.ranks(now, visit);
            }
        }
    };
}
pub(crate) use delegate_policy;

//! Who is owed time, in order, for a core.

use super::{Client, Reserve};
use crate::policy::{Rank, Ranked};
use crate::rules::Rules;
use crate::time::{Amount, Moment};

impl<R: Rules> Ranked for Reserve<R> {
    fn ranks(&mut self, now: Moment, visit: &mut dyn FnMut(Rank)) {
        let now = self.clock(now);
        self.release_due(now);
        self.ranks.begin();
        for (client, _, Client { budget, .. }) in self.clients.iter() {
            if budget.awake {
                self.ranks.awake(client, budget);
            } else if budget.contract.slice() > Amount::ZERO {
                self.ranks.asleep(client, budget, &self.rules.woken(budget, now), now);
            }
        }
        self.ranks.sort(now);
        self.ranks.iter().for_each(visit);
    }
}

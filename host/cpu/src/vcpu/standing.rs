//! What the policy owes a vCPU.

use moirai_scheduler::Rank;

use super::Vcpu;

/// What the policy owes it, as of the latest ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Owed(Rank),
    /// Nothing; whether the rank that it had just before floated.
    NotOwed {
        floated: bool,
    },
}

impl Default for Standing {
    fn default() -> Self {
        Self::NotOwed { floated: false }
    }
}

impl<T> Vcpu<T> {
    /// What the policy owes it.
    pub(crate) fn rank(&self) -> Option<Rank> {
        match self.standing {
            Standing::Owed(rank) => Some(rank),
            Standing::NotOwed { .. } => None,
        }
    }

    /// It is owed more than it takes to stop it. What is left to a sleeper is only known when it
    /// wakes.
    pub(crate) fn may_run(&self) -> bool {
        let sleeps = self.is_asleep() && !self.is_gated();
        self.rank().is_some_and(|rank| sleeps || rank.budget > self.lead())
    }

    /// The policy ranks anew; nothing is owed until it says so.
    pub(crate) fn begin_ranking(&mut self) {
        let floated = self.rank().is_some_and(|rank| rank.floats);
        self.standing = Standing::NotOwed { floated };
    }

    /// It is owed time; whether its rank begins to float.
    #[must_use]
    pub(crate) fn rank_as(&mut self, rank: Rank) -> bool {
        let floated = self.standing == Standing::NotOwed { floated: true };
        self.standing = Standing::Owed(rank);
        rank.floats && !floated
    }
}

//! Who has had more than its share of the slack.
//!
//! The fair class shares a core by weight among threads that stay in it. Ours leave it for every
//! slice, and up to Linux 6.5 a thread that comes back has lost what it was behind the others: what
//! it gets is then a matter of ticks (two busy Linux tenants with weights 2 and 1 got 53 : 47 in
//! the lab). So the dispatcher keeps the virtual times of start-time fair queueing itself and stops
//! whoever is too far ahead at its gate, until the others have caught up. (SCHED_IDLE would be
//! kinder, but a thread in it is preempted by others at the tick only, and a tick is longer than
//! most of the slack between two slices.)
//!
//! 1. A vCPU of weight `w` that gets slack of `c` nanoseconds moves ahead: `virtual_time += c / w`.
//! 2. The floor is the least virtual time of all vCPUs that want slack. A vCPU wants slack if it is
//!    runnable without a slice now, or was in this period or in the one before.
//! 3. A vCPU that does not want slack is lifted to the floor: nobody saves slack up by sleeping.
//! 4. A vCPU whose virtual time is more than [`LEAD`] beyond the floor waits at its gate until it
//!    is not.
//! 5. If it is more than twice [`LEAD`] beyond the floor, the excess is forgiven. Such a distance
//!    comes from a time without rounds, and in that time the fair class shared the slack by itself.

use moirai_scheduler::{Amount, Weight};

/// How far one vCPU may be ahead of another, in nanoseconds of slack at weight 1.
pub(super) const LEAD: Amount = Amount::from_millis(3);

/// One vCPU's part of the slack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    virtual_time: Amount,
    /// It wanted slack in this period, in the one before.
    wanted: (bool, bool),
    yields: bool,
}

impl Share {
    /// Books slack that it was given.
    pub(super) fn book(&mut self, used: Amount, weight: Weight) {
        let advance = used / u64::from(weight.get());
        self.virtual_time = self.virtual_time.saturating_add(advance);
    }

    /// It is not owed time now, and wants to run all the same.
    pub(super) fn note_wanted(&mut self) {
        self.wanted.0 = true;
    }

    /// A period begins.
    pub(super) fn begin_period(&mut self) {
        self.wanted = (false, self.wanted.0);
    }

    /// Whether it wanted slack in this period or the one before.
    pub(super) fn wanted(self) -> bool {
        self.wanted.0 || self.wanted.1
    }

    /// Its virtual time, which counts for the floor if it wants slack.
    pub(super) fn virtual_time(self) -> Amount {
        self.virtual_time
    }

    /// Applies the rules 3 and 4 to one that wants slack or does not.
    pub(super) fn settle(&mut self, wants: bool, floor: Amount) {
        let most = if wants { floor.saturating_add(2 * LEAD) } else { Amount::MAX };
        self.virtual_time = self.virtual_time.clamp(floor, most);
        let bound = if self.yields { Amount::ZERO } else { LEAD };
        self.yields = self.lead(floor) > bound;
    }

    /// How far it is ahead of the floor.
    pub(super) fn lead(self, floor: Amount) -> Amount {
        self.virtual_time.saturating_sub(floor)
    }

    /// Whether it has to wait until others have caught up.
    pub(super) fn yields(self) -> bool {
        self.yields
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAD, Share};
    use moirai_scheduler::{Amount, Weight};

    fn share(used: Amount, weight: u32) -> Share {
        let mut share = Share::default();
        share.book(used, Weight::new(weight).unwrap());
        share
    }

    #[test]
    fn twice_the_slack_at_twice_the_weight_is_no_lead() {
        assert_eq!(share(10 * LEAD, 2).lead(share(5 * LEAD, 1).virtual_time()), Amount::ZERO);
    }

    #[test]
    fn whoever_is_ahead_yields_until_the_others_have_caught_up() {
        let mut ahead = share(LEAD, 1);
        let yields = |share: &mut Share, floor| {
            share.settle(true, floor);
            share.yields()
        };
        assert!(!yields(&mut ahead, Amount::ZERO), "as far as it may");
        ahead.book(Amount::ONE, Weight::MIN);
        assert!(yields(&mut ahead, Amount::ZERO) && yields(&mut ahead, LEAD));
        assert!(!yields(&mut ahead, LEAD + Amount::ONE) && !yields(&mut ahead, Amount::ONE));
    }

    #[test]
    fn sleeping_saves_nothing_up() {
        let mut sleeper = share(Amount::ZERO, 1);
        sleeper.settle(false, 10 * LEAD);
        assert_eq!(sleeper.virtual_time(), 10 * LEAD);
    }

    #[test]
    fn a_wish_counts_until_a_whole_period_has_passed_without() {
        let mut share = share(Amount::ONE, 1);
        assert!(!share.wanted());
        share.note_wanted();
        assert!(share.wanted());
        share.begin_period();
        assert!(share.wanted());
        share.begin_period();
        assert!(!share.wanted());
    }

    #[test]
    fn a_lead_from_a_time_without_rounds_is_forgiven() {
        let mut ahead = share(1_000 * LEAD, 1);
        ahead.settle(true, Amount::ZERO);
        assert_eq!((ahead.lead(Amount::ZERO), ahead.yields()), (2 * LEAD, true));
    }
}

//! How much is inside a device at once.
//!
//! 1. An empty device takes any unit.
//! 2. Else a unit joins if there are fewer than `depth` inside and the estimates of all of them,
//!    its own among them, sum up to at most `unit_max`.
//! 3. A unit of slack, on a device with contracts, joins only up to [`SLACK_WINDOW`]: it must not
//!    stand in the way of somebody who is owed time for longer than parallel service gains.
//!
//! So with honest estimates a client that wakes finds at most `unit_max` in front of it: the
//! blocking term of admission is one largest unit at every depth. While nobody is promised anything
//! on the device (a disk of best-effort tenants alone), only `depth` bounds it.

use crate::policy::Service;
use crate::time::Amount;

/// How much a unit of slack may find inside and join all the same, its own cost included, in
/// nanoseconds.
pub const SLACK_WINDOW: Amount = Amount::from_micros(250);

/// What is inside one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    depth: usize,
    unit_max: Amount,
    units: usize,
    outstanding: Amount,
}

impl Window {
    /// An empty device that takes at most `depth` units (at least one), the largest of which costs
    /// `unit_max` nanoseconds.
    #[must_use]
    pub const fn new(depth: usize, unit_max: Amount) -> Self {
        let depth = if depth == 0 { 1 } else { depth };
        Self { depth, unit_max, units: 0, outstanding: Amount::ZERO }
    }

    /// Whether a unit of this `estimate` may go to the device now. `contracts`: somebody is
    /// promised time on it.
    #[must_use]
    pub fn fits(&self, service: Service, estimate: Amount, contracts: bool) -> bool {
        let limit = match service {
            Service::Guaranteed => self.unit_max,
            Service::Extra if contracts => self.unit_max.min(SLACK_WINDOW),
            Service::Extra => Amount::MAX,
        };
        let joined = self.outstanding.saturating_add(estimate);
        self.units == 0 || self.units < self.depth && joined <= limit
    }

    /// Whether nothing fits, whatever it costs.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.units >= self.depth
    }

    /// A unit goes to the device.
    pub fn begin(&mut self, estimate: Amount) {
        self.units = self.units.saturating_add(1);
        self.outstanding = self.outstanding.saturating_add(estimate);
    }

    /// A unit that went with this `estimate` came back.
    pub fn end(&mut self, estimate: Amount) {
        self.units = self.units.saturating_sub(1);
        self.outstanding = self.outstanding.saturating_sub(estimate);
        if self.units == 0 {
            self.outstanding = Amount::ZERO;
        }
    }

    /// Units inside.
    #[must_use]
    pub const fn units(&self) -> usize {
        self.units
    }

    /// What they will take together, in nanoseconds.
    #[must_use]
    pub const fn outstanding(&self) -> Amount {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_device_takes_a_unit_of_any_length_and_then_no_other() {
        let mut window = Window::new(32, Amount::from_millis(1));
        assert!(window.fits(Service::Extra, Amount::MAX, true));
        window.begin(Amount::from_millis(5));
        assert!(!window.fits(Service::Guaranteed, Amount::from_nanos(1), true));
        window.end(Amount::from_millis(5));
        assert!(window.fits(Service::Guaranteed, Amount::from_nanos(1), true));
    }

    #[test]
    fn small_units_share_the_device_up_to_one_largest_unit_and_slack_up_to_less() {
        let mut window = Window::new(32, Amount::from_millis(1));
        let mut joined = 0;
        while window.fits(Service::Extra, Amount::from_micros(70), true) {
            window.begin(Amount::from_micros(70));
            joined += 1;
        }
        assert_eq!(joined, 3, "210 us of the 250 for slack");
        while window.fits(Service::Guaranteed, Amount::from_micros(70), true) {
            window.begin(Amount::from_micros(70));
            joined += 1;
        }
        assert_eq!(
            (joined, window.units(), window.outstanding()),
            (14, 14, Amount::from_micros(980))
        );
    }

    #[test]
    fn depth_bounds_the_number_and_is_all_where_nothing_is_promised() {
        let mut window = Window::new(2, Amount::from_micros(1));
        window.begin(Amount::from_nanos(10));
        window.begin(Amount::from_nanos(10));
        assert!(window.is_full() && !window.fits(Service::Guaranteed, Amount::from_nanos(1), true));
        window.end(Amount::from_nanos(10));
        assert!(window.fits(Service::Extra, Amount::from_millis(1), false));
        assert!(!window.fits(Service::Extra, Amount::from_millis(1), true));
    }
}

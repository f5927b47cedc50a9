//! Device status (virtio 1.2, sections 2.1 and 3.1.1): which change a driver may ask for, and what
//! it sets off.

/// The driver has seen the device.
pub const ACKNOWLEDGE: u32 = 1;
/// The driver knows how to drive it.
pub const DRIVER: u32 = 2;
/// The driver is set up.
pub const DRIVER_OK: u32 = 4;
/// Feature negotiation is complete.
pub const FEATURES_OK: u32 = 8;
/// The device has met an error that it cannot recover from (set by the device only).
pub const NEEDS_RESET: u32 = 64;
/// The driver has given the device up.
pub const FAILED: u32 = 128;

/// What a legal change sets off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Accept,
    /// Check the features that the driver has chosen; refuse the change if they are wrong.
    CheckFeatures,
    /// Start the device.
    Start,
}

/// Legal changes: from, to, what to do. Everything else but reset and failure is ignored.
const TRANSITIONS: [(u32, u32, Step); 5] = [
    (0, ACKNOWLEDGE, Step::Accept),
    (0, ACKNOWLEDGE | DRIVER, Step::Accept),
    (ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, Step::Accept),
    (ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | FEATURES_OK, Step::CheckFeatures),
    (
        ACKNOWLEDGE | DRIVER | FEATURES_OK,
        ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
        Step::Start,
    ),
];

/// What to do when the driver of a device in status `from` writes `to`; `None` if that is illegal.
#[must_use]
pub fn step(from: u32, to: u32) -> Option<Step> {
    let legal = |&&(f, t, _): &&(u32, u32, Step)| (f, t) == (from, to);
    TRANSITIONS.iter().find(legal).map(|&(_, _, step)| step)
}

#[cfg(test)]
mod tests {
    use super::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, Step, step};

    #[test]
    fn a_device_starts_only_after_features_are_agreed_on() {
        let known = ACKNOWLEDGE | DRIVER;
        assert_eq!(step(known | FEATURES_OK, known | FEATURES_OK | DRIVER_OK), Some(Step::Start));
        for from in 0..=0xff {
            let starts = step(from, known | FEATURES_OK | DRIVER_OK) == Some(Step::Start);
            assert_eq!(starts, from == known | FEATURES_OK);
            assert_eq!(step(from, known | DRIVER_OK), None);
        }
    }
}

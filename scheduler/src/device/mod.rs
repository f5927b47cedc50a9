//! What the owner of a device with a queue has to know beside its policy: what a unit will probably
//! cost ([`CostModel`]), and whether another one may join those inside ([`Window`]).
//!
//! A unit that a device has taken cannot be taken back. So what is inside is bounded *in time*: a
//! newcomer waits for no more than one largest unit, whatever the depth of the device. Small units
//! run in parallel all the same. The policy says whose unit is next ([`crate::Policy::pick`]); the
//! window says whether it goes now.

mod cost;
mod window;

pub use cost::{CostModel, Kind};
pub use window::{SLACK_WINDOW, Window};

//! What the threads of the host service stand on: time, a core of their own, messages, and a memory
//! of when the machine stood still.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `clock.rs` | the clocks of this host; nothing else reads one |
//! | `place.rs` | the core and the class of a thread |
//! | `netns.rs` | network namespaces with names, and work in one |
//! | `mailbox.rs`, `bell.rs` | how a thread that owns its state alone is asked |
//! | `question.rs` | how it is asked how things are, again and again |
//! | `stall.rs` | times in which the machine itself stood still |
//! | `noise.rs` | the machine's noise floor |
//! | `watchdog.rs` | who has not come back from a turn |
//!
//! Neighbours: dispatcher and I/O domain run on it. It knows neither.

mod bell;
mod clock;
mod mailbox;
pub mod netns;
mod noise;
mod place;
#[cfg(not(all(test, feature = "loom")))]
mod question;
mod refused;
mod stall;
mod watchdog;

pub use clock::{instant, now, own_cpu_time, since, sleep_until, wall_clock};
pub use mailbox::{Inbox, Mailbox, Reply, mailbox};
pub use noise::{Lateness, NoiseError, NoiseFloor, NoiseProbe, Percentiles};
pub use place::{pin, set_scheduler, set_scheduler_inherited};
#[cfg(not(all(test, feature = "loom")))]
pub use question::{Known, Question};
pub use stall::{Stall, StallLog};
pub use watchdog::{STUCK, Turns, Watchdog, Watched, watched};

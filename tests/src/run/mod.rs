//! How `lab` and `suite` start tests and read their results.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `bounded` | a command with a time limit, which ends with whoever started it |
//! | `tally` | passed, failed, skipped: the summary, written and read |
//! | `libtest` | what Rust's test programs print |
//! | `junit` | the results as CI servers read them |

pub mod bounded;
pub mod junit;
pub mod libtest;
pub mod tally;

pub use bounded::{Ending, Group};
pub use tally::{Case, Outcome, Tally};

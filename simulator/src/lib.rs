//! Virtual-time simulation of tenants, loads and adversaries over the scheduling policies.
//!
//! The policies are the very code that runs under the CPU dispatcher and the I/O domain; only the
//! clock, the device and the work are made up. Nothing here reads a clock or a random number from
//! outside: the same [`Scenario`] and seed give the same [`Report`], byte for byte.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`scenario`] | what is simulated: resources, tenants, contracts |
//! | [`load`] | what tenants do: the loads and adversaries of `[tenant.load]` |
//! | `source` | a load at work |
//! | `engine`, `cpu`, `units` | virtual time, one resource |
//! | `meter` | what is measured |
//! | [`report`] | the result, as JSON |
//! | [`gantt`], [`trace`] | the result, as SVG and for Perfetto |
//! | [`world`], [`proof`], [`supply`] | random worlds, invariants checked on every decision |
//! | `judge` | what a user would call a miss |

mod engine;
pub mod gantt;
mod judge;
pub mod load;
mod meter;
pub mod proof;

pub mod random;
pub mod report;
pub mod scenario;
mod source;
pub mod supply;
pub mod trace;
pub mod world;

pub use engine::{MakePolicy, SimulationError, run, run_policy};
pub use load::{Load, Time};
pub use report::Report;
pub use scenario::{Kind, Resource, Scenario, Tenant, Use};

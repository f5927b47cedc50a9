//! The admission ledger: what is promised on every core, disk and link and of the memory, and to
//! whom.
//!
//! The [`Ledger`] owns the admitted contracts of each resource; [`moirai_scheduler::admission`]
//! tests whether one more fits. The service asks it before it starts or changes a tenant, and gives
//! back what a tenant had when that ends; [`plan`] asks without starting anything.
//!
//! Each file knows those above it in this table only:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `quantities.rs`, `report.rs` | how admission says what it counts, and what it refuses |
//! | `resource.rs`, `memory.rs` | what there is of cores, disks, links and memory |
//! | `several.rs` | the nearest contract of a tenant with several virtual CPUs |
//! | `ledger.rs` | who was promised what, and whether more fits |
//! | `explain.rs` | why a contract does not fit |
//! | `plan.rs` | a whole configuration at once |
//! | `promise.rs`, `words.rs` | what one tenant is promised, in numbers and in words |

mod explain;
mod ledger;
mod memory;
pub mod plan;
pub mod promise;
mod quantities;
mod report;
mod resource;
mod several;
mod words;

pub use crate::costs::CoreCosts;
pub use explain::Chart;
pub use ledger::per_second;
pub use ledger::{Claim, ContractRefusal, Ledger, Part, Refusal};
pub use memory::{MemoryClaim, MemoryRefusal};
pub use report::{Due, Explanation};
pub use resource::ResourceId;
pub use resource::all as resources;

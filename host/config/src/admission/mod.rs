//! The admission ledger: what is promised on every core, disk and link and of the memory, and to
//! whom.
//!
//! Owns the list of admitted contracts per resource; the test itself is
//! [`moirai_scheduler::admission`]. Neighbours: the service asks before it starts or changes a
//! tenant and gives back when one ends; [`plan`] asks without starting anything.

mod costs;
mod explain;
mod ledger;
mod memory;
pub mod plan;
pub mod promise;
mod resource;
mod several;
mod words;

pub use costs::CoreCosts;
pub use explain::{Chart, Due, Explanation};
pub use ledger::per_second;
pub use ledger::{Claim, ContractRefusal, Ledger, Part, Refusal};
pub use memory::{MemoryClaim, MemoryRefusal};
pub use resource::ResourceId;
pub use resource::all as resources;

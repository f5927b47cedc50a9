//! Contracts, schedulers and admission tests in pure code: time is an argument everywhere.
//!
//! The same code runs under the CPU dispatcher, the I/O domain, the simulator and the property
//! tests. There is no clock, no I/O, no unsafe and no dependency in this crate.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod contract;
pub mod policy;

pub use contract::{Contract, ContractError, Nanos, Weight};
pub use policy::{Account, ClientId, Head, Pick, Policy, PolicyError, Rank, Service};

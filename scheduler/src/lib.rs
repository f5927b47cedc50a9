//! Contracts, schedulers and admission tests in pure code: time is an argument everywhere.
//!
//! The same code runs under the CPU dispatcher, the I/O domain, the simulator and the property
//! tests. There is no clock, no I/O, no unsafe and no dependency in this crate.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::float_arithmetic, clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

extern crate alloc;

pub mod admission;
pub mod atropos;
mod budget;
pub mod contract;
mod delegate;
pub mod device;
pub mod drr;
pub mod edf_channel;
pub mod excuse;
pub mod fifo;
mod heap;
mod names;
pub mod nemesis;
pub mod policy;
mod promise;
mod ranks;
mod reserve;
mod rules;
mod slack;
mod table;
pub mod time;
pub mod usd;
pub mod xen;

pub use atropos::Atropos;
pub use contract::{Contract, ContractError, Weight};
pub use drr::Drr;
pub use edf_channel::EdfChannel;
pub use fifo::Fifo;
pub use names::{POLICIES, PolicyKind, UnknownPolicy, policy, policy_by_name, ranked};
pub use nemesis::Nemesis;
pub use policy::{
    Account, ClientId, ClientState, Head, Miss, Mode, Pick, Policy, PolicyError, Rank, Ranked,
    Service, Ticket,
};
pub use reserve::SLACK_QUANTUM;
pub use time::{Amount, Moment, Span};
pub use usd::Usd;
pub use xen::Xen;

//! What more than one program must agree on: versioned layouts that host and guest share, and rules
//! that both the configuration and the devices check. Pure: no unsafe, no allocation.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod boot;
pub mod disk_id;
pub mod gate;
pub mod limits;
pub mod machine;
pub mod shell;
pub mod wire;

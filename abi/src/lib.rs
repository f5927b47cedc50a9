//! What more than one program has to say the same of: layouts that host and guest share, with
//! versions, and the rules by which what is configured is held against what is served. Pure: no
//! unsafe, no allocation.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod boot;
pub mod disk_id;
pub mod limits;
pub mod machine;
pub mod wire;

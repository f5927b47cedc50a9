//! Layouts that host and guest share, with versions. No code that runs, no unsafe.
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod machine;

//! The tests that need Linux tenants, and so a KVM that runs ring 0: `make lab` runs them in the
//! lab's machine, one after the other.
//!
//! | module | what is tested |
//! | --- | --- |
//! | `boot` | kernels, transports, numbers of vCPUs, memory |
//! | `debian` | the image of `moirai image debian` |
//! | `disk` | fio on every format, ext4 killed in mid-write |
//! | `net` | ping, iperf3, a file with a checksum |
//! | `life` | reboot, power-off, power button, processes that die, eight tenants |
//! | `own` | vsock, balloon, entropy |
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it expects")]

mod boot;
mod debian;
mod disk;
mod guest;
mod life;
mod net;
mod own;

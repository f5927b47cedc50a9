//! A link in a network namespace of its own, for tests.

use std::process::Command;

use moirai_devices::backend::tap::Tap;
use moirai_devices::net::Offload;
use moirai_io::{DiskSpec, GroupSpec, IoDomain, LinkSpec};
use moirai_runtime::StallLog;
use moirai_runtime::netns::in_netns;
use moirai_scheduler::{Amount, PolicyKind};

/// A namespace that is removed with the value.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn create(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        ip(&["netns", "add", &name]);
        Self(name)
    }

    /// A TAP with the address 10.77.0.1/24 in here.
    pub(crate) fn tap(&self) -> Tap {
        let tap = in_netns(&self.0, || Tap::open("tap0", Offload::Checksum)).unwrap().unwrap();
        ip(&["-n", &self.0, "address", "add", "10.77.0.1/24", "dev", "tap0"]);
        ip(&["-n", &self.0, "link", "set", "tap0", "up"]);
        ip(&["-n", &self.0, "link", "set", "lo", "up"]);
        tap
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {words:?}");
}

/// An I/O domain with one disk and one link.
pub(crate) fn domain_with_link(
    namespace: &Namespace,
    rate_bps: u64,
    policy: PolicyKind,
) -> IoDomain {
    let disk = DiskSpec {
        name: "disk".into(),
        depth: 4,
        max_unit: Amount::from_millis(1),
        blocking: Amount::from_millis(1),
        policy,
    };
    let link = LinkSpec {
        name: "link".into(),
        rate_bps,
        mtu: 1500,
        policy,
        reserved: Vec::new(),
        broadcast: 20,
        tap: namespace.tap(),
    };
    let spec = GroupSpec {
        name: "test".into(),
        core: Some(0),
        disks: vec![disk],
        links: vec![link],
        poll: std::time::Duration::ZERO,
        stalls: StallLog::default(),
    };
    IoDomain::start(spec).expect("real-time priority and io_uring are needed: run as root")
}

//! Launches that cannot be: each says what went wrong and what to do.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use moirai_launch::{DeviceSpec, Ended, LaunchSpec, Sandbox, SpawnError, Stage, ToHost};
use support::{Tenant, file, gates, spec};

#[test]
fn a_device_that_is_not_kvm_is_reported() {
    let (host, theirs) = moirai_launch::pair().unwrap();
    let kvm = std::fs::File::open("/dev/null").unwrap().into();
    let fds = moirai_launch::LaunchFds { kvm, ..support::fds(file(b""), gates(1)) };
    let thread = std::thread::spawn(move || moirai_vmm::tenant::serve(&theirs));
    let spec = LaunchSpec { sandbox: Sandbox { enabled: false, ..Sandbox::default() }, ..spec() };
    support::send_launch(&host, &spec, &fds);
    match host.receive().unwrap().0 {
        ToHost::Failed { stage: Stage::Kvm, hint, .. } => {
            assert!(hint.contains("/dev/kvm"), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    assert!(thread.join().unwrap().is_err());
}

#[test]
fn a_user_that_cannot_be_had_is_reported() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root can become anybody");
        return;
    }
    let sandbox = Sandbox { enabled: true, uid: Some(64_123), gid: None };
    let spec = LaunchSpec { sandbox, ..spec() };
    let tenant = Tenant::launch(&spec, file(b""));
    assert!(matches!(tenant.message(), ToHost::Failed { stage: Stage::Sandbox, .. }));
}

#[test]
fn a_launch_that_breaks_a_rule_is_refused_before_anything_is_started() {
    let bad = [
        LaunchSpec { vcpus: 0, ..spec() },
        LaunchSpec { vcpus: 9, ..spec() },
        LaunchSpec { memory_bytes: 4097, ..spec() },
        LaunchSpec { memory_bytes: 0, ..spec() },
        LaunchSpec { memory_bytes: u64::MAX, ..spec() },
        LaunchSpec { cmdline: "x".repeat(4096), ..spec() },
        LaunchSpec { cmdline: "nul\0".to_owned(), ..spec() },
        LaunchSpec {
            devices: vec![DeviceSpec { device_id: 2, queues: 0, queue_size: 64 }],
            ..spec()
        },
        LaunchSpec {
            devices: vec![DeviceSpec { device_id: 2, queues: 1, queue_size: 65 }],
            ..spec()
        },
    ];
    for spec in bad {
        let fds = support::fds(file(b""), gates(1));
        let refused = moirai_launch::spawn(support::binary(), &spec, fds);
        assert!(matches!(refused, Err(SpawnError::Spec(_))), "{spec:?}");
    }
}

#[test]
fn a_missing_binary_says_where_it_belongs() {
    let fds = support::fds(file(b""), gates(1));
    let path = std::path::Path::new("/nowhere/moirai-tenant");
    let error = moirai_launch::spawn(path, &spec(), fds).unwrap_err().to_string();
    assert!(error.contains("MOIRAI_TENANT"), "{error}");
}

#[test]
fn a_tenant_that_is_started_by_hand_says_how() {
    let output = std::process::Command::new(support::binary()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("moirai-tenant run IMAGE"), "{error}");
}

#[test]
fn a_host_without_kvm_is_told_what_to_do() {
    let open = |path| moirai_launch::kvm::open_kvm_at(std::path::Path::new(path));
    let missing = open("/dev/no-kvm-here").unwrap_err().to_string();
    assert!(missing.contains("modprobe"), "{missing}");
    let other = open("/dev").unwrap_err().to_string();
    assert!(other.contains("cannot open /dev"), "{other}");
}

#[test]
fn a_bad_image_is_reported_with_what_to_do() {
    let mut tenant = Tenant::launch(&spec(), file(b"#!/bin/sh\n"));
    match tenant.message() {
        ToHost::Failed { stage: Stage::Image, error, hint } => {
            assert!(error.contains("neither an ELF"), "{error}");
            assert!(hint.contains("vmlinuz"), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tenant.child.wait().unwrap(), Ended::Exited(1));
}

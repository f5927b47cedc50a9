//! Dependencies point one way (ARCHITECTURE.md); this test is what enforces it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on among ours, in its library and binaries.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("moirai-scheduler", &[]),
    ("moirai-simulator", &["moirai-scheduler"]),
    ("moirai-abi", &[]),
    ("moirai-devices", &["moirai-abi"]),
    ("moirai-vmm", &["moirai-abi", "moirai-devices"]),
    (
        "moirai-host",
        &["moirai-scheduler", "moirai-simulator", "moirai-abi", "moirai-devices", "moirai-vmm"],
    ),
];
/// Only the tenant process may know KVM.
const KVM: [&str; 2] = ["kvm-ioctls", "kvm-bindings"];

/// The direct dependencies of every crate, without those of its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(moirai_tests::root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let built = all.filter(|dependency| dependency["kind"].is_null());
        let names = built.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        (package["name"].as_str().unwrap().to_owned(), names.collect())
    });
    packages.collect()
}

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    let all = dependencies();
    for (name, allowed) in ALLOWED {
        let ours = all[name].iter().filter(|other| other.starts_with("moirai-"));
        let wrong: Vec<_> = ours.filter(|other| !allowed.contains(&other.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
    assert!(all["moirai-scheduler"].is_empty(), "the scheduler depends on nothing");
}

#[test]
fn only_the_tenant_process_knows_kvm() {
    for (name, dependencies) in dependencies() {
        let knows = KVM.iter().any(|kvm| dependencies.contains(*kvm));
        assert_eq!(knows, name == "moirai-vmm", "{name}");
    }
}

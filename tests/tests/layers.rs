//! Dependencies point one way (ARCHITECTURE.md); this test is what enforces it.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on among ours, in its library and binaries. Every crate is here.
const ALLOWED: &[(&str, &[&str])] = &[
    ("moirai-scheduler", &[]),
    ("moirai-simulator", &["moirai-scheduler"]),
    ("moirai-abi", &[]),
    ("moirai-image-wire", &[]),
    ("moirai-image", &["moirai-image-wire", "moirai-sandbox"]),
    ("moirai-devices", &["moirai-abi", "moirai-image-wire"]),
    ("moirai-launch", &["moirai-abi"]),
    ("moirai-sandbox", &[]),
    ("moirai-confine", &["moirai-sandbox"]),
    ("moirai-config", &["moirai-abi", "moirai-launch", "moirai-runtime", "moirai-scheduler"]),
    ("moirai-vmm", &["moirai-abi", "moirai-devices", "moirai-launch", "moirai-sandbox"]),
    ("moirai-api", &["moirai-config"]),
    ("moirai-runtime", &["moirai-confine", "moirai-scheduler"]),
    ("moirai-cpu", &["moirai-abi", "moirai-confine", "moirai-runtime", "moirai-scheduler"]),
    ("moirai-io", &["moirai-confine", "moirai-runtime", "moirai-scheduler", "moirai-devices"]),
    (
        "moirai-service",
        &[
            "moirai-abi",
            "moirai-api",
            "moirai-config",
            "moirai-confine",
            "moirai-cpu",
            "moirai-devices",
            "moirai-io",
            "moirai-launch",
            "moirai-runtime",
        ],
    ),
    ("moirai-bench", &["moirai-api", "moirai-config", "moirai-runtime", "moirai-scheduler"]),
    (
        "moirai-cli",
        &[
            "moirai-api",
            "moirai-bench",
            "moirai-config",
            "moirai-confine",
            "moirai-devices",
            "moirai-io",
            "moirai-runtime",
            "moirai-scheduler",
            "moirai-service",
            "moirai-simulator",
        ],
    ),
];
/// The tests know everybody.
const TESTS: &str = "moirai-tests";
/// Who must not see whom, whoever stands between them.
const NEVER: &[(&str, &[&str])] = &[
    ("moirai-scheduler", &["moirai-"]),
    ("moirai-cpu", &["moirai-io", "moirai-devices", "moirai-vmm"]),
    ("moirai-io", &["moirai-cpu", "moirai-vmm", "moirai-simulator"]),
    (
        "moirai-config",
        &["moirai-devices", "moirai-vmm", "moirai-simulator", "moirai-io", "moirai-cpu"],
    ),
    ("moirai-api", &["moirai-service", "moirai-cpu", "moirai-io", "moirai-devices"]),
    ("moirai-devices", &["moirai-scheduler", "moirai-runtime"]),
    ("moirai-vmm", &["moirai-scheduler", "moirai-runtime", "moirai-config", "moirai-service"]),
    ("moirai-bench", &["moirai-service", "moirai-devices"]),
    ("moirai-service", &["moirai-vmm", "moirai-simulator", "moirai-image"]),
    ("moirai-cli", &["moirai-vmm"]),
];
/// Of which only the protocol may be seen.
const IMAGE: (&str, &str) = ("moirai-image", "moirai-image-wire");
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

/// All that a crate sees of ours, directly or through others.
fn reach(name: &str, all: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(next) = open.pop() {
        for other in all.get(&next).into_iter().flatten() {
            if other.starts_with("moirai-") && seen.insert(other.clone()) {
                open.push(other.clone());
            }
        }
    }
    seen
}

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    let all = dependencies();
    let named: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (name, dependencies) in all.iter().filter(|(name, _)| *name != TESTS) {
        let allowed = named.get(name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{name} has no line in this test"));
        let ours = dependencies.iter().filter(|other| other.starts_with("moirai-"));
        let wrong: Vec<_> = ours.filter(|other| !allowed.contains(&other.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
    assert!(all["moirai-scheduler"].is_empty(), "the scheduler depends on nothing");
}

#[test]
fn nobody_sees_through_others_whom_he_must_not_see() {
    let all = dependencies();
    for (name, never) in NEVER {
        assert!(all.contains_key(*name), "there is no crate {name}");
        let reach = reach(name, &all);
        let wrong: Vec<_> =
            reach.iter().filter(|other| never.iter().any(|it| starts(other, it))).collect();
        assert!(wrong.is_empty(), "{name} sees {wrong:?}");
    }
}

/// Whether a crate is one of those that a name stands for.
fn starts(name: &str, never: &str) -> bool {
    name.starts_with(never) && (never, name) != IMAGE
}

#[test]
fn only_the_image_process_knows_the_library_that_reads_images() {
    for (name, dependencies) in dependencies() {
        assert_eq!(dependencies.contains("imago"), name == "moirai-image", "{name}");
    }
}

#[test]
fn only_the_tenant_process_knows_kvm() {
    for (name, dependencies) in dependencies() {
        let knows = KVM.iter().any(|kvm| dependencies.contains(*kvm));
        assert_eq!(knows, name == "moirai-vmm", "{name}");
    }
}

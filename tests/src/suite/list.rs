//! The suites, in the order in which they run.

use std::process::Command;

/// A suite: a command and the time that it may take.
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) limit_s: u64,
    /// In the source tree.
    pub(super) folder: &'static str,
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// The command; of `cargo test`, what comes behind its ordinary options.
    pub(super) words: &'static [&'static str],
    pub(super) cargo_test: bool,
}

/// What takes longest in the lab is left to `make lab`, and is among the skipped.
const LONGEST: &str = "debian::logs_in_with_one fio_verifies_a_raw_volume_over_pci \
    fio_verifies_a_qcow2 fio_verifies_a_stripe boot::bzimage_mmio boot::pvh_pci eight_tenants \
    ignores_its_power_button";

pub(super) const fn suite(
    name: &'static str,
    limit_s: u64,
    words: &'static [&'static str],
) -> Suite {
    Suite { name, limit_s, folder: ".", environment: &[], words, cargo_test: false }
}

/// `cargo test` of some packages; what passing tests say is needed, see `crate::run::libtest`.
const fn cargo_test(name: &'static str, limit_s: u64, words: &'static [&'static str]) -> Suite {
    Suite { cargo_test: true, ..suite(name, limit_s, words) }
}

pub(super) const SUITES: [Suite; 13] = [
    suite("format", 120, &["cargo", "fmt", "--all", "--check"]),
    cargo_test("scheduler", 600, &["-p", "moirai-scheduler", "-p", "moirai-simulator"]),
    cargo_test("parts", 900, &PARTS),
    cargo_test("host", 1200, &HOST),
    suite("interleavings", 600, &INTERLEAVINGS),
    Suite { folder: "guest", ..cargo_test("guest", 600, &GUEST) },
    suite("qemu", 120, &["guest/tests/qemu.sh"]),
    suite("readme", 600, &["guest/tests/readme.sh"]),
    // What later suites boot: by itself, so that a failure here is not taken for one of theirs.
    suite("machine", 600, &["tests/lab/machine.sh"]),
    suite("debian", 300, &["tests/lab/run.sh", "debian"]),
    cargo_test("end-to-end", 1200, &["-p", "moirai-tests", "--", "--test-threads", "1"]),
    Suite {
        environment: &[("LAB_SKIP", LONGEST)],
        ..suite("lab", 1500, &["tests/lab/run.sh", "test"])
    },
    suite("counted", 600, &["tests/lab/run.sh", "test", "counted"]),
];

/// Mailboxes in every order of steps; the feature changes what they are made of in tests.
const INTERLEAVINGS: [&str; 8] = [
    "cargo",
    "test",
    "--locked",
    "--package=moirai-runtime",
    "--features",
    "loom",
    "--lib",
    "interleavings",
];
const PARTS: [&str; 14] = [
    "-p",
    "moirai-abi",
    "-p",
    "moirai-devices",
    "-p",
    "moirai-vmm",
    "-p",
    "moirai-sandbox",
    "-p",
    "moirai-image",
    "-p",
    "moirai-image-wire",
    "--features",
    "moirai-devices/mock",
];
const HOST: [&str; 20] = [
    "-p",
    "moirai-api",
    "-p",
    "moirai-confine",
    "-p",
    "moirai-config",
    "-p",
    "moirai-launch",
    "-p",
    "moirai-runtime",
    "-p",
    "moirai-cpu",
    "-p",
    "moirai-io",
    "-p",
    "moirai-service",
    "-p",
    "moirai-bench",
    "-p",
    "moirai-cli",
];
/// Its own workspace, whose programs are for another target.
const GUEST: [&str; 6] =
    ["--target", "x86_64-unknown-linux-gnu", "-p", "moirai-media", "-p", "moirai-libos"];

impl Suite {
    /// Its command.
    pub(super) fn command(&self) -> Command {
        if !self.cargo_test {
            let mut command = Command::new(self.words[0]);
            command.args(&self.words[1..]);
            return command;
        }
        let mut command = Command::new("cargo");
        command.args(["test", "--no-fail-fast", "--locked"]).args(self.words);
        if !self.words.contains(&"--") {
            command.arg("--");
        }
        command.arg("--show-output");
        command
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn suites_have_names_of_their_own() {
        let mut names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITES.len());
    }

    #[test]
    fn every_crate_of_the_workspace_is_tested_by_one_suite() {
        let words = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
        let output = Command::new(env!("CARGO")).args(words).current_dir(crate::root()).output();
        let metadata: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        for package in metadata["packages"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            let suites = SUITES.iter().filter(|suite| suite.words.contains(&name)).count();
            assert_eq!(suites, 1, "{name}");
        }
    }
}

//! A test that cannot run here says so loudly and fails if the environment demands it.
//!
//! It prints `NOT TESTED HERE: reason`, which `suite` and `lab` count as skipped, and asserts
//! beside it that its `MOIRAI_REQUIRE_...` is not set. `.ci/run` sets all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use moirai_tests::run::libtest::MARK;

/// Lines between a mark and its demand.
const BESIDE: usize = 2;
const DEMAND: &str = "MOIRAI_REQUIRE_";

/// The sources of tests; of what reads the mark, there is nothing to demand.
fn tests() -> Vec<(std::path::PathBuf, String)> {
    let mut all = super::sources(&moirai_tests::root());
    let readers = ["tests/src", "tests/tests/house"];
    all.retain(|(path, _)| !readers.iter().any(|reader| path.starts_with(Path::new(reader))));
    all
}

/// The marks of a source without a demand beside them, by line.
fn without_demand(text: &str) -> Vec<usize> {
    let lines: Vec<_> = text.lines().collect();
    let demands = |at: usize| {
        let around = &lines[at.saturating_sub(BESIDE)..lines.len().min(at + BESIDE + 1)];
        around.iter().any(|line| line.contains(DEMAND))
    };
    let marked = lines.iter().enumerate().filter(|(_, line)| line.contains(MARK));
    marked.filter(|(at, _)| !demands(*at)).map(|(at, _)| at + 1).collect()
}

#[test]
fn whoever_cannot_run_fails_where_it_must() {
    let mut wrong = Vec::new();
    for (path, text) in tests() {
        wrong.extend(without_demand(&text).iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(wrong.is_empty(), "add `assert!` of a {DEMAND}... beside the mark at {wrong:?}");
}

#[test]
fn a_mark_without_a_demand_is_found() {
    let with = "if nothing {\n    assert!(var_os(\"MOIRAI_REQUIRE_X\"));\n    eprintln!(\"NOT \
                TESTED HERE\");";
    assert!(without_demand(with).is_empty());
    assert_eq!(without_demand("a\nb\neprintln!(\"NOT TESTED HERE\");"), [3]);
}

#[test]
fn nobody_says_it_in_words_that_are_not_counted() {
    for (path, text) in tests() {
        let line = text.lines().find(|line| line.contains("println!(\"NOT RUN"));
        assert_eq!(line, None, "say {MARK:?} in {}", path.display());
    }
}

/// What CI does not demand, because its machine cannot promise it.
const NOT_IN_CI: [(&str, &str); 1] = [("SPEED", "it is shared, and at times twice as slow")];

#[test]
fn ci_demands_everything_that_can_be_demanded() {
    let mut known = BTreeSet::new();
    for (_, text) in tests() {
        for rest in text.split(DEMAND).skip(1) {
            known.extend(rest.split(|c: char| !c.is_ascii_uppercase()).next().map(str::to_owned));
        }
    }
    let ci = fs::read_to_string(moirai_tests::root().join(".ci/run")).unwrap();
    assert!(known.contains("ROOT"), "{known:?}");
    known.retain(|name| !NOT_IN_CI.iter().any(|(left_out, _)| name == left_out));
    for name in known {
        assert!(ci.contains(&format!("{DEMAND}{name}=1")), ".ci/run does not set {DEMAND}{name}=1");
    }
}

//! A dependency that nobody uses costs everybody its build, and its licence counts.

use std::fs;
use std::path::{Path, PathBuf};

use moirai_tests::root;
use toml::Table;

use super::production::production;

/// The two workspaces.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "guest/Cargo.toml"];
const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

fn table(path: &Path) -> Table {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Manifests of packages below a folder.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(manifests(&path));
        } else if name == "Cargo.toml" && table(&path).contains_key("package") {
            found.push(path);
        }
    }
    found
}

/// The names of what a package depends on, also where that is only so for some targets.
fn dependencies(manifest: &Table) -> Vec<String> {
    KINDS.iter().flat_map(|kind| of_kind(manifest, kind)).collect()
}

/// The same of one kind.
fn of_kind(manifest: &Table, kind: &str) -> Vec<String> {
    let targets = manifest.get("target").and_then(|target| target.as_table()).into_iter();
    let targets = targets.flat_map(|target| target.values().filter_map(|value| value.as_table()));
    let tables = targets.chain([manifest]);
    let tables = tables.filter_map(|table| table.get(kind)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// Whether a text has a name as a word of its own.
fn names(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn every_dependency_of_a_crate_is_used_in_it_and_not_by_tests_alone() {
    let all = manifests(&root());
    assert!(all.len() > 10, "{all:?}");
    let mut wrong = Vec::new();
    for manifest in &all {
        let folder = manifest.parent().unwrap();
        // What is in a folder of another package is not this one's.
        let inner = |path: &Path| {
            let mut parents = path.ancestors().skip(1).take_while(|parent| *parent != folder);
            parents.any(|parent| parent.join("Cargo.toml").exists())
        };
        let mut sources = super::sources(folder);
        sources.retain(|(path, _)| !inner(&root().join(path)));
        let manifest_of = manifest.display();
        let table = table(manifest);
        let inside = folder.strip_prefix(root()).unwrap();
        let built = production(inside, &table, &sources);
        let uses = |sources: &[(PathBuf, String)], name: &str| {
            let word = name.replace('-', "_");
            sources.iter().any(|(_, text)| names(text, &word))
        };
        let unused = dependencies(&table).into_iter().filter(|name| !uses(&sources, name));
        wrong.extend(unused.map(|name| format!("nobody uses {name} in {manifest_of}")));
        let tested = of_kind(&table, "dependencies").into_iter();
        let tested = tested.filter(|name| uses(&sources, name) && !uses(&built, name));
        wrong.extend(tested.map(|name| format!("only tests use {name} in {manifest_of}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_dependency_of_a_workspace_is_used_by_one_of_its_crates() {
    for workspace in WORKSPACES {
        let path = root().join(workspace);
        let folder = path.parent().unwrap();
        let mut used = Vec::new();
        for manifest in manifests(folder) {
            used.extend(dependencies(&table(&manifest)));
        }
        let table = table(&path);
        let declared = table["workspace"]["dependencies"].as_table().unwrap();
        // Our own crates are named for whoever may come to need them.
        let declared = declared.keys().filter(|name| !name.starts_with("moirai-"));
        let wrong: Vec<_> = declared.filter(|name| !used.contains(name)).collect();
        assert!(wrong.is_empty(), "nobody uses {wrong:?} of {workspace}");
    }
}

#[test]
fn a_name_is_a_word_and_not_a_part_of_one() {
    assert!(names("use nix::sys;", "nix") && names("nix", "nix"));
    assert!(!names("unix_nix2 std::os::unix", "nix"));
}

//! Files import each other in one direction only.
//!
//! Whoever reads a file has to read what it imports, and that must come to an end. A module and
//! what is inside it may import each other.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "circles/graph.rs"]
mod graph;
#[path = "circles/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use graph::{Circle, circles};
use source::Source;

/// Every folder with the sources of a crate.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![moirai_tests::root()];
    while let Some(folder) = open.pop() {
        if folder.join("Cargo.toml").is_file() && folder.join("src").is_dir() {
            found.push(folder.join("src"));
        }
        let inner = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let skipped = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == "target" || name == "src" || name.starts_with('.')
        };
        open.extend(inner.filter(|path| path.is_dir() && !path.is_symlink() && !skipped(path)));
    }
    found
}

/// All circles of the project with their folders.
fn all() -> Vec<(String, Circle)> {
    let root = moirai_tests::root();
    let folders = folders();
    assert!(folders.len() > 15, "{folders:?}");
    let of = |folder: &PathBuf| {
        let name = folder.strip_prefix(&root).unwrap().display().to_string();
        let found = circles(&Source::read(folder).edges());
        found.into_iter().map(move |circle| (name.clone(), circle))
    };
    folders.iter().flat_map(of).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let wrong = all().into_iter().map(|(folder, Circle { parent, members })| {
        format!("{folder}, inside `{parent}`: {members:?} import each other\n")
    });
    let wrong: String = wrong.collect();
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whether a crate of these files has a circle, and which.
fn circles_of(files: &[(&str, &str)]) -> Vec<Circle> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        fs::write(path, text).unwrap();
    }
    circles(&Source::read(folder.path()).edges())
}

#[test]
fn a_circle_is_found_however_its_imports_are_written() {
    let two = |a: &str, b: &str| {
        let files = [("lib.rs", "mod a;\nmod b;\npub use b::B;\n"), ("a.rs", a), ("b.rs", b)];
        circles_of(&files).len()
    };
    let b = "use crate::a::A;\npub struct B(A);\n";
    for a in [
        "use crate::b::B;",
        "use super::b::B as Other;",
        "use super::B;",
        "use crate::{\n    b::{self, B},\n};",
        "pub struct A;\nfn f() -> super::b::B {}",
        "use std::io;\nfn f() { crate::b::g() }",
    ] {
        assert_eq!(two(a, b), 1, "{a}");
    }
    for a in [
        "// use crate::b::B;",
        "use other::b::B;",
        "#[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}",
        "pub struct A;",
    ] {
        assert_eq!(two(a, b), 0, "{a}");
    }
}

#[test]
fn parent_and_child_may_know_each_other_and_a_child_stands_for_its_parent() {
    let inside = [
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "mod inner;\nuse inner::I;\npub struct A(I);\n"),
        ("a/inner.rs", "use super::A;\npub struct I;\n"),
        ("b.rs", "use crate::a::A;\npub struct B;\n"),
    ];
    assert!(circles_of(&inside).is_empty());
    let through = [inside[0], inside[1], ("a/inner.rs", "use crate::b::B;\n"), inside[3]];
    let members = ["a", "b"].map(str::to_owned).into();
    assert_eq!(circles_of(&through), [Circle { parent: String::new(), members }]);
}

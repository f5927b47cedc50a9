//! Rules of the house that no compiler knows (docs/design/0009-checks.md). `make lint` runs them,
//! too.
//!
//! | module | what is checked |
//! | --- | --- |
//! | `marks` | tests that cannot run say so in a way that is counted; CI demands that they run |
//! | `sizes` | files and functions have a largest size |
//! | `manifests` | every declared dependency is used, and not by tests alone unless that is said |
//! | `production` | what of the sources is not there for tests only |
//! | `width` | lines are as wide as rustfmt makes them, comments and texts too |
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod manifests;
mod marks;
mod production;
mod sizes;
mod width;

use std::fs;
use std::path::{Path, PathBuf};

/// Rust's source files below a folder, but for what was built, with the paths in the tree.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(moirai_tests::root()).unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}

#[test]
fn the_sources_are_found() {
    let all = sources(&moirai_tests::root());
    for known in ["scheduler/src/lib.rs", "guest/sdk/src/lib.rs", "tests/tests/house/main.rs"] {
        assert!(all.iter().any(|(path, _)| path == Path::new(known)), "{known}");
    }
    assert!(
        !all.iter().any(|(path, _)| path.components().any(|part| part.as_os_str() == "target"))
    );
}

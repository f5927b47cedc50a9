//! What of a package's sources is not there for tests only: what its dependencies are for.

use std::path::{Path, PathBuf};

use toml::Table;

/// Folders of a package in which everything is built with what only tests depend on.
const FOLDERS: [&str; 3] = ["tests", "benches", "examples"];
/// The targets that are built in the same way, wherever they are.
const TARGETS: [&str; 3] = ["test", "bench", "example"];

/// The sources of the package in `folder` without those that only tests have. Paths, of `folder`
/// too, begin at the root of the tree.
pub(crate) fn production(
    folder: &Path,
    manifest: &Table,
    sources: &[(PathBuf, String)],
) -> Vec<(PathBuf, String)> {
    let mut left_out: Vec<_> = FOLDERS.iter().map(|name| folder.join(name)).collect();
    let targets = TARGETS.iter().filter_map(|kind| manifest.get(*kind)?.as_array());
    let paths = targets.flatten().filter_map(|target| target.get("path")?.as_str());
    // One that has a folder of its own begins in its `main.rs`.
    left_out.extend(paths.map(|path| folder.join(path.trim_end_matches("/main.rs"))));
    let mut kept = Vec::new();
    for (path, text) in sources {
        let (text, modules) = without_tests(text);
        kept.push((path.clone(), text));
        left_out.extend(modules.iter().flat_map(|module| module.places(path)));
    }
    kept.retain(|(path, _)| !left_out.iter().any(|place| path.starts_with(place)));
    kept
}

/// A module that only tests have, and where that is said to be, if it is said.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: String,
    path: Option<String>,
}

impl Module {
    /// The file and the folder that it may have, seen from the file that declares it.
    fn places(&self, declared_in: &Path) -> [PathBuf; 2] {
        let beside = declared_in.parent().unwrap_or(Path::new(""));
        let file = match &self.path {
            Some(path) => beside.join(path),
            None if ["mod.rs", "lib.rs", "main.rs"].iter().any(|it| declared_in.ends_with(it)) => {
                beside.join(format!("{}.rs", self.name))
            }
            None => declared_in.with_extension("").join(format!("{}.rs", self.name)),
        };
        [file.with_extension(""), file]
    }
}

/// The text without the items under `#[cfg(test)]`, as rustfmt writes them, and those among them
/// that are modules with a file of their own.
fn without_tests(text: &str) -> (String, Vec<Module>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let mut path = None;
        let mut item = "";
        for line in lines.by_ref() {
            let quoted = line.trim().strip_prefix("#[path = \"");
            path = quoted.and_then(|it| it.strip_suffix("\"]")).map(str::to_owned).or(path);
            if !line.trim().starts_with("#[") {
                item = line;
                break;
            }
        }
        let indent = item.len() - item.trim_start().len();
        let own_file = item.trim().strip_suffix(';');
        let name = own_file.and_then(|item| Some(item.split_once("mod ")?.1.to_owned()));
        modules.extend(name.map(|name| Module { name, path }));
        if !item.ends_with([';', '}']) {
            let ends = |line: &&str| line.get(indent..).is_some_and(|it| it.starts_with('}'));
            let before = |line: &&str| line[..indent.min(line.len())].trim().is_empty();
            let _ = lines.find(|line| before(line) && ends(line));
        }
    }
    (kept.join("\n"), modules)
}

#[test]
fn what_only_tests_have_is_left_out() {
    let text = "\
use a;
#[cfg(test)]
use b;
fn c() {}
impl X {
    #[cfg(test)]
    fn d() {
        {
        }
    }
    fn e() {}
}
#[cfg(test)]
#[path = \"f_tests.rs\"]
mod tests;
#[cfg(test)]
mod g {
    use h;

    mod i {
    }
}
use j;";
    let (kept, modules) = without_tests(text);
    assert_eq!(kept, "use a;\nfn c() {}\nimpl X {\n    fn e() {}\n}\nuse j;");
    let tests = Module { name: "tests".to_owned(), path: Some("f_tests.rs".to_owned()) };
    assert_eq!(modules, [tests]);
}

#[test]
fn modules_of_tests_are_found_where_they_are_declared() {
    let places = |path: Option<&str>, declared_in| {
        let module = Module { name: "m".to_owned(), path: path.map(str::to_owned) };
        let places = module.places(Path::new(declared_in));
        places.map(|place| place.to_string_lossy().into_owned())
    };
    assert_eq!(places(None, "x/src/lib.rs"), ["x/src/m", "x/src/m.rs"]);
    assert_eq!(places(None, "x/src/a.rs"), ["x/src/a/m", "x/src/a/m.rs"]);
    assert_eq!(places(Some("t.rs"), "x/src/a.rs"), ["x/src/t", "x/src/t.rs"]);
}

//! Rooms stay small: files and functions have a largest size. `cargo test -p moirai-tests --test
//! house sizes -- --nocapture` prints how large those of each crate are.

use std::collections::BTreeMap;
use std::path::Path;

/// Longest file without its tests, in lines.
const FILE_MAX: usize = 420;
/// Longest function, in lines.
const FUNCTION_MAX: usize = 70;

#[derive(Default)]
struct Crate {
    lines: usize,
    tests: usize,
    file: (usize, String),
    function: (usize, String),
}

/// The crate of a file, and whether all of it is tests.
fn place(path: &Path) -> Option<(String, bool)> {
    let text = path.to_str()?;
    let (name, inside) = text.split_once("/src/").map_or_else(
        || text.split_once("/tests/").map(|(name, inside)| (name, (inside, true))),
        |(name, inside)| Some((name, (inside, false))),
    )?;
    let (inside, outside) = inside;
    let tests = outside
        || inside.split('/').any(|part| part.ends_with("tests") || part.ends_with("tests.rs"))
        || inside.starts_with("proof");
    Some((name.to_owned(), tests))
}

/// Name and length of each function, as rustfmt writes them: its end is indented as its beginning.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let begins = |line: &str| {
        let words = line.trim_start();
        let words = words.strip_prefix("pub").map_or(words, |rest| {
            rest.strip_prefix('(').and_then(|it| it.split_once(')')).map_or(rest, |(_, it)| it)
        });
        words.trim_start().starts_with("fn ") || words.trim_start().starts_with("async fn ")
    };
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
        let end =
            lines[at..].iter().position(|it| *it == format!("{}}}", " ".repeat(indent(line))));
        let name = line.split("fn ").nth(1).unwrap_or_default();
        let name = name.split(['(', '<']).next().unwrap_or_default();
        // One in a single line, or only declared, ends with it.
        let whole = line.trim_end().ends_with(['}', ';']);
        found.push((name.to_owned(), if whole { 1 } else { end.map_or(1, |end| end + 1) }));
    }
    found
}

fn measure() -> BTreeMap<String, Crate> {
    let mut crates = BTreeMap::<String, Crate>::new();
    for (path, text) in super::sources(&moirai_tests::root()) {
        let Some((name, is_test)) = place(&path) else { continue };
        let one = crates.entry(name).or_default();
        let code = match text.find("#[cfg(test)]\nmod tests {") {
            _ if is_test => "",
            Some(tests) => &text[..tests],
            None => &text,
        };
        let lines = code.lines().count();
        one.lines += lines;
        one.tests += text.lines().count() - lines;
        one.file = one.file.clone().max((lines, path.display().to_string()));
        let longest = functions(code).into_iter().map(|(name, lines)| (lines, name)).max();
        one.function = one.function.clone().max(longest.unwrap_or_default());
    }
    crates
}

#[test]
fn files_and_functions_are_small() {
    println!("| crate | lines | tests | largest file | longest function |");
    println!("| --- | --- | --- | --- | --- |");
    let mut wrong = Vec::new();
    for (name, Crate { lines, tests, file, function }) in measure() {
        let short = file.1.rsplit('/').next().unwrap_or_default();
        println!(
            "| `{name}` | {lines} | {tests} | `{short}` {} | `{}` {} |",
            file.0, function.1, function.0
        );
        if file.0 > FILE_MAX || function.0 > FUNCTION_MAX {
            wrong.push(format!("{name}: {file:?}, {function:?}"));
        }
    }
    assert!(wrong.is_empty(), "too large: {wrong:?}");
}

#[test]
fn a_function_ends_where_its_brace_is() {
    let alone = "fn a() {\n    if b {\n    }\n}\n\n";
    let inside = "impl C {\n    pub(super) fn d() {\n        e();\n    }\n    fn f();\n}\n";
    let text = format!("{alone}{inside}");
    let named = |name: &str, lines| (name.to_owned(), lines);
    assert_eq!(functions(&text), [named("a", 4), named("d", 3), named("f", 1)]);
}

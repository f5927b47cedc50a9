//! Names, and the places of tables in lists.

use std::collections::HashSet;

use crate::problem::Problems;

const DEFAULT_GROUP: &str = "main";
const MAX_NAME_BYTES: usize = 32;

/// The items of an array of tables with their paths.
pub(super) fn numbered<'a, T>(
    kind: &'a str,
    tables: &'a [T],
) -> impl Iterator<Item = (String, &'a T)> {
    tables.iter().enumerate().map(move |(index, table)| (format!("{kind}[{index}]"), table))
}

/// Notes names that are no names, or taken by an earlier table of their kind.
pub(super) fn unique<'a>(
    kind: &str,
    names: impl Iterator<Item = &'a String>,
    problems: &mut Problems,
) {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        let path = format!("{kind}[{index}].name");
        if !is_name(name) {
            let help = "write for example \"cinema\": up to 32 letters, digits, '-', '_' and '.', \
                        beginning with a letter or a digit, because names become parts of paths";
            problems.add(&path, format!("{name:?} cannot be the name of a {kind}"), help);
        }
        if !seen.insert(name) {
            let message = format!("there are two {kind}s named {name:?}");
            problems.add(&path, message, "give each its own name");
        }
    }
}

/// Notes that nothing is called `name`; `known` is what could be meant.
pub(super) fn unknown<'a>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    path: &str,
    problems: &mut Problems,
) {
    let known: Vec<_> = known.collect();
    let help = match known.as_slice() {
        [] => format!("add a [[{kind}]] with that name"),
        [first] => format!("write for example {first:?}, or add a [[{kind}]] with that name"),
        [first, others @ ..] => format!(
            "write for example {first:?}, or {}, or add a [[{kind}]] with that name",
            others.join(", ")
        ),
    };
    problems.add(path, format!("there is no {kind} named {name:?}"), &help);
}

/// The group of a disk or a link; a thread and a row of counters have its name.
pub(super) fn group(name: Option<&String>, at: &str, problems: &mut Problems) -> String {
    let name = name.cloned().unwrap_or_else(|| DEFAULT_GROUP.to_owned());
    if !is_name(&name) {
        let help = "write for example \"main\": up to 32 letters, digits, '-', '_' and '.'";
        problems.add(
            format!("{at}.group"),
            format!("{name:?} cannot be the name of a group"),
            help,
        );
    }
    name
}

fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    letters && begins_well && name.len() <= MAX_NAME_BYTES
}

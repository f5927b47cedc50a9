//! What each file of a crate imports, as paths of modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module: the names from the root of its crate, which is the empty one.
pub(crate) type Module = Vec<String>;

/// The files of a crate.
pub(crate) struct Source {
    /// What each module names.
    named: BTreeMap<Module, Named>,
}

/// The paths in a file.
#[derive(Default)]
struct Named {
    /// What `use` brings in.
    imports: Vec<Vec<String>>,
    /// What is written in full elsewhere.
    elsewhere: Vec<Vec<String>>,
}

impl Source {
    /// Reads a folder `src`. Tests may know everybody, so they are left out.
    pub(crate) fn read(src: &Path) -> Self {
        let mut named = BTreeMap::new();
        walk(src, &Vec::new(), &mut named);
        Self { named }
    }

    /// Which module imports which.
    pub(crate) fn edges(&self) -> BTreeSet<(Module, Module)> {
        let mut edges = BTreeSet::new();
        for (module, named) in &self.named {
            for path in named.imports.iter().chain(&named.elsewhere) {
                let local = path.first().is_some_and(|first| self.is_local(module, first));
                let target = if local { self.find(module, path, 0) } else { module.clone() };
                if target != *module {
                    edges.insert((module.clone(), target));
                }
            }
        }
        edges
    }

    /// Whether a path that begins so is of this crate, and not of another.
    fn is_local(&self, module: &Module, first: &str) -> bool {
        let child = [module.as_slice(), &[first.to_owned()]].concat();
        matches!(first, "crate" | "super") || self.named.contains_key(&child)
    }

    /// The module in which the last name of a path is written down. A name that its parent has only
    /// imported is looked for where that comes from.
    fn find(&self, from: &Module, path: &[String], depth: usize) -> Module {
        let mut at = from.clone();
        let mut rest = path;
        while let [first, others @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                _ => break,
            }
            rest = others;
        }
        while let [first, others @ ..] = rest {
            at.push(first.clone());
            if !self.named.contains_key(&at) {
                at.pop();
                break;
            }
            rest = others;
        }
        let imports = self.named.get(&at).map(|named| named.imports.as_slice()).unwrap_or_default();
        let same = |import: &&Vec<String>| import.last() == rest.first() && !rest.is_empty();
        match imports.iter().find(same) {
            Some(import) if depth < 8 && self.is_local(&at, &import[0]) => {
                self.find(&at, import, depth + 1)
            }
            _ => at,
        }
    }
}

fn walk(folder: &Path, module: &Module, named: &mut BTreeMap<Module, Named>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if stem == "bin" || stem == "tests" || stem.ends_with("_tests") {
            continue;
        }
        let mut inner = module.clone();
        if path.is_dir() {
            inner.push(stem);
            walk(&path, &inner, named);
        } else if path.extension().is_some_and(|it| it == "rs") {
            if !matches!(stem.as_str(), "mod" | "lib" | "main") {
                inner.push(stem);
            }
            let text = fs::read_to_string(&path).unwrap();
            named.insert(inner, names(&without_tests(&text)));
        }
    }
}

/// The text without comments and without what only tests have.
fn without_tests(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut kept: Vec<&str> = Vec::new();
    for line in lines {
        if line.starts_with("mod ") && line.ends_with('{') && kept.last() == Some(&"#[cfg(test)]") {
            break;
        }
        kept.push(line);
    }
    kept.join("\n")
}

fn names(text: &str) -> Named {
    let tokens = tokens(text);
    let mut named = Named::default();
    let mut rest = tokens.as_slice();
    while let [token, others @ ..] = rest {
        if token == "use" {
            let end = others.iter().position(|it| it == ";").unwrap_or(others.len());
            expand(&others[..end], &[], &mut named.imports);
            rest = &others[end..];
        } else if matches!(token.as_str(), "crate" | "super") {
            let path = path(rest);
            rest = &rest[(2 * path.len() - 1).min(rest.len())..];
            named.elsewhere.push(path);
        } else {
            rest = others;
        }
    }
    named
}

/// Names and `::` as they stand, every other sign for itself.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut open = false;
    for sign in text.replace("::", "\u{1}").chars() {
        let is_name = sign.is_alphanumeric() || sign == '_';
        match tokens.last_mut() {
            Some(last) if is_name && open => last.push(sign),
            _ if sign == '\u{1}' => tokens.push("::".to_owned()),
            _ if !sign.is_whitespace() => tokens.push(sign.to_string()),
            _ => {}
        }
        open = is_name;
    }
    tokens
}

/// The names at the beginning of `tokens`, as far as `::` joins them.
fn path(tokens: &[String]) -> Vec<String> {
    let mut path = vec![tokens[0].clone()];
    let mut rest = &tokens[1..];
    while let [joint, name, others @ ..] = rest
        && joint == "::"
        && name.chars().all(|sign| sign.is_alphanumeric() || sign == '_')
    {
        path.push(name.clone());
        rest = others;
    }
    path
}

/// The paths of a `use` behind `prefix`; its braces may nest. Returns how many tokens were read.
fn expand(tokens: &[String], prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let (mut path, mut at, mut renamed) = (prefix.to_vec(), 0, false);
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "{" => {
                at += expand(&tokens[at..], &path, paths);
                path.truncate(prefix.len());
            }
            "," | "}" => {
                add(&mut path, prefix.len(), paths);
                renamed = false;
                if token == "}" {
                    return at;
                }
            }
            "::" => {}
            "as" => renamed = true,
            _ if renamed => {}
            _ => path.push(token.clone()),
        }
    }
    add(&mut path, prefix.len(), paths);
    at
}

/// Adds a path unless it has no names of its own; one that ends with `self` is its module.
fn add(path: &mut Vec<String>, prefix: usize, paths: &mut Vec<Vec<String>>) {
    if path.len() > prefix {
        let whole = path.iter().filter(|name| *name != "self").cloned().collect();
        paths.push(whole);
    }
    path.truncate(prefix);
}

//! The configuration: TOML text to a checked [`Config`], or a [`Report`] that points at lines.
//!
//! Each layer knows those above it in this table only:
//!
//! | where | what it holds |
//! | --- | --- |
//! | `units.rs`, `files.rs` | times, sizes, rates; files that somebody names, read within bounds |
//! | `costs.rs` | what keeping contracts costs on a core |
//! | `holder.rs` | who holds promises: a tenant or an export |
//! | `problem.rs` | what is wrong, with its place in the text |
//! | `document/` | the tables and keys as they are written, in TOML and in the API's JSON |
//! | `kinds/` | what each key takes, in words |
//! | `model/` | the checked configuration, every default filled in |
//! | `check/` | what the values must fulfil together; the only maker of a `Config` |
//! | `admission/` | what is promised to whom, and whether more fits |
//!
//! Stateless and free of side effects: [`load()`] reads one file, [`load_for_this_host`] reads also
//! the costs of a core, [`check()`] looks up what the paths of disks and volumes lead to. Whoever
//! opens an image or a device finds out whether it can be used.

pub mod admission;
mod check;
mod costs;
pub mod document;
pub mod files;
mod holder;
pub mod kinds;
pub mod model;
mod problem;
pub mod units;

use std::ops::Range;
use std::path::{Path, PathBuf};

use costs::CoreCosts;

pub use check::{MAX_STOP_AFTER, Scope, check, check_exports, check_tenants};
pub use check::{machine_memory, resolve};
pub use document::load;
pub use document::{Document, PolicyName, Profile};
pub use files::{advice, read_text};
pub use holder::Holder;
pub use model::Config;
pub use problem::{Problem, Report};

/// `[[export]]`, for other crates: as it is written, and checked.
pub mod export {
    pub use crate::document::export::ExportTable;
    pub use crate::model::{Export, ExportDevice};
}

/// Largest configuration: thousands of tenants.
const CONFIGURATION_BYTES: u64 = 4 << 20;
/// How much of a line is marked that is wrong as a whole.
const LETTERS_SHOWN: usize = 40;

/// Reads and checks a configuration file.
///
/// # Errors
/// A [`Report`] of everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Report> {
    load_with_text(path).map(|(_, config)| config)
}

/// Reads and checks a configuration file, for the host that runs here with it: with the costs of a
/// core that are stored in its state directory. Returns its text too, for reports.
///
/// # Errors
/// As [`load()`].
pub fn load_for_this_host(path: &Path) -> Result<(String, Config), Report> {
    let (text, mut config) = load_with_text(path)?;
    if let Some(costs) = CoreCosts::stored(&config.host.state_dir) {
        config.host.costs = costs;
    }
    Ok((text, config))
}

fn load_with_text(path: &Path) -> Result<(String, Config), Report> {
    let (text, document) = read(path)?;
    match check(&document) {
        Ok(config) => Ok((text, config)),
        Err(problems) => Err(Report::locate(&path.display().to_string(), &text, problems)),
    }
}

/// Reads a configuration file without checking more than names and kinds of keys; returns its text
/// too, for reports. Relative paths of images and disks are relative to the file; a bare name of an
/// image stays one.
///
/// # Errors
/// A [`Report`] of the first thing that is wrong with it.
pub fn read(path: &Path) -> Result<(String, Document), Report> {
    let name = path.display().to_string();
    let text = read_text(path, CONFIGURATION_BYTES).map_err(|error| {
        let problem = Problem {
            path: String::new(),
            message: format!("cannot read {name}: {error}"),
            help: files::advice(&error, path, "a configuration file"),
        };
        Report::at(&name, "", problem, None)
    })?;
    let mut document = parse(&name, &text)?;
    let directory = std::path::absolute(path).ok();
    if let Some(directory) = directory.as_deref().and_then(Path::parent) {
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        for tenant in &mut document.tenant {
            let image = tenant.image.as_mut().filter(|image| image.components().count() > 1);
            paths.extend(image.into_iter().chain(&mut tenant.kernel).chain(&mut tenant.initrd));
        }
        paths.extend(document.disk.iter_mut().map(|disk| &mut disk.path));
        paths.extend(document.export.iter_mut().map(|export| &mut export.socket));
        // An empty one stays, to be refused: it would be the directory.
        for path in paths.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            *path = directory.join(&path);
        }
    }
    Ok((text, document))
}

/// Reads the text of a configuration; `name` is what the report calls it.
///
/// # Errors
/// A [`Report`] of the first thing that is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Document, Report> {
    let value = kinds::written::values(text);
    let wrong = value.map(|value| kinds::wrong_kinds::<Document>(&value));
    // Before serde is asked, which takes a list of values for a table without names of its keys.
    if let Some(problems) = wrong.filter(|problems| !problems.is_empty()) {
        return Err(Report::locate(name, text, problems));
    }
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let help = "see docs/config.schema.json for all tables, keys and kinds of values";
        let problem = Problem {
            path: String::new(),
            message: kinds::in_words(error.message()),
            help: help.to_owned(),
        };
        let span = error.span().or_else(|| Some(line_of(text, error.message())));
        Report::at(name, text, problem, span)
    })
}

/// The line that the parser complains of without saying where: the last one of the shortest
/// beginning of the text that it complains of.
fn line_of(text: &str, complaint: &str) -> Range<usize> {
    let ends: Vec<_> = text.match_indices('\n').map(|(at, _)| at).chain([text.len()]).collect();
    let complains = |end: usize| {
        let error = text.get(..end).and_then(|text| toml::de::DeTable::parse(text).err());
        error.is_some_and(|error| error.message() == complaint && error.span().is_none())
    };
    let line = ends.partition_point(|end| !complains(*end));
    let end = ends.get(line).copied().unwrap_or(text.len());
    let begin = text.get(..end).and_then(|text| text.rfind('\n')).map_or(0, |at| at + 1);
    // Of a line that nobody would read to its end, the beginning.
    let shown = text.get(begin..end).unwrap_or_default().chars().take(LETTERS_SHOWN);
    begin..begin + shown.map(char::len_utf8).sum::<usize>()
}

/// The JSON Schema of a configuration, as it lies in `docs/config.schema.json`.
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Document);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;

//! Types whose names mean one thing in the whole project (docs/design/0011-words.md).
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A word, and the files in which a type of that name is made.
const WORDS: &[(&str, &[&str])] = &[
    ("Part", &["host/config/src/admission/ledger.rs"]),
    ("Ring", &["devices/src/backend/ring.rs"]),
    ("Token", &["host/io/src/token.rs"]),
    ("Gate", &[]),
    ("Gates", &["vmm/src/vcpu/gate.rs"]),
    ("Moment", &["scheduler/src/time.rs"]),
    ("Span", &["scheduler/src/time.rs"]),
    ("Amount", &["scheduler/src/time.rs"]),
    ("Service", &["scheduler/src/policy.rs"]),
    ("HostService", &["host/service/src/lib.rs"]),
    ("SubRequest", &["devices/src/backend/sub_request.rs"]),
    ("Virtqueue", &["guest/libos/src/virtqueue.rs", "devices/src/mock/guest.rs"]),
];

/// All files of sources below a folder; what tests make for themselves is theirs.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy();
        let skipped = name == "target" || name == "tests" || name.starts_with('.');
        if path.is_dir() && !path.is_symlink() && !skipped {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// Whether a text makes a type of this name.
fn makes(text: &str, name: &str) -> bool {
    let of = |line: &str| {
        let words: Vec<_> =
            line.split(|sign: char| !sign.is_alphanumeric()).filter(|it| !it.is_empty()).collect();
        let is_kind = |word: &str| matches!(word, "struct" | "enum" | "trait" | "union");
        words.windows(2).any(|pair| is_kind(pair[0]) && pair[1] == name)
    };
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(of)
}

#[test]
fn a_word_that_names_a_type_names_one_only() {
    let root = moirai_tests::root();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 300, "{} files", files.len());
    let texts: Vec<_> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for (word, places) in WORDS {
        let made = files.iter().zip(&texts).filter(|(_, text)| makes(text, word));
        let made: BTreeSet<_> = made.map(|(path, _)| path.strip_prefix(&root).unwrap()).collect();
        let places: BTreeSet<_> = places.iter().map(Path::new).collect();
        assert_eq!(made, places, "{word}");
    }
}

#[test]
fn types_are_found_however_they_are_made() {
    for text in ["pub struct Ring {", "    pub(super) enum Ring<'a> {", "trait Ring: Operations {"]
    {
        assert!(makes(text, "Ring"), "{text}");
    }
    for text in ["/// struct Ring", "struct RingState {", "impl Ring {", "fn ring() -> Ring {"] {
        assert!(!makes(text, "Ring"), "{text}");
    }
}

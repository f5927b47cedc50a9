//! rustfmt does not change the width of comments and texts. The limit that it has for code holds
//! for them, too.

use std::fs;
use std::path::Path;

/// Texts that have to be as they are, and how many of their lines may be wider.
const AS_THEY_ARE: [(&str, usize); 4] = [
    ("host/config/src/tests/messages.rs", 2), // what a user sees, to the letter
    ("host/cli/src/top/screen.rs", 5),        // a picture of a terminal
    ("host/service/src/privilege.rs", 2),     // what a user sees, to the letter
    ("host/cli/tests/command/main.rs", 2),    // the same
];

#[test]
fn no_line_is_wider_than_rustfmt_makes_code() {
    let rules = fs::read_to_string(moirai_tests::root().join("rustfmt.toml")).unwrap();
    let width = rules.lines().find_map(|line| line.strip_prefix("max_width = ")).unwrap();
    let width: usize = width.parse().unwrap();
    let mut wrong = Vec::new();
    for (path, text) in super::sources(&moirai_tests::root()) {
        let as_it_is = AS_THEY_ARE.iter().find(|(known, _)| path == Path::new(known));
        if let Some((_, expected)) = as_it_is {
            let wider = text.lines().filter(|line| line.chars().count() > width).count();
            assert!(wider <= *expected, "{wider} in {}", path.display());
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let chars = line.chars().count();
            if chars > width {
                wrong.push(format!("{}:{number}: {chars} characters", path.display()));
            }
        }
    }
    let many = wrong.len();
    assert!(wrong.is_empty(), "{many} lines are wider than {width}:\n{}", wrong.join("\n"));
}

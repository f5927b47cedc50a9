//! The results as JUnit XML, which CI servers and editors read.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::{Outcome, Tally};

/// Writes the results of `suite` to a file.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, suite: &str, tally: &Tally) -> io::Result<()> {
    let named = |error: io::Error| {
        let path = path.display();
        io::Error::new(error.kind(), format!("cannot write --junit {path}: {error}"))
    };
    std::fs::write(path, document(suite, tally)).map_err(named)
}

fn document(suite: &str, tally: &Tally) -> String {
    let counts = tally.counts();
    let tests = counts.passed + counts.failed + counts.skipped;
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let _ = writeln!(
        text,
        "<testsuite name=\"{}\" tests=\"{tests}\" failures=\"{}\" skipped=\"{}\">",
        escaped(suite),
        counts.failed,
        counts.skipped
    );
    for case in &tally.cases {
        let _ = write!(text, "<testcase name=\"{}\" classname=\"", escaped(&case.name));
        let _ = write!(text, "{}\"", escaped(suite));
        if let Some(took) = case.took {
            let _ = write!(text, " time=\"{}.{:03}\"", took.as_secs(), took.subsec_millis());
        }
        match &case.outcome {
            Outcome::Passed => text.push_str("/>\n"),
            Outcome::Failed(said) => {
                let _ = writeln!(text, "><failure>{}</failure></testcase>", escaped(said));
            }
            Outcome::Skipped(reason) => {
                let reason = escaped(reason);
                let _ = writeln!(text, "><skipped message=\"{reason}\"/></testcase>");
            }
        }
    }
    // What a test runner has only counted.
    for number in 1..=tally.unnamed {
        let _ = writeln!(text, "<testcase name=\"{number}\" classname=\"{}\"/>", escaped(suite));
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

/// XML has no way to say most control characters; a terminal's colours become question marks.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_test_is_a_test_case_and_what_it_said_cannot_break_the_document() {
        let mut tally = Tally::default();
        tally.add("a::b", Outcome::Passed, Some(Duration::from_millis(1042)));
        tally.add("c", Outcome::Failed("1 < 2 && \u{1b}[31m\"red\"".to_owned()), None);
        tally.add("d", Outcome::Skipped("no \"loop\"".to_owned()), None);
        let text = document("lab", &tally);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            &lines[2..6],
            [
                r#"<testsuite name="lab" tests="3" failures="1" skipped="1">"#,
                r#"<testcase name="a::b" classname="lab" time="1.042"/>"#,
                concat!(
                    r#"<testcase name="c" classname="lab"><failure>1 &lt; 2 &amp;&amp; ?[31m"#,
                    r#"&quot;red&quot;</failure></testcase>"#
                ),
                concat!(
                    r#"<testcase name="d" classname="lab">"#,
                    r#"<skipped message="no &quot;loop&quot;"/></testcase>"#
                ),
            ]
        );
    }
}

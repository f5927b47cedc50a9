//! What is wrong with a configuration, and where: found by path, shown by line.
//!
//! [`Problem`] names a place by its path (`tenant[0].cpu.slice`), which means the same in a TOML
//! file and in a JSON body. Checks collect them in [`Problems`]. [`Report`] joins problems to the
//! text they are in and renders each with file, line and the offending words.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::ops::Range;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::{Deserialize, Serialize};
use textwrap::{WordSeparator, WordSplitter};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use utoipa::ToSchema;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where, as `tenant[0].cpu.slice`; empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Collects what is wrong, so that all of it can be said at once.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem at `path`.
    pub(crate) fn add(&mut self, path: impl Display, message: impl Into<String>, help: &str) {
        let problem =
            Problem { path: path.to_string(), message: message.into(), help: help.to_owned() };
        self.0.push(problem);
    }

    /// Notes the problem of a failed step and goes on without its result.
    pub(crate) fn note<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.0.push(problem)).ok()
    }

    /// Nothing was wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value`, if nothing was wrong with it.
    pub(crate) fn unless_any<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

/// Problems with the text they are in.
#[derive(Debug, Clone)]
pub struct Report {
    name: String,
    text: String,
    found: Vec<(Problem, Option<Range<usize>>)>,
}

impl Report {
    /// Looks up where in the TOML `text` of the file `name` each problem is.
    #[must_use]
    pub fn locate(name: &str, text: &str, problems: Vec<Problem>) -> Self {
        let table = DeTable::parse(text).ok();
        let mut found: Vec<_> = problems
            .into_iter()
            .map(|problem| {
                let span = table.as_ref().map(|table| span_of(table, &problem.path));
                (problem, span)
            })
            .collect();
        found.sort_by_key(|(_, span)| span.as_ref().map_or(0, |span| span.start));
        Self { name: name.to_owned(), text: text.to_owned(), found }
    }

    /// A report of one problem at a known place.
    #[must_use]
    pub fn at(name: &str, text: &str, problem: Problem, span: Option<Range<usize>>) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), found: vec![(problem, span)] }
    }

    /// The problems, without their places in the text.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter().map(|(problem, _)| problem)
    }
}

impl Report {
    /// The rendered report for a terminal of `columns`: lines are broken at blanks, but none within
    /// a command, which is to be pasted as it is shown.
    #[must_use]
    pub fn wrapped(&self, columns: usize) -> String {
        let handler = handler()
            .with_width(columns)
            .with_break_words(false)
            .with_word_separator(WordSeparator::AsciiSpace)
            .with_word_splitter(WordSplitter::NoHyphenation);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.render(&mut text, &handler, glued);
        text.replace(GLUE, " ")
    }

    fn render(
        &self,
        to: &mut impl fmt::Write,
        handler: &GraphicalReportHandler,
        shown: fn(&str) -> Cow<'_, str>,
    ) -> fmt::Result {
        for (problem, span) in &self.found {
            let source = NamedSource::new(&self.name, self.text.clone());
            let (message, help) = (shown(&problem.message), shown(&problem.help));
            handler.render_report(to, &Shown { message, help, span: span.clone(), source })?;
        }
        Ok(())
    }
}

fn handler() -> GraphicalReportHandler {
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_links(false)
        .with_context_lines(1)
}

/// Stands for a blank at which no line may be broken; of the private use area, so nobody writes it.
const GLUE: char = '\u{f8ff}';

/// Glues the words of commands together: what stands between backticks, and every line after the
/// first.
fn glued(text: &str) -> Cow<'_, str> {
    let (first, rest) =
        text.split_once('\n').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let glue = |text: &str| text.replace(' ', GLUE.encode_utf8(&mut [0; 4]));
    let parts = first.split('`').enumerate();
    let parts = parts.map(|(n, part)| if n % 2 == 1 { glue(part) } else { part.to_owned() });
    let first = parts.collect::<Vec<_>>().join("`");
    Cow::Owned(match rest {
        Some(rest) => format!("{first}\n{}", glue(rest)),
        None => first,
    })
}

impl fmt::Display for Report {
    /// The rendered report for files and programs: no line is broken. It ends with a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(f, &handler().with_wrap_lines(false), |text| Cow::Borrowed(text))
    }
}

impl std::error::Error for Report {}

/// A problem as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    message: Cow<'a, str>,
    help: Cow<'a, str>,
    span: Option<Range<usize>>,
    source: NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.span.is_some().then_some(&self.source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}

/// The span of the value at `path`, or of the deepest part of the path that is there.
fn span_of(root: &Spanned<DeTable<'_>>, path: &str) -> Range<usize> {
    let mut span = 0..0;
    let mut segments = path.split(['.', '[']).filter(|segment| !segment.is_empty());
    let Some(mut value) = segments.next().and_then(|key| root.get_ref().get(key)) else {
        return span;
    };
    span = value.span();
    for segment in segments {
        let next = match value.get_ref() {
            DeValue::Table(table) => table.get(segment),
            DeValue::Array(items) => segment
                .strip_suffix(']')
                .and_then(|index| index.parse().ok())
                .and_then(|index: usize| items.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        value = next;
        span = value.span();
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: [&str; 3] = [
        "qemu-img check -r all /srv/a-very/long-path/of-a-folder/with-hyphens/corrupt-image.qcow2",
        "namei -l /srv/a-very/long-path/of-a-folder/with-hyphens/and/more-of-them/volume.img",
        "ip netns exec cinema ip address delete 10.0.0.1/24 dev a-tap-with-name",
    ];

    fn report() -> Report {
        let [check, namei, ip] = COMMANDS;
        let problem = Problem {
            path: "disk".to_owned(),
            message: format!(
                "the image is damaged in many places, as `{check}` would say at length"
            ),
            help: format!(
                "what stands on the way to it is shown by `{namei}`, or remove it:\n{ip}"
            ),
        };
        Report::locate("moirai.toml", "disk = 1\n", vec![problem])
    }

    #[test]
    fn a_command_can_be_pasted_as_it_is_shown_however_narrow_the_terminal_is() {
        let plain = report().to_string();
        for shown in (20..200).map(|columns| report().wrapped(columns)).chain([plain.clone()]) {
            for command in COMMANDS {
                assert!(shown.lines().any(|line| line.contains(command)), "{shown}");
            }
        }
        let wrapped = report().wrapped(60);
        assert!(wrapped.lines().count() > plain.lines().count(), "{wrapped}");
    }

    #[test]
    fn what_no_terminal_shows_has_each_sentence_on_one_line() {
        let plain = report().to_string();
        for line in report().problems().flat_map(|it| it.message.lines().chain(it.help.lines())) {
            assert!(plain.lines().any(|shown| shown.ends_with(line)), "{plain}");
        }
    }
}

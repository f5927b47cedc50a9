//! What is wrong with a configuration, and where: found by path, shown by line.
//!
//! [`Problem`] names a place by its path (`tenant[0].cpu.slice`), which means the same in a TOML
//! file and in a JSON body. [`Report`] joins problems to the text they are in and renders each with
//! file, line and the offending words.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::{Deserialize, Serialize};
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

impl fmt::Display for Report {
    /// The rendered report; it ends with a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_links(false)
            .with_context_lines(1)
            .with_width(100);
        for (problem, span) in &self.found {
            let source = NamedSource::new(&self.name, self.text.clone());
            handler.render_report(f, &Shown { problem, span: span.clone(), source })?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// A problem as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    span: Option<Range<usize>>,
    source: NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.problem.help.is_empty()).then(|| Box::new(&self.problem.help) as _)
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

//! The `moirai` command: reads arguments, does one thing, ends with a status that says how it went.
//!
//! | file | commands |
//! | --- | --- |
//! | `args.rs` | all, as clap reads them |
//! | `host.rs`, `log.rs` | `host` |
//! | `control.rs` | `launch`, `list`, `show`, `stop`, and `set` of a tenant |
//! | `explain.rs` | `explain` |
//! | `export.rs` | `export`, `exports`, `unexport`, and `set` of an export |
//! | `set.rs`, `change.rs` | `set`, and its `KEY=VALUE` |
//! | `console.rs` | `console` |
//! | `top/` | `top` |
//! | `terminal.rs`, `signals.rs` | how `top` and `console` end |
//! | `closed.rs` | whether there was a standard output at all |
//! | `plan.rs` | `plan` |
//! | `probe.rs`, `disk_probe/` | `probe` |
//! | `simulate.rs`, `scenario.rs` | `simulate` |
//! | `experiment.rs` | `demo`, `receive` |
//! | `image.rs` | `image` |
//! | `generate.rs` | `completions`, `man` |
//!
//! All but `host`, `plan`, `simulate`, `receive`, `probe`, `image` and the generators talk to a
//! host service through `moirai_api`.

mod args;
mod change;
mod chart;
mod closed;
mod console;
mod control;
pub mod disk_probe;
mod experiment;
mod explain;
mod export;
mod generate;
mod host;
mod image;
pub mod images;
mod loads;
mod log;
mod plan;
mod probe;
mod scenario;
mod set;
mod signals;
mod simulate;
mod terminal;
mod top;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::Path;

use serde::Serialize;

use moirai_api::ErrorKind;
use moirai_api::client::ClientError;
use moirai_config::Report;

pub use args::{Cli, Command};

/// How a command ended; the number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line or the configuration is bad.
    Bad = 2,
    /// Admission refused.
    Refused = 3,
    /// The host service does not answer.
    NoService = 4,
    /// The command did what it was asked, and says that the tenant has failed.
    TenantFailed = 5,
    /// Whoever read standard output has gone away; what a shell says of a program that SIGPIPE
    /// ended.
    NoReader = 141,
}

/// Longest line of a report that is read with ease.
const COLUMNS: usize = 100;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: Status,
    /// What went wrong and what to do, ready to print.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(status: Status, message: impl Display) -> Self {
        Self { status, message: message.to_string() }
    }

    /// Says it on standard error; returns its status. That a reader has gone away needs no word.
    fn say(&self) -> Status {
        if self.status != Status::NoReader {
            // Nobody reads standard error if this fails.
            let _ = writeln!(std::io::stderr(), "moirai: {}", self.message.trim_end());
        }
        self.status
    }

    /// A bad configuration.
    fn bad(report: &Report) -> Self {
        Self::new(Status::Bad, format!("the configuration is bad\n{}", shown(report)))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Status::Failed, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            ClientError::NoService { .. }
            | ClientError::Late { .. }
            | ClientError::Stranger { .. }
            | ClientError::BrokenOff { .. } => Status::NoService,
            ClientError::Unsent { .. } => Status::Failed,
            ClientError::Refused(body) => match body.kind {
                ErrorKind::Bad
                | ErrorKind::Unknown
                | ErrorKind::Malformed
                | ErrorKind::Method
                | ErrorKind::TooLarge
                | ErrorKind::MediaType => Status::Bad,
                ErrorKind::Refused => Status::Refused,
                _ => Status::Failed,
            },
        };
        Self::new(status, error)
    }
}

/// A report as standard error shows it best: only a terminal has lines that end.
fn shown(report: &Report) -> String {
    match ratatui::crossterm::terminal::size() {
        Ok((columns, _)) if std::io::stderr().is_terminal() && columns > 0 => {
            report.wrapped(usize::from(columns).min(COLUMNS))
        }
        _ => report.to_string(),
    }
}

/// Runs the command; its failures are printed on standard error.
#[must_use]
pub fn run(cli: Cli) -> Status {
    let socket = cli.socket.as_path();
    let ended = match cli.command {
        Command::Host(args) => host::run(&args),
        Command::Launch(args) => control::launch(socket, &args),
        Command::Export(args) => export::start(socket, &args),
        Command::Exports(args) => export::list(socket, args),
        Command::Unexport(args) => export::end(socket, &args),
        Command::List(args) => control::list(socket, args),
        Command::Show(args) => control::show(socket, &args),
        Command::Explain(args) => explain::run(socket, &args),
        Command::Set(args) => set::run(socket, &args),
        Command::Stop(args) => control::stop(socket, &args),
        Command::Console(args) => console::run(socket, &args),
        Command::Top(args) => top::run(socket, &args),
        Command::Plan(args) => plan::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Demo(args) => experiment::demo(&args),
        Command::Receive(args) => experiment::receive(&args),
        Command::Probe(command) => probe::run(socket, &command),
        Command::Image(command) => image::run(&command),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::man(&directory),
        Command::Schema => print(moirai_config::json_schema()),
    };
    match ended {
        Ok(status) => status,
        Err(failure) => failure.say(),
    }
}

/// Prints `text` as it is. A reader that has gone away (`moirai list | head -1`) ends the command
/// without a word, everything else that cannot be written with a failure.
fn print(text: impl Display) -> Result<Status, Failure> {
    let mut out = output().map_err(|error| unwritten(&error))?;
    write!(out, "{text}").and_then(|()| out.flush()).map_err(|error| unwritten(&error))?;
    Ok(Status::Done)
}

/// Standard output, if there is one.
fn output() -> std::io::Result<std::io::StdoutLock<'static>> {
    if closed::was_closed() {
        return Err(std::io::Error::other("it is closed"));
    }
    Ok(std::io::stdout().lock())
}

/// Why output could not be written.
fn unwritten(error: &std::io::Error) -> Failure {
    let status = match error.kind() {
        std::io::ErrorKind::BrokenPipe => Status::NoReader,
        _ => Status::Failed,
    };
    Failure::new(status, format!("cannot write to standard output: {error}"))
}

/// Reads the command line. `--help` and `--version` are output as any other: what cannot be written
/// is a failure.
///
/// # Errors
/// The exit status, when there is nothing more to do; everything has been said.
pub fn parse() -> Result<Cli, Status> {
    use clap::Parser as _;
    Cli::try_parse().map_err(|stopped| {
        if stopped.use_stderr() {
            // Nobody reads standard error if this fails.
            let _ = stopped.print();
            return Status::Bad;
        }
        // Not by clap itself, which takes any failure for a success.
        let written = if std::io::stdout().is_terminal() {
            print(stopped.render().ansi())
        } else {
            print(stopped.render())
        };
        written.unwrap_or_else(|failure| failure.say())
    })
}

/// Writes a file that was asked for on the command line.
fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| {
        let message = format!("cannot write {}: {error}", path.display());
        Failure::new(Status::Failed, message)
    })
}

/// Prints `value` as JSON on one line, or as text.
fn report<T: Serialize + Display>(value: &T, json: bool) -> Result<Status, Failure> {
    if json { print_json(value) } else { print(value) }
}

fn print_json(value: &impl Serialize) -> Result<Status, Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::new(Status::Failed, format!("cannot write JSON: {error}")))?;
    print(format!("{text}\n"))
}

//! What an application on the library OS needs, on one page.
//!
//! ```ignore
//! //! `hello` says what time it is.
//! #![no_std]
//! #![no_main]
//! use moirai_sdk::{App, AppError};
//!
//! moirai_sdk::main!("hello", run, ["times"]);
//!
//! fn run(app: &mut App) -> Result<(), AppError> {
//!     let times = app.args().number("times", 3, (1, 100))?;
//!     app.ready(|fields| fields.number("times", times));
//!     while app.running() {
//!         app.wait(None, &mut []);
//!         if app.report_due() {
//!             app.report("report", |fields| fields.number("now_ns", moirai_sdk::now()));
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! - Settings: [`App::args`], words `key=value` of the command line; [`main!`] lists their keys,
//!   and others are refused. Every application knows `report_ms=` (between reports; 0: none) and
//!   `for_ms=` (ends then; 0: runs for ever).
//! - Time: [`now`], nanoseconds since the start; [`App::wait`] until then or until a device has
//!   something.
//! - Volume: [`App::volume`] opens a [`Disk`]: `read` and `write` take a [`Buffer`] along and
//!   return an id, `poll` gives the buffer back when the device is done.
//! - Network: [`App::network`] opens a [`Stack`]: `send` for streams (a header that is copied, and
//!   up to two pieces of payload that are not), `bind`, `receive_from`, `send_to` for small things.
//!   `poll` it after every wait. [`receivers`] keeps an eye on who can be reached.
//! - Output: [`App::ready`] and [`App::report`] print one JSON object per line: application, event,
//!   fields.
//!
//! When `run` returns, `done` or `error` is printed and the machine powers off.
#![no_std]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use thiserror::Error;

pub mod receivers;

pub use moirai_libos::args::{ArgError, Args, Ipv4Cidr};
pub use moirai_libos::clock::{machine, now};
pub use moirai_libos::disk::Disk;
pub use moirai_libos::idle::WakeSource;
pub use moirai_libos::json::Fields;
pub use moirai_libos::memory::{Buffer, OutOfMemory, Payload};
pub use moirai_libos::periodic::{Lateness, Periodic};
pub use moirai_libos::receivers::{Receivers, SendError};
pub use moirai_libos::request::{Completion, Refusal, RequestError, RequestId, SECTOR, Volume};
pub use moirai_libos::stack::{Port, Stack};
pub use moirai_libos::virtio::VirtioError;

use moirai_libos::nic::Nic;
use moirai_libos::{console, failure, idle, power};

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;
/// Longest time that a command line word can say, in milliseconds: a year.
const MS_MAX: u64 = 365 * 24 * 3600 * 1000;

/// Why an application ends early; printed as its `error` event.
#[derive(Debug, Error)]
pub enum AppError {
    /// A setting is missing or wrong.
    #[error(transparent)]
    Arg(#[from] ArgError),
    /// A device is missing or misbehaves.
    #[error(transparent)]
    Device(#[from] VirtioError),
    /// A request was refused.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// No memory for buffers.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Words that every application knows.
const COMMON_WORDS: &[&str] = &["report_ms", "for_ms"];

/// Defines the entry point: the application's name, its `fn(&mut App) -> Result<(), AppError>`, and
/// the keys of its words on the command line.
#[macro_export]
macro_rules! main {
    ($name:literal, $run:path, [$($word:literal),* $(,)?]) => {
        #[allow(unsafe_code, reason = "the library OS calls it by name")]
        #[unsafe(no_mangle)]
        fn moirai_main(args: $crate::Args) {
            $crate::run_app($name, &[$($word),*], args, $run);
        }
    };
}

/// Runs an application and prints how it ended; called by [`main!`]. One that failed ends the
/// machine with a status that says so.
pub fn run_app(
    name: &'static str,
    words: &[&'static str],
    args: Args,
    run: fn(&mut App) -> Result<(), AppError>,
) {
    failure::set_app_name(name);
    let outcome = App::new(name, words, args).and_then(|mut app| {
        let outcome = run(&mut app);
        if outcome.is_ok() {
            app.report("done", |fields| fields.number("ran_ms", now() / MS));
        }
        outcome
    });
    if let Err(error) = outcome {
        print(name, "error", |fields| fields.text("message", &format!("{error}")));
        power::failed();
    }
}

/// An application at work.
pub struct App {
    name: &'static str,
    args: Args,
    report_every: Option<u64>,
    report_at: u64,
    end_at: Option<u64>,
}

impl App {
    fn new(name: &'static str, words: &[&'static str], mut args: Args) -> Result<Self, AppError> {
        args.list(&[words, COMMON_WORDS])?;
        let nonzero = |ms: u64| (ms > 0).then_some(ms * MS);
        let report_every = nonzero(args.number("report_ms", 1000, (0, MS_MAX))?);
        let end_at = nonzero(args.number("for_ms", 0, (0, MS_MAX))?);
        let report_at = report_every.unwrap_or(u64::MAX);
        Ok(Self { name, args, report_every, report_at, end_at })
    }

    /// The words of the command line.
    #[must_use]
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Opens the first volume.
    ///
    /// # Errors
    /// [`AppError::Device`].
    pub fn volume(&self) -> Result<Disk, AppError> {
        Ok(Disk::open(self.args.devices(), 0)?.with_data(self.args.volume_bytes(0)))
    }

    /// Opens the first link with the words `ip=` and `gw=`.
    ///
    /// # Errors
    /// [`AppError::Device`], [`AppError::Arg`].
    pub fn network(&self) -> Result<Stack, AppError> {
        let (cidr, gateway) = (self.args.cidr("ip")?, self.args.address("gw")?);
        gateway.map_or(Ok(()), |gateway| cidr.check_gateway(gateway))?;
        let nic = Nic::open(self.args.devices(), 0)?;
        Ok(Stack::new(nic, cidr, gateway, now()))
    }

    /// False when the time of `for_ms=` is over.
    #[must_use]
    pub fn running(&self) -> bool {
        self.end_at.is_none_or(|end| now() < end)
    }

    /// Waits until `deadline` (`None`: none), until a source has an event, until a report is due or
    /// the time is over; now and then it returns for no reason. Devices do not interrupt otherwise.
    pub fn wait(&self, deadline: Option<u64>, sources: &mut [&mut dyn WakeSource]) {
        let report_at = self.report_every.map(|_| self.report_at);
        idle::wait([deadline, report_at, self.end_at].into_iter().flatten().min(), sources);
    }

    /// Sleeps until `deadline` and wakes once: no output is written meanwhile, see [`App::write`].
    pub fn sleep(&self, deadline: u64) {
        idle::rest(deadline);
    }

    /// Writes queued output for about `budget_ns`.
    pub fn write(&self, budget_ns: u64) {
        if console::pending() {
            console::pump(budget_ns);
        }
    }

    /// True once per `report_ms=`, unless the last report is not written yet: reports say sums, and
    /// a queue of them would say what was true when the first of them was made.
    pub fn report_due(&mut self) -> bool {
        let now = now();
        let Some(every) = self.report_every.filter(|_| now >= self.report_at) else { return false };
        self.report_at = now.saturating_sub(now % every).saturating_add(every);
        !console::pending()
    }

    /// Prints that the application is set up; written at once.
    pub fn ready(&self, fill: impl FnOnce(&mut Fields) -> &mut Fields) {
        self.report("ready", fill);
        console::flush();
    }

    /// Prints an event with fields; `t_ms` (since the start) is added. It is written while the
    /// application waits.
    pub fn report(&self, event: &str, fill: impl FnOnce(&mut Fields) -> &mut Fields) {
        print(self.name, event, |fields| fill(fields.number("t_ms", now() / MS)));
    }
}

fn print(app: &str, event: &str, fill: impl FnOnce(&mut Fields) -> &mut Fields) {
    let mut fields = Fields::new(app, event);
    fill(&mut fields);
    console::line(&fields.finish());
}

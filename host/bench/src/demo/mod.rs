//! `moirai demo`: the promise, and what happens without it.
//!
//! Five tenants share one core, one disk and one link. `cinema` has reservations and streams a film
//! to four receivers; `pulse` sleeps, wakes in every period and has little time then; `carnage`,
//! `flood` and `thrash` take all they can get. The same load runs twice: with Moirai's scheduling
//! and without (FIFO everywhere, fair CPU).
//!
//! | file | what it holds |
//! | --- | --- |
//! | `film.rs` | makes the film |
//! | `scene.rs` | the configuration of the experiment |
//! | `stage.rs` | one run: receivers, tenants, measurement |
//! | `servant.rs` | what a run asks of the host service |
//! | `player.rs`, `namespace.rs` | ffmpeg as a receiver |
//! | `pulse.rs` | what the tenant that sleeps says of its jobs |
//! | `report.rs`, `plot.rs` | table, JSON, picture, verdict |
//!
//! It is a user of the host service like any other: it starts `moirai host` and talks to its API.

mod film;
mod namespace;
mod player;
mod plot;
mod pulse;
mod report;
mod scene;
mod servant;
mod stage;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use pulse::PulseReport;
pub use report::{DemoReport, NoiseReport, ReceiverReport, RunReport, ServiceReport, TenantReport};

use crate::driver::DriverError;
use crate::recorder::CaptureError;
use scene::Scene;
use stage::Recording;

/// What `moirai demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoArgs {
    /// Length of each of the two runs.
    pub seconds: u32,
    /// Where the film is, or is made.
    pub film: PathBuf,
    /// Where the picture goes.
    pub svg: PathBuf,
    /// Show progress on standard error.
    pub progress: bool,
}

/// Why the demo could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no film and it cannot be made.
    #[error("the film {path} cannot be made: {source}; is ffmpeg installed?")]
    Film {
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A program could not be started in the namespace.
    #[error("network namespace {name:?}: {source}; the demo needs root")]
    Namespace {
        /// The namespace.
        name: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A receiver could not be started.
    #[error(transparent)]
    Receiver(#[from] CaptureError),
    /// The host service did not start, answer or end.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The host service refused a request.
    #[error("the host service refused to {what}: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        why: String,
    },
    /// A tenant did not begin its work.
    #[error("the tenant {tenant:?} has not begun {seconds} s after its launch; it said: {said}")]
    Silent {
        /// The tenant.
        tenant: &'static str,
        /// How long it had, seconds.
        seconds: u64,
        /// What was on its console.
        said: String,
    },
    /// A file of the demo cannot be written.
    #[error("{path}: {source}")]
    Folder {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The picture cannot be drawn.
    #[error("the picture {path} cannot be drawn: {error}")]
    Plot {
        /// Where it should be.
        path: PathBuf,
        /// What went wrong.
        error: String,
    },
    /// The demo was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// Both runs of the experiment, from the film to the verdict.
///
/// # Errors
/// Whatever keeps it from being carried out; that guarantees were broken is a result, not an error.
pub fn run(args: &DemoArgs) -> Result<DemoReport, DemoError> {
    heed_interrupts();
    let progress = progress_line(args.progress);
    let say = |text: &str| progress.set_message(text.to_owned());
    let film = film::provide(&args.film, &say)?;
    let scene = Scene::prepare(&film)?;
    let length = Duration::from_secs(u64::from(args.seconds.max(1)));
    let with = stage::run(&scene, true, length, &progress)?;
    let without = stage::run(&scene, false, length, &progress)?;
    progress.finish_and_clear();
    plot::draw(&args.svg, &with.lateness(), &without.lateness())?;
    Ok(judge(with, without))
}

/// Where the film is kept unless told otherwise.
#[must_use]
pub fn default_film() -> PathBuf {
    Path::new("/var/tmp/moirai").join("film.ts")
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants the demo to end.
fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// From now on an interrupt ends the run in an orderly way, so that nothing is left behind.
#[allow(unsafe_code, reason = "signal handlers have no safe interface")]
fn heed_interrupts() {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler: extern "C" fn(libc::c_int) = note;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

fn judge(with: Recording, without: Recording) -> DemoReport {
    DemoReport {
        kept: with.report.kept(scene::CINEMA) && with.report.pulse_on_time,
        control_failed: !without.report.kept(scene::CINEMA),
        noise_floor_us: with.noise,
        stalled_share: with.report.stalled_share,
        payload_copies: with.copied + without.copied,
        with: with.report,
        without: without.report,
    }
}

fn progress_line(visible: bool) -> indicatif::ProgressBar {
    let line = indicatif::ProgressBar::new_spinner();
    if visible {
        line.enable_steady_tick(Duration::from_millis(250));
    } else {
        line.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    line
}

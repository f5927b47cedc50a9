//! How much of a core the kernel lets real-time threads have. What is promised above it would be
//! stalls of 50 ms in every second.
//!
//! Two mechanisms: `sched_rt_runtime_us` of every `sched_rt_period_us`, in which real-time threads
//! of all classes may run; and, since Linux 6.12, the fair server of each core, which keeps
//! `runtime` of every `period` for threads of the fair class when these wait. With
//! `realtime_limit = "set"` both are lifted as long as a host service needs it. The old values lie
//! beside the owners' locks, so that the last one puts them back, or the next one if that was
//! killed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::owner::{OwnError, Owner, Owners, Usage};
use moirai_config::Problem;
use moirai_config::document::RealtimeLimit;
use moirai_config::model::Config;

const WHOLE_PPM: u64 = 1_000_000;
/// What the fair server of Linux 6.12 and later keeps where nobody has changed it.
const FAIR_DEFAULT: Limit = Limit { runtime: 50_000_000, period: 1_000_000_000 };
/// Key of the lock of those who have lifted the limits.
const KEY: &str = "realtime";
const SAVED: &str = "realtime.saved";

/// So much of every so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    runtime: u64,
    period: u64,
}

/// Where the kernel says it; tests have other places.
#[derive(Clone, Debug)]
struct Places {
    sysctl: PathBuf,
    fair: PathBuf,
    release: PathBuf,
}

/// Holds the limits lifted.
#[derive(Debug)]
pub(super) struct Lifted {
    owners: Owners,
    owner: Option<Owner>,
}

/// A value that was there before.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    path: PathBuf,
    value: String,
}

/// What stands against the capacity of `config` on this machine: a problem at its line for each
/// core of which the kernel lets real-time threads have less.
#[must_use]
pub fn realtime_problems(config: &Config) -> Vec<Problem> {
    problems(config, &Places::machine())
}

/// Puts back what a host service that was killed has lifted, and lifts the limits if `config` needs
/// it and says so.
///
/// # Errors
/// The limits are in the way, at the line.
pub(super) fn prepare(config: &Config, owners: &Owners) -> Result<Option<Lifted>, Vec<Problem>> {
    prepare_at(config, owners, &Places::machine())
}

fn prepare_at(
    config: &Config,
    owners: &Owners,
    places: &Places,
) -> Result<Option<Lifted>, Vec<Problem>> {
    put_back(owners);
    let found = problems(config, places);
    if found.is_empty() || config.host.realtime_limit == RealtimeLimit::Refuse {
        return if found.is_empty() { Ok(None) } else { Err(found) };
    }
    let lifted = lift(config, owners, places).map_err(|error| {
        let help = "run as root with debugfs at /sys/kernel/debug, or write a smaller cpu_capacity";
        vec![Problem {
            path: "host.realtime_limit".to_owned(),
            message: format!("the kernel's limit for real-time threads cannot be set: {error}"),
            help: help.to_owned(),
        }]
    })?;
    let left = problems(config, places);
    if left.is_empty() { Ok(Some(lifted)) } else { Err(left) }
}

fn problems(config: &Config, places: &Places) -> Vec<Problem> {
    // The kernel's fair class serves the tenants then: there are no real-time threads.
    if config.host.cpu_policy.is_fifo() {
        return Vec::new();
    }
    let wanted = u64::from(config.host.cpu_capacity_ppm);
    let limits = config.host.cores.iter().filter_map(|core| {
        let (allowed, said) = places.allowed(*core)?;
        (allowed < wanted).then_some((core, allowed, said))
    });
    let problem = |(core, allowed, said): (&usize, u64, String)| Problem {
        path: "host.cpu_capacity".to_owned(),
        message: format!(
            "a capacity of {} is more than the kernel lets real-time threads have of core {core}: \
             {} ({said})",
            Share(wanted),
            Share(allowed)
        ),
        help: format!(
            "write cpu_capacity = {} or less, or realtime_limit = \"set\": that lifts the limit as \
             long as the host service runs",
            Share(allowed)
        ),
    };
    limits.map(problem).collect()
}

/// Millionths as a fraction.
struct Share(u64);

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{}.{:06}", self.0 / WHOLE_PPM, self.0 % WHOLE_PPM);
        let short = digits.trim_end_matches('0');
        write!(f, "{short}{}", if short.ends_with('.') { "0" } else { "" })
    }
}

impl Places {
    fn machine() -> Self {
        Self {
            sysctl: "/proc/sys/kernel".into(),
            fair: "/sys/kernel/debug/sched/fair_server".into(),
            release: "/proc/sys/kernel/osrelease".into(),
        }
    }

    fn sysctl_runtime(&self) -> PathBuf {
        self.sysctl.join("sched_rt_runtime_us")
    }

    fn fair_runtime(&self, core: usize) -> PathBuf {
        self.fair.join(format!("cpu{core}/runtime"))
    }

    /// What real-time threads may have of a core, in millionths, and where that is said; `None` if
    /// nothing limits them.
    fn allowed(&self, core: usize) -> Option<(u64, String)> {
        let group = self.group().map(|limit| {
            let Limit { runtime, period } = limit;
            let path = self.sysctl_runtime();
            let said = format!("{}: {runtime} of every {period} us", path.display());
            (limit.ppm(), said)
        });
        let fair = self.fair(core).map(|(limit, known)| {
            let Limit { runtime, period } = limit;
            let (runtime, period) = (runtime / 1000, period / 1000);
            let whence =
                if known { "" } else { " unless that was changed; debugfs cannot be read" };
            let said = format!("the fair server keeps {runtime} of every {period} us{whence}");
            (WHOLE_PPM.saturating_sub(limit.ppm_up()), said)
        });
        group.into_iter().chain(fair).min_by_key(|(allowed, _)| *allowed)
    }

    /// Of all real-time threads; `None` if they may have everything.
    fn group(&self) -> Option<Limit> {
        // -1 is no limit, and no number here.
        let runtime = number(&self.sysctl_runtime())?;
        let period = number(&self.sysctl.join("sched_rt_period_us"))?;
        Some(Limit { runtime, period })
    }

    /// Of the fair server, and whether it says so; `None` if there is none.
    fn fair(&self, core: usize) -> Option<(Limit, bool)> {
        let period = number(&self.fair.join(format!("cpu{core}/period")));
        if let (Some(runtime), Some(period)) = (number(&self.fair_runtime(core)), period) {
            return Some((Limit { runtime, period }, true));
        }
        let release = fs::read_to_string(&self.release).ok()?;
        let mut parts = release.split('.').map(|part| part.parse::<u32>().ok());
        let version = (parts.next()??, parts.next()??);
        (version >= (6, 12)).then_some((FAIR_DEFAULT, false))
    }
}

impl Limit {
    fn ppm(self) -> u64 {
        self.runtime.saturating_mul(WHOLE_PPM) / self.period.max(1)
    }

    fn ppm_up(self) -> u64 {
        self.runtime.saturating_mul(WHOLE_PPM).div_ceil(self.period.max(1))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Lifts the limits of the cores; notes what was there before.
fn lift(config: &Config, owners: &Owners, places: &Places) -> io::Result<Lifted> {
    let taken = owners.take(KEY, Usage::Read, "");
    let owner = taken.map_err(|error| io::Error::other(error.to_string()))?;
    let lifted = Lifted { owners: owners.clone(), owner: Some(owner) };
    let note = owners.beside(SAVED);
    let mut saved = read_saved(&note);
    let group = places.group().map(|_| (places.sysctl_runtime(), "-1"));
    let cores = config.host.cores.iter().filter(|core| places.fair(**core).is_some());
    let fair = cores.map(|core| (places.fair_runtime(*core), "0"));
    for (path, value) in group.into_iter().chain(fair) {
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let old = fs::read_to_string(&path).map_err(failed)?.trim().to_owned();
        // Another host service may have lifted it before us; what it noted is what was there.
        if old != value && saved.iter().all(|noted| noted.path != path) {
            saved.push(Saved { path: path.clone(), value: old });
            fs::write(&note, serde_json::to_string(&saved)?)?;
        }
        fs::write(&path, value).map_err(failed)?;
        tracing::info!(path = %path.display(), value, "the limit for real-time threads is lifted");
    }
    Ok(lifted)
}

fn read_saved(note: &Path) -> Vec<Saved> {
    let text = fs::read_to_string(note).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Puts back what was there before, unless somebody still needs it lifted.
fn put_back(owners: &Owners) {
    let note = owners.beside(SAVED);
    if !note.exists() {
        return;
    }
    match owners.take(KEY, Usage::Own, "") {
        Ok(_alone) => {
            for Saved { path, value } in read_saved(&note) {
                match fs::write(&path, &value) {
                    Ok(()) => tracing::info!(path = %path.display(), value, "was put back"),
                    Err(error) => {
                        tracing::error!(path = %path.display(), value, %error, "is not put back");
                    }
                }
            }
            // That it is gone already is what is wanted.
            let _ = fs::remove_file(&note);
        }
        Err(OwnError::Taken(_)) => {}
        Err(error) => tracing::warn!(%error, "limits that were lifted are not put back"),
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        self.owner = None;
        put_back(&self.owners);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_config::{check, parse};

    fn config(host: &str) -> Config {
        check(&parse("t", &format!("[host]\ncores = [1]\n{host}")).expect("text")).expect("good")
    }

    /// A machine in a folder, with these limits.
    fn machine(folder: &Path, runtime: &str, fair: Option<&str>, release: &str) -> Places {
        let places = Places {
            sysctl: folder.to_owned(),
            fair: folder.join("fair_server"),
            release: folder.join("osrelease"),
        };
        fs::write(folder.join("sched_rt_runtime_us"), runtime).expect("written");
        fs::write(folder.join("sched_rt_period_us"), "1000000\n").expect("written");
        fs::write(&places.release, release).expect("written");
        if let Some(fair) = fair {
            fs::create_dir_all(folder.join("fair_server/cpu1")).expect("a folder");
            fs::write(places.fair_runtime(1), fair).expect("written");
            fs::write(folder.join("fair_server/cpu1/period"), "1000000000\n").expect("written");
        }
        places
    }

    #[test]
    fn a_capacity_above_what_the_kernel_allows_is_refused_with_the_numbers() {
        let said = |host: &str, runtime: &str, fair, release: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let places = machine(folder.path(), runtime, fair, release);
            let found = problems(&config(host), &places);
            let messages =
                found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message));
            messages.collect::<Vec<_>>().join("\n")
        };
        let whole = "cpu_capacity = 1.0";
        let old = said(whole, "950000\n", None, "6.1.0-amd64\n");
        assert!(old.starts_with("host.cpu_capacity: a capacity of 1.0 is more"), "{old}");
        assert!(
            old.contains("core 1: 0.95 (") && old.contains("950000 of every 1000000 us"),
            "{old}"
        );
        assert_eq!(said("cpu_capacity = 0.95", "950000\n", None, "6.1.0\n"), "");
        assert_eq!(said(whole, "-1\n", None, "6.1.0\n"), "");
        let fair = said(whole, "-1\n", Some("50000000\n"), "6.18.44\n");
        assert!(fair.contains("the fair server keeps 50000 of every 1000000 us)"), "{fair}");
        assert_eq!(said(whole, "-1\n", Some("0\n"), "6.18.44\n"), "");
        let unseen = said(whole, "-1\n", None, "6.12.1\n");
        assert!(unseen.contains("debugfs cannot be read"), "{unseen}");
        assert_eq!(said("cpu_capacity = 1.0\ncpu_policy = \"fifo\"", "950000", None, "6.1.0"), "");
    }

    #[test]
    fn limits_are_lifted_when_asked_and_put_back_by_the_last_who_needs_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = machine(folder.path(), "950000\n", Some("50000000\n"), "6.18.0\n");
        let owners = Owners::at(&folder.path().join("owners")).expect("a folder");
        let refused = prepare_at(&config("cpu_capacity = 1.0"), &owners, &places);
        assert_eq!(refused.expect_err("above the limit").len(), 1);
        let wanted = config("cpu_capacity = 1.0\nrealtime_limit = \"set\"");
        let values = || {
            let read = |path: PathBuf| fs::read_to_string(path).expect("a value");
            (read(places.sysctl_runtime()), read(places.fair_runtime(1)))
        };
        let before = ("950000".to_owned(), "50000000".to_owned());
        let lifted = ("-1".to_owned(), "0".to_owned());
        let first = prepare_at(&wanted, &owners, &places).expect("lifted").expect("lifted");
        assert_eq!(values(), lifted);
        let none = prepare_at(&wanted, &owners, &places).expect("nothing in the way");
        assert!(none.is_none());
        let second = lift(&wanted, &owners, &places).expect("lifted");
        drop(first);
        assert_eq!(values(), lifted, "the second one needs it");
        drop(second);
        assert_eq!(values(), before);

        // What cannot be lifted is named, and what was lifted is put back.
        fs::remove_file(places.fair_runtime(1)).expect("removed");
        let failed = prepare_at(&wanted, &owners, &places).expect_err("a file is missing");
        let said = failed.first().map(|problem| problem.message.clone()).unwrap_or_default();
        assert!(said.contains("fair_server/cpu1/runtime: "), "{said}");
        fs::write(places.fair_runtime(1), &before.1).expect("written");
        assert_eq!(values(), before);

        // One that is killed leaves its note and no lock.
        let mut killed = prepare_at(&wanted, &owners, &places).expect("lifted").expect("lifted");
        killed.owner = None;
        std::mem::forget(killed);
        assert_eq!(values(), lifted);
        let next = prepare_at(&config(""), &owners, &places).expect("nothing in the way");
        assert!(next.is_none());
        assert_eq!(values(), before);
    }
}

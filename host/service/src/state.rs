//! What a later start must know, in `state_dir`: who holds the directory, which tenant processes
//! were started, which network namespaces and which sockets of exports were made.
//!
//! A host service that was killed leaves tenant processes (they die with it, but that takes a
//! moment), files, and namespaces; [`StateDir::open`] cleans up after it before anything new is
//! started. TAPs go with the process that held them.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moirai_runtime::netns;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::sockets::remove_stale;

/// How long a killed process may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another host service runs.
    #[error(
        "another host service{owner} uses {directory}; stop it, or start your tenants there: \
         moirai launch FILE"
    )]
    Taken {
        /// The directory.
        directory: String,
        /// Who it is, as far as known.
        owner: String,
    },
    /// A file could not be made, read or removed.
    #[error("cannot use {path}: {}; choose a `state_dir` that this user may write", why(.source))]
    File {
        /// Which.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A tenant process of an earlier host service does not go.
    #[error("process {pid}, left by an earlier host service, cannot be ended")]
    Immortal {
        /// Which.
        pid: i32,
    },
}

/// The directory, held by this process as long as the value lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// Locked; the kernel unlocks it when the process ends, however it ends.
    _lock: File,
}

/// A process by its number and the time it started, so that a reused number is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    start_ticks: u64,
}

impl StateDir {
    /// Takes the directory and cleans up what an earlier host service left there.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        for directory in [path, &path.join("tenants"), &path.join("netns"), &path.join("exports")] {
            fs::create_dir_all(directory)
                .and_then(|()| close_to_others(directory))
                .map_err(|source| file_error(directory, source))?;
        }
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|source| file_error(&lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // The name of the owner is only a help; without it the message is still true.
                let _ = lock.read_to_string(&mut owner);
                let known = !owner.is_empty();
                let owner = if known { format!(" (process {owner})") } else { owner };
                return Err(StateError::Taken { directory: path.display().to_string(), owner });
            }
            Err(TryLockError::Error(source)) => return Err(file_error(&lock_path, source)),
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(|source| file_error(&lock_path, source))?;
        let state = Self { path: path.to_owned(), _lock: lock };
        state.clean_up()?;
        Ok(state)
    }

    /// Notes a tenant process.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(super) fn note_tenant(&self, name: &str, pid: i32) -> Result<(), StateError> {
        let path = self.tenant_path(name);
        let start_ticks = start_ticks(pid).unwrap_or(0);
        let text = serde_json::to_string(&Process { pid, start_ticks }).unwrap_or_default();
        fs::write(&path, text).map_err(|source| file_error(&path, source))
    }

    /// Forgets a tenant process.
    pub(super) fn forget_tenant(&self, name: &str) {
        remove(&self.tenant_path(name));
    }

    /// Notes a network namespace that is about to be made.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(super) fn note_netns(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join("netns").join(name);
        fs::write(&path, "").map_err(|source| file_error(&path, source))
    }

    /// Notes a socket that is about to be made.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(super) fn note_export(&self, name: &str, socket: &Path) -> Result<(), StateError> {
        let path = self.path.join("exports").join(name);
        fs::write(&path, socket.as_os_str().as_bytes()).map_err(|source| file_error(&path, source))
    }

    /// Forgets a socket.
    pub(super) fn forget_export(&self, name: &str) {
        remove(&self.path.join("exports").join(name));
    }

    /// Removes the network namespaces that were made.
    pub(super) fn remove_namespaces(&self) {
        for entry in files(&self.path.join("netns")) {
            if let Some(name) = entry.file_name().and_then(|name| name.to_str()) {
                if let Err(error) = netns::remove(name) {
                    tracing::warn!(netns = name, %error, "cannot remove the network namespace");
                }
                remove(&entry);
            }
        }
    }

    fn tenant_path(&self, name: &str) -> PathBuf {
        self.path.join("tenants").join(format!("{name}.json"))
    }

    fn clean_up(&self) -> Result<(), StateError> {
        for path in files(&self.path.join("tenants")) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            match serde_json::from_str::<Process>(&text) {
                Ok(process) => {
                    if process.end()? {
                        tracing::info!(pid = process.pid, "ended a tenant process left behind");
                    }
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "not understood"),
            }
            remove(&path);
        }
        for note in files(&self.path.join("exports")) {
            let socket = fs::read(&note).unwrap_or_default();
            let socket = Path::new(OsStr::from_bytes(&socket));
            // A place that somebody else has taken since then is his.
            if let Err(error) = remove_stale(socket) {
                tracing::warn!(%error, "a socket left behind is not removed");
            }
            remove(&note);
        }
        self.remove_namespaces();
        Ok(())
    }
}

impl Process {
    /// Ends the process if it is still the one that was noted; true if it was there.
    fn end(self) -> Result<bool, StateError> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        // The descriptor is taken first: from then on the number cannot come to mean another one.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
        if start_ticks(self.pid) != Some(self.start_ticks) {
            return Ok(false);
        }
        let begin = moirai_runtime::instant();
        while start_ticks(self.pid) == Some(self.start_ticks) {
            if pidfd_send_signal(&pidfd, Signal::KILL).is_err() {
                break;
            }
            if moirai_runtime::since(begin) > KILL_PATIENCE {
                return Err(StateError::Immortal { pid: self.pid });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }
}

/// When a process started, in clock ticks after boot; `None` if it is gone or only waits to be
/// reaped.
pub(super) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; the fields are counted behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok())?
}

/// Takes away the right of others to write in a directory: what is noted there decides what the
/// next start ends and removes.
fn close_to_others(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & 0o022 == 0 {
        return Ok(());
    }
    tracing::warn!(directory = %directory.display(), "others could write here; now they cannot");
    fs::set_permissions(directory, fs::Permissions::from_mode(mode & !0o022))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a state file");
    }
}

/// In words of the folder, where the kernel's are of something else.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "it is there and is no folder".to_owned(),
        io::ErrorKind::NotADirectory => "something on the way to it is no folder".to_owned(),
        io::ErrorKind::NotFound => "no folder can be made there".to_owned(),
        _ => error.to_string(),
    }
}

fn file_error(path: &Path, source: io::Error) -> StateError {
    StateError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_directory_is_held_by_one_host_service() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = StateDir::open(directory.path()).expect("the first");
        let second = StateDir::open(directory.path()).expect_err("taken");
        assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
        drop(first);
        StateDir::open(directory.path()).expect("free again");
    }

    #[test]
    fn a_place_where_no_folder_can_be_is_said_in_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("a file");
        for (path, said) in [
            (file.clone(), "it is there and is no folder"),
            (file.join("state"), "something on the way to it is no folder"),
            (PathBuf::from("/proc/x"), "no folder can be made there"),
        ] {
            let error = StateDir::open(&path).expect_err(said).to_string();
            assert!(error.contains(said) && !error.contains("os error"), "{error}");
        }
    }

    #[test]
    fn others_do_not_write_where_the_next_start_reads() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        for made in [path.clone(), path.join("tenants")] {
            fs::create_dir(&made).expect("made");
            fs::set_permissions(&made, fs::Permissions::from_mode(0o777)).expect("open to all");
        }
        StateDir::open(&path).expect("taken");
        for made in [path.clone(), path.join("tenants"), path.join("netns"), path.join("exports")] {
            let mode = fs::metadata(&made).expect("there").permissions().mode();
            assert_eq!(mode & 0o022, 0, "{}", made.display());
        }
    }

    #[test]
    fn a_process_left_behind_is_ended_and_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child =
            Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
        let state = StateDir::open(directory.path()).expect("state");
        state.note_tenant("a", child.id().cast_signed()).expect("noted");
        drop(state);
        StateDir::open(directory.path()).expect("cleans up");
        assert!(!child.wait().expect("ended").success());
        assert!(files(&directory.path().join("tenants")).is_empty());
    }

    #[test]
    fn a_process_that_only_has_the_same_number_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child =
            Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
        let state = StateDir::open(directory.path()).expect("state");
        let other = Process { pid: child.id().cast_signed(), start_ticks: 1 };
        let text = serde_json::to_string(&other).expect("JSON");
        fs::write(state.tenant_path("a"), text).expect("written");
        fs::write(state.tenant_path("b"), "{\"garbage\":").expect("written");
        drop(state);
        StateDir::open(directory.path()).expect("cleans up");
        assert_eq!(child.try_wait().expect("asked"), None);
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

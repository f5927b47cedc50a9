//! Who owns what on this machine, so that nothing is promised twice.
//!
//! | file | what it holds |
//! | --- | --- |
//! | here | [`Owners`], the folder of the locks, and [`Owner`], one thing held |
//! | `usage.rs` | who may use a thing together |
//! | `record.rs` | who holds a thing, for messages |
//! | `thing.rs` | what a file, a device, an interface is, whatever its names are |
//! | `image.rs` | the locks that QEMU keeps on the images themselves |
//! | `machine.rs` | what a host service takes when it starts |
//! | `ofd.rs` | what is asked of the kernel |
//!
//! A thing is a file in a folder of the machine, named by what the thing *is*: `core-1`,
//! `file-2049-131`. Whoever uses it holds a lock on one byte of that file, which the kernel takes
//! away with the process, however it ends; so a dead owner blocks nobody. Beside that the file says
//! who it is. A change of the file and of its locks is made under its `flock`, for microseconds.

mod image;
mod machine;
mod ofd;
mod record;
mod thing;
mod usage;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) use image::{VolumeOwner, take_volume};
pub(super) use machine::{Machine, take_machine};
pub(super) use record::Holder;
pub(super) use usage::Usage;

/// The folder of the locks, for all users of the machine.
const FOLDER: &str = "/run/moirai/owners";
/// How long another process may be at work on one of the files.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);

/// Why a thing cannot be owned.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnError {
    /// Somebody else has it.
    #[error("{0}")]
    Taken(Holder),
    /// The locks cannot be used.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which file or folder.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The folder of the locks.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    folder: PathBuf,
}

/// A thing that is owned as long as the value lives.
#[derive(Debug)]
pub(super) struct Owner {
    file: File,
    path: PathBuf,
    holder: Holder,
}

impl Owners {
    /// The folder of the machine; of a user who may not write there, a folder of his own, which
    /// keeps his host services apart but not those of other users. That is said in the log.
    ///
    /// # Errors
    /// [`OwnError::File`]: no folder can be had.
    pub(super) fn open() -> Result<Self, OwnError> {
        let machine = Self::at(Path::new(FOLDER));
        let user = rustix::process::geteuid();
        match machine {
            Err(OwnError::File { source, .. })
                if !user.is_root() && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let own = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
                    || std::env::temp_dir().join(format!("moirai-{}", user.as_raw())),
                    |runtime| PathBuf::from(runtime).join("moirai"),
                );
                let folder = own.join("owners");
                tracing::warn!(
                    folder = %folder.display(),
                    "{FOLDER} is not ours to write: host services of other users are not noticed"
                );
                Self::at(&folder)
            }
            other => other,
        }
    }

    /// Uses this folder; makes it if it is not there.
    pub(super) fn at(folder: &Path) -> Result<Self, OwnError> {
        let failed = |source| file_error(folder, source);
        if let Some(above) = folder.parent() {
            fs::create_dir_all(above).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let metadata = fs::symlink_metadata(folder).map_err(failed)?;
        // In /tmp anybody could have put one there before us, and would decide about our locks.
        let own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
        if own {
            return Ok(Self { folder: folder.to_owned() });
        }
        Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else")))
    }

    /// A file of this name in the same folder, for what has to be known to all owners.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes the thing of this `key` for `what` (`host`, `tenant NAME`), which others read when
    /// they are refused.
    ///
    /// # Errors
    /// [`OwnError`].
    pub(super) fn take(&self, key: &str, usage: Usage, what: &str) -> Result<Owner, OwnError> {
        let path = self.folder.join(key);
        let failed = |source| file_error(&path, source);
        let begin = moirai_runtime::instant();
        loop {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true).mode(0o600);
            let mut file = options.open(&path).map_err(failed)?;
            alone(&file, begin).map_err(failed)?;
            let same = fs::symlink_metadata(&path)
                .is_ok_and(|now| file.metadata().is_ok_and(|ours| now.ino() == ours.ino()));
            if !same {
                // Its last owner took it away after we had opened it.
                continue;
            }
            for conflict in usage.conflicts() {
                if ofd::is_held(&file, conflict.byte()).map_err(failed)? {
                    let holder = record::find(&mut file, *conflict);
                    return Err(OwnError::Taken(holder));
                }
            }
            ofd::hold(&file, usage.byte()).map_err(failed)?;
            let holder = Holder::this_process(usage, what);
            let others = is_used(&file);
            record::add(&mut file, &holder, others).map_err(failed)?;
            file.unlock().map_err(failed)?;
            return Ok(Owner { file, path, holder });
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Whatever fails here: the kernel gives up the lock when the file is closed, and a record
        // without a lock blocks nobody.
        if alone(&self.file, moirai_runtime::instant()).is_err() {
            return;
        }
        if is_used(&self.file) {
            let _ = record::remove(&mut self.file, &self.holder);
        } else {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether anybody else uses the thing of `file`. What cannot be found out counts as use.
fn is_used(file: &File) -> bool {
    Usage::ALL.iter().any(|usage| ofd::is_held(file, usage.byte()).unwrap_or(true))
}

/// Waits for the `flock` of `file`; it goes with the file, or earlier.
fn alone(file: &File, begin: Instant) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if moirai_runtime::since(begin) > PATIENCE => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "somebody keeps it locked"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
        }
    }
}

fn file_error(path: &Path, source: io::Error) -> OwnError {
    OwnError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;

//! A volume is owned on the machine, and on its files in the way of QEMU, so that `qemu-img`,
//! `qemu-io` and QEMU itself refuse what we have, and we what they have.
//!
//! QEMU locks single bytes of an image: from 100 on one for each thing that it does with it, from
//! 200 on one for each thing that it bears nobody else to do, in the order below; all locks are
//! shared ones, and each then looks whether somebody is in its way (docs/interop of QEMU, "image
//! locking"). These locks lie on the inode, so they also hold between containers that do not see
//! each other's folders.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use moirai_devices::backend::Volume;

use super::usage::Usage;
use super::{OwnError, Owner, Owners, ofd, thing};

/// Where the bytes begin for what is done, and for what is not borne.
const DOES: u64 = 100;
const FORBIDS: u64 = 200;
/// Things that can be done with an image.
const READ: u64 = 0;
const WRITE: u64 = 1;
const RESIZE: u64 = 3;

/// A volume that is owned as long as the value lives.
#[derive(Debug, Default)]
pub(crate) struct VolumeOwner {
    /// On the machine.
    owners: Vec<Owner>,
    /// Its files, opened once more and locked.
    files: Vec<File>,
}

/// Takes all files of `volume` for `what`.
///
/// # Errors
/// Who has one of them, or why that cannot be known, as a sentence without its subject: "is in use
/// by ...".
pub(crate) fn take_volume(
    owners: &Owners,
    volume: &Volume,
    what: &str,
) -> Result<VolumeOwner, String> {
    let mut owner = VolumeOwner::default();
    for (fd, written) in volume.open_files() {
        owner.add(owners, fd, Usage::of(written), what)?;
    }
    Ok(owner)
}

impl VolumeOwner {
    fn add(
        &mut self,
        owners: &Owners,
        fd: BorrowedFd<'_>,
        usage: Usage,
        what: &str,
    ) -> Result<(), String> {
        let unknown = |error: io::Error| format!("cannot be asked who uses it: {error}");
        let file = again(fd, false).map_err(unknown)?;
        for (key, usage) in thing::keys(&file, usage).map_err(unknown)? {
            match owners.take(&key, usage, what) {
                Ok(owner) => self.owners.push(owner),
                Err(OwnError::Taken(holder)) => return Err(format!("is in use by {holder}")),
                Err(error) => return Err(format!("cannot be owned: {error}")),
            }
        }
        let written = usage == Usage::Own;
        if written && file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device()) {
            // The kernel lets nobody else have it like that, and us only if it is not mounted.
            let own = again(fd, true).map_err(|error| match error.raw_os_error() {
                Some(libc::EBUSY) => {
                    "is in use by the kernel: mounted, swap, or part of a RAID or a volume group"
                        .to_owned()
                }
                _ => unknown(error),
            })?;
            self.files.push(own);
        }
        let behind = thing::file_behind(&file);
        for file in std::iter::once(file).chain(behind) {
            lock(&file, written)?;
            self.files.push(file);
        }
        Ok(())
    }
}

/// Opens the same file once more, for reading.
fn again(fd: BorrowedFd<'_>, exclusive: bool) -> io::Result<File> {
    let flags = if exclusive { libc::O_EXCL } else { 0 };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    File::options().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path)
}

/// Takes QEMU's locks on `file`.
fn lock(file: &File, written: bool) -> Result<(), String> {
    let does: &[u64] = if written { &[READ, WRITE] } else { &[READ] };
    // QEMU bears readers of a raw image beside its writer; what they read is neither old nor new.
    let forbids: &[u64] = if written { &[READ, WRITE, RESIZE] } else { &[WRITE, RESIZE] };
    match try_lock(file, does, forbids) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let who = who_has(file);
            let who = who.unwrap_or_else(|| "by QEMU or one of its tools".to_owned());
            Err(format!("is in use {who}: it keeps QEMU's lock on it"))
        }
        Err(error) => {
            // Some network file systems have no such locks; QEMU goes on without them, too.
            tracing::warn!(%error, "a volume cannot be locked as QEMU does: it does not see us");
            Ok(())
        }
    }
}

/// True if somebody is in the way.
fn try_lock(file: &File, does: &[u64], forbids: &[u64]) -> io::Result<bool> {
    for byte in does.iter().map(|it| DOES + it).chain(forbids.iter().map(|it| FORBIDS + it)) {
        ofd::hold(file, byte)?;
    }
    for byte in does.iter().map(|it| FORBIDS + it).chain(forbids.iter().map(|it| DOES + it)) {
        if ofd::is_held(file, byte)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Another process that has `file` open. The kernel does not say whose the lock is.
fn who_has(file: &File) -> Option<String> {
    let ours = file.metadata().ok()?;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let has = |fd: fs::DirEntry| {
            let theirs = fs::metadata(fd.path());
            theirs.is_ok_and(|it| it.dev() == ours.dev() && it.ino() == ours.ino())
        };
        if pid != std::process::id() && open.into_iter().any(has) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("by process {pid} ({})", name.trim()));
        }
    }
    None
}

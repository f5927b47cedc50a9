//! Opens `/dev/kvm` for tenants, and says what to do where that fails.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use thiserror::Error;

/// Why there is no KVM.
#[derive(Debug, Error)]
pub enum KvmError {
    /// No such device.
    #[error(
        "{0} does not exist: load the module (modprobe kvm_intel or kvm_amd), switch \
         virtualization on in the firmware, or enable nested virtualization if this is a VM"
    )]
    Missing(String),
    /// No permission.
    #[error(
        "no permission to open {0}: run as root, or let your user into its group \
         (usermod -aG kvm USER, then log in again)"
    )]
    Permission(String),
    /// Anything else.
    #[error("cannot open {path}: {error}; dmesg says what KVM found on this host")]
    Other {
        /// The device.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Opens `/dev/kvm`.
///
/// # Errors
/// What stands in the way, and what to do about it.
pub fn open_kvm() -> Result<OwnedFd, KvmError> {
    open_kvm_at(Path::new("/dev/kvm"))
}

/// Opens the KVM device at `path`.
///
/// # Errors
/// As [`open_kvm`].
pub fn open_kvm_at(path: &Path) -> Result<OwnedFd, KvmError> {
    let name = || path.display().to_string();
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => KvmError::Missing(name()),
            io::ErrorKind::PermissionDenied => KvmError::Permission(name()),
            _ => KvmError::Other { path: name(), error },
        }),
    }
}

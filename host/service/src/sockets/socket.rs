//! The socket file of an export.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Something is there that is no socket.
    #[error("{} is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Somebody listens there.
    #[error("somebody listens at {} already", .0.display())]
    Taken(PathBuf),
    /// The kernel refuses.
    #[error("cannot listen at {path}: {source}")]
    Listen {
        /// Where.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A listening socket; the file goes with the value.
#[derive(Debug)]
pub(crate) struct ExportSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to leave alone what has taken its place.
    file: (u64, u64),
}

impl ExportSocket {
    /// Makes the socket, in place of one that nobody listens at. Connections are accepted by a
    /// [`Listener`](super::Listener).
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        remove_stale(path)?;
        let refused = |source| SocketError::Listen { path: path.display().to_string(), source };
        // Under another name first, so that nobody finds the socket before its mode is set.
        let new = name_beside(path);
        remove_stale(&new)?;
        let made = || {
            let listener = UnixListener::bind(&new)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(MODE))?;
            listener.set_nonblocking(true)?;
            fs::rename(&new, path)?;
            let file = fs::symlink_metadata(path)?;
            Ok((listener, (file.dev(), file.ino())))
        };
        let (listener, file) = made().map_err(refused)?;
        Ok(Self { listener, path: path.to_owned(), file })
    }
}

impl Drop for ExportSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a socket");
        }
    }
}

/// Another name in the same folder, not longer: the path of a socket may be as long as it may be.
pub(crate) fn name_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    if let Some(last) = name.last_mut() {
        *last = if *last == b'~' { b'-' } else { b'~' };
    }
    path.with_file_name(OsStr::from_bytes(&name))
}

/// Removes a socket at which nobody listens any more; nothing may be there at all.
///
/// # Errors
/// [`SocketError::NoSocket`] and [`SocketError::Taken`]: it is somebody else's. Also if it cannot
/// be removed.
pub(crate) fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let refused = |source| SocketError::Listen { path: path.display().to_string(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Taken(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(refused)
        }
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_owner_and_group_and_goes_with_the_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        let socket = ExportSocket::bind(&path).expect("bound");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, MODE);
        assert!(matches!(ExportSocket::bind(&path), Err(SocketError::Taken(_))));
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_anything_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        let socket = ExportSocket::bind(&path).expect("in its place");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "precious").expect("written");
        drop(socket);
        assert!(matches!(ExportSocket::bind(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        let error =
            ExportSocket::bind(&folder.path().join("no/such/folder")).expect_err("no place");
        assert!(matches!(error, SocketError::Listen { .. }), "{error}");
    }
}

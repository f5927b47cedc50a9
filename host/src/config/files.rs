//! Files that somebody names on a command line or in a configuration: whatever they are, reading them
//! ends, and takes no more memory than is allowed.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long somebody may take to write what is read from a pipe.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a text of at most `most` bytes: from a file, or from a pipe to its end.
///
/// # Errors
/// It cannot be read, is larger, is no text in UTF-8, or does not end in time.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    read_within(path, most, PATIENCE)
}

fn read_within(path: &Path, most: u64, patience: Duration) -> io::Result<String> {
    // O_NONBLOCK: a pipe that nobody writes must not hold us up, neither here nor below.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file =
        File::options().read(true).custom_flags(flags).open(path).map_err(|it| named(path, it))?;
    let end = Instant::now() + patience;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(other_kind(metadata.file_type()));
    }
    if metadata.is_file() && metadata.len() > most {
        return Err(too_large(most));
    }
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 64 << 10];
    loop {
        if !metadata.is_file() {
            wait(&file, end, patience)?;
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else was faster: wait again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > most {
            return Err(too_large(most));
        }
    }
    let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8");
    String::from_utf8(bytes).map_err(no_text)
}

/// Waits until there is something to read, or nothing will come any more.
fn wait(file: &File, end: Instant, patience: Duration) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
    let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left)))? {
        0 => {
            let text = format!("nobody wrote it to its end within {patience:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        _ => Ok(()),
    }
}

/// What a file is that is not the regular one that was wanted.
pub(crate) fn other_kind(kind: FileType) -> io::Error {
    let what = match kind {
        kind if kind.is_dir() => "it is a directory",
        kind if kind.is_socket() => "it is a socket",
        kind if kind.is_fifo() => "it is a pipe",
        kind if kind.is_block_device() || kind.is_char_device() => "it is a device",
        _ => "it is no regular file",
    };
    io::Error::other(what)
}

/// Why a file cannot be opened: of a socket the kernel says only that there is no such device.
pub(crate) fn named(path: &Path, error: io::Error) -> io::Error {
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => other_kind(found.file_type()),
        _ => error,
    }
}

fn too_large(most: u64) -> io::Error {
    let text = format!("it is larger than {} KiB, which no such file is", most >> 10);
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn endless_and_oversized_files_are_refused() {
        for path in ["/dev/zero", "/dev/urandom"] {
            let error = read_text(Path::new(path), 1 << 20).expect_err(path);
            assert!(error.to_string().contains("larger than 1024 KiB"), "{path}: {error}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sparse");
        File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        assert!(read_text(&path, 1 << 20).is_err());
        File::create(&path).and_then(|file| file.set_len(1 << 20)).expect("a file");
        assert_eq!(read_text(&path, 1 << 20).map(|text| text.len()).ok(), Some(1 << 20));
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_waited_for_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let error = read_within(&path, 1 << 20, Duration::from_millis(50)).expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        std::thread::scope(|scope| {
            scope.spawn(|| std::fs::write(&path, "x".repeat(100_000)).expect("written"));
            let text = read_within(&path, 1 << 20, PATIENCE).expect("read");
            assert_eq!(text.len(), 100_000);
        });
    }

    #[test]
    fn a_directory_a_socket_and_bytes_that_are_no_text_are_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        for (path, what) in [(Path::new("/"), "it is a directory"), (&socket, "it is a socket")] {
            let error = read_text(path, 1 << 20).expect_err("no file");
            assert_eq!(error.to_string(), what);
        }
        let path = folder.path().join("bytes");
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        let error = read_text(&path, 1 << 20).expect_err("no text");
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
}

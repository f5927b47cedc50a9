//! Files that somebody names on a command line or in a configuration: whatever they are, reading
//! them ends, and takes no more memory than is allowed.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use moirai_abi::shell::Word;
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
    let end = moirai_runtime::instant() + patience;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(other_kind(metadata.file_type()));
    }
    if metadata.is_file() && metadata.len() > most {
        return Err(too_large(most));
    }
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 64 << 10];
    let mut waits = !metadata.is_file();
    loop {
        if waits {
            wait(&file, end, patience)?;
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else was faster: wait again. Some files of the kernel block, too.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => waits = true,
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > most {
            return Err(too_large(most));
        }
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let wide = matches!(error.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let what =
            if wide { "it is UTF-16".to_owned() } else { format!("line {line} has other bytes") };
        let text = format!("it is no text in UTF-8: {what}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// What to do about a file that cannot be read; `what` is what was looked for, as "a kernel".
#[must_use]
pub fn advice(error: &io::Error, path: &Path, what: &str) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("correct the path, or make {what} there"),
        io::ErrorKind::NotADirectory => {
            format!("correct the path: something on the way to {shown} is a file")
        }
        io::ErrorKind::PermissionDenied => {
            let path = pasted(path);
            format!("let this user read it; what is on the way there shows `namei -l {path}`")
        }
        io::ErrorKind::IsADirectory => format!("that is a folder: name {what} in it"),
        io::ErrorKind::FileTooLarge => format!("that is something else: name {what}"),
        io::ErrorKind::TimedOut => {
            format!("whoever writes {shown} has to close it, or name a file")
        }
        io::ErrorKind::InvalidData => {
            let from = if error.to_string().ends_with("UTF-16") { "UTF-16" } else { "LATIN1" };
            let path = pasted(path);
            format!("save it as text in UTF-8: `iconv -f {from} -t UTF-8 {path} > NEW`")
        }
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            "the symbolic links there lead in a circle".to_owned()
        }
        _ => format!("name {what} on a device that can be read"),
    }
}

/// A path as a shell takes it for one word.
#[must_use]
pub fn pasted(path: &Path) -> String {
    Word(&path.display().to_string()).to_string()
}

/// Waits until there is something to read, or nothing will come any more.
fn wait(file: &File, end: Instant, patience: Duration) -> io::Result<()> {
    let left = end.saturating_duration_since(moirai_runtime::instant());
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
pub fn other_kind(kind: FileType) -> io::Error {
    let what = match kind {
        kind if kind.is_dir() => "it is a directory",
        kind if kind.is_socket() => "it is a socket",
        kind if kind.is_fifo() => "it is a pipe",
        kind if kind.is_block_device() || kind.is_char_device() => "it is a device",
        _ => "it is no regular file",
    };
    let sort = if kind.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::Other };
    io::Error::new(sort, what)
}

/// Why a file cannot be opened: of a socket the kernel says only that there is no such device.
pub fn named(path: &Path, error: io::Error) -> io::Error {
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
    fn each_reason_why_a_file_cannot_be_read_has_its_own_advice() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("latin"), b"ok\nGr\xfc\xdfe\n").expect("written");
        File::create(at("big")).and_then(|file| file.set_len(1 << 20)).expect("a file");
        std::os::unix::fs::symlink("ring", at("ring")).expect("a link");
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let mut seen = std::collections::BTreeSet::new();
        for (path, said) in [
            (at("none"), "make a configuration there"),
            (at("latin/x"), "is a file"),
            (at(""), "a folder"),
            (at("big"), "something else"),
            (at("latin"), "iconv -f LATIN1"),
            (at("ring"), "in a circle"),
            (at("pipe"), "close it"),
        ] {
            let error = read_within(&path, 1 << 10, Duration::from_millis(20)).expect_err(said);
            let advice = advice(&error, &path, "a configuration");
            assert!(advice.contains(said), "{error}: {advice}");
            seen.insert(advice);
        }
        assert_eq!(seen.len(), 7);
        let error = read_text(&at("latin"), 1 << 10).expect_err("no UTF-8");
        assert!(error.to_string().contains("line 2"), "{error}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(advice(&denied, &at("x"), "a file").contains("namei -l"));
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

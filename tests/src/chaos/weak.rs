//! A weak disk: a file system in user space with one file, whose reads and writes fail or take long
//! when they are told to.
//!
//! The kernel's own injectors (dm-flakey, dm-delay) are not in every kernel, and act on block
//! devices; this one stands below any volume that is a file. It is no model: the service opens it,
//! locks it and does I/O in it as in any file system, and the kernel passes errors and waits on.
//! `fuse` has the bytes of the protocol (linux/fuse.h, version 7.31).

mod fuse;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use fuse::{Answer, Request};

/// The name of its file.
pub(super) const VOLUME: &str = "volume.img";
/// Requests that it serves at a time; a delay holds up no more than these.
const THREADS: usize = 4;
/// Of how many requests one fails in a time of errors.
const FAILS: u64 = 3;

/// What is wrong with it.
#[derive(Debug, Default)]
struct Trouble {
    /// Reads and writes fail, one in [`FAILS`], while this is not 0.
    errors: AtomicU64,
    /// Each read, write and flush takes so much longer, in milliseconds.
    delay_ms: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    delayed: AtomicU64,
}

/// A weak disk; it is unmounted with the value.
#[derive(Debug)]
pub(super) struct Weak {
    place: PathBuf,
    trouble: Arc<Trouble>,
}

struct Server {
    kernel: File,
    store: File,
    trouble: Arc<Trouble>,
}

impl Weak {
    /// Mounts one of this size at a folder; `store` is the file that has its bytes.
    ///
    /// # Errors
    /// The kernel has no FUSE, or this process may not mount.
    pub(super) fn mount(place: &Path, store: &Path, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(place)?;
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(store)?;
        file.set_len(bytes)?;
        let kernel = File::options().read(true).write(true).open("/dev/fuse")?;
        let words =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", kernel.as_raw_fd());
        let words = std::ffi::CString::new(words)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("moirai-chaos", place, "fuse", flags, words.as_c_str())?;
        let trouble = Arc::new(Trouble::default());
        for number in 0..THREADS {
            let (kernel, store) = (kernel.try_clone()?, file.try_clone()?);
            let server = Server { kernel, store, trouble: Arc::clone(&trouble) };
            let builder = std::thread::Builder::new().name(format!("weak-{number}"));
            builder.spawn(move || server.serve())?;
        }
        Ok(Self { place: place.to_owned(), trouble })
    }

    /// Makes one in three reads and writes fail, from now on or no more.
    pub(super) fn fail(&self, fails: bool) {
        self.trouble.errors.store(u64::from(fails), Ordering::Relaxed);
    }

    /// Makes each read, write and flush take so much longer.
    pub(super) fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.trouble.delay_ms.store(delay, Ordering::Relaxed);
    }

    /// How many requests failed and how many took longer, so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.trouble.failed), read(&self.trouble.delayed))
    }
}

impl Drop for Weak {
    fn drop(&mut self) {
        self.fail(false);
        self.delay(Duration::ZERO);
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

impl Trouble {
    /// Waits as long as a request has to; whether it then fails.
    fn strikes(&self) -> bool {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            self.delayed.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(delay));
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let fails = self.errors.load(Ordering::Relaxed) != 0 && number.is_multiple_of(FAILS);
        self.failed.fetch_add(u64::from(fails), Ordering::Relaxed);
        fails
    }
}

impl Server {
    /// Answers requests until the file system is unmounted.
    fn serve(mut self) {
        let mut buffer = vec![0; fuse::BUFFER];
        loop {
            match self.kernel.read(&mut buffer) {
                Ok(length) => {
                    let Some(request) = Request::parse(&buffer[..length]) else { continue };
                    let unique = request.unique;
                    let Some(answer) = self.answer(&request) else { continue };
                    // A request that was interrupted is not there any more.
                    let _ = self.kernel.write(&answer.bytes(unique));
                }
                // Interrupted between two requests.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(fuse::NO_ENTRY) => {}
                Err(_) => return,
            }
        }
    }

    fn answer(&self, request: &Request<'_>) -> Option<Answer> {
        let size = self.store.metadata().map_or(0, |store| store.len());
        Some(match request.operation {
            fuse::FORGET | fuse::BATCH_FORGET | fuse::INTERRUPT => return None,
            fuse::INIT => Answer::Bytes(fuse::init()),
            fuse::LOOKUP if request.name() == VOLUME.as_bytes() => Answer::Bytes(fuse::entry(size)),
            fuse::LOOKUP => Answer::Error(fuse::NO_ENTRY),
            fuse::GETATTR | fuse::SETATTR => Answer::Bytes(fuse::attributes(request.node, size)),
            fuse::OPEN | fuse::OPENDIR => Answer::Bytes(fuse::open()),
            fuse::STATFS => Answer::Bytes(fuse::statfs()),
            fuse::READ => self.read(request),
            fuse::WRITE => self.write(request),
            fuse::FSYNC if self.trouble.strikes() => Answer::Error(fuse::IO_ERROR),
            fuse::FSYNC => self.store.sync_data().map_or_else(Answer::from, |()| Answer::empty()),
            fuse::RELEASE | fuse::RELEASEDIR | fuse::FLUSH | fuse::ACCESS | fuse::READDIR => {
                Answer::empty()
            }
            _ => Answer::Error(fuse::NO_SUCH_CALL),
        })
    }

    fn read(&self, request: &Request<'_>) -> Answer {
        let Some((offset, length)) = request.range() else { return Answer::Error(fuse::IO_ERROR) };
        if self.trouble.strikes() {
            return Answer::Error(fuse::IO_ERROR);
        }
        let mut data = vec![0; length];
        match self.store.read_at(&mut data, offset) {
            Ok(length) => {
                data.truncate(length);
                Answer::Bytes(data)
            }
            Err(error) => error.into(),
        }
    }

    /// A write that fails has written half: no sector behind it may be trusted.
    fn write(&self, request: &Request<'_>) -> Answer {
        let Some((offset, length)) = request.range() else { return Answer::Error(fuse::IO_ERROR) };
        let data = request.data(length);
        if self.trouble.strikes() {
            let _ = self.store.write_all_at(&data[..data.len() / 1024 * 512], offset);
            return Answer::Error(fuse::IO_ERROR);
        }
        let written = self.store.write_all_at(data, offset);
        written.map_or_else(Answer::from, |()| Answer::Bytes(fuse::written(data.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_disk_keeps_what_it_is_given_and_fails_and_waits_when_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("weak");
        let weak = match Weak::mount(&place, &folder.path().join("store"), 1 << 20) {
            Ok(weak) => weak,
            Err(error) => {
                eprintln!("NOT TESTED HERE: no FUSE: {error}");
                assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none());
                return;
            }
        };
        let open = || File::options().read(true).write(true).open(place.join(VOLUME)).unwrap();
        open().write_all_at(&[7; 8192], 4096).unwrap();
        let mut back = [0; 8192];
        open().read_exact_at(&mut back, 4096).unwrap();
        assert_eq!((back, open().metadata().unwrap().len()), ([7; 8192], 1 << 20));

        weak.fail(true);
        let failed = (0..9).filter(|_| open().write_all_at(&[8; 512], 0).is_err()).count();
        assert_eq!((failed, weak.counts().0), (3, 3));
        weak.fail(false);
        weak.delay(Duration::from_millis(50));
        let begin = std::time::Instant::now();
        open().sync_data().unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(50));
        drop(weak);
        assert!(!place.join(VOLUME).exists());
    }
}

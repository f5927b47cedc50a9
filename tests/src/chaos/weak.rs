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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use fuse::{Answer, Request};

/// The name of its file.
pub(super) const VOLUME: &str = "volume.img";
/// Requests that it serves at a time; a delay holds up no more than these.
const THREADS: usize = 4;
/// Of how many requests one fails in a time of errors.
const FAILS: u64 = 3;

/// What happened to its file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    Resize(u64),
    /// Everything before it is on stable storage.
    Flush,
}

/// Why requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// One in [`FAILS`] reads, writes and flushes fails.
    Error,
    /// There is no room: so do writes.
    Full,
}

/// What is wrong with it.
#[derive(Debug, Default)]
struct Trouble {
    failure: Mutex<Option<Failure>>,
    /// Each read, write and flush takes so much longer, in milliseconds.
    delay_ms: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    delayed: AtomicU64,
    /// All that changes its file, if it is to be noted. Changes follow each other then.
    events: Option<Mutex<Vec<Event>>>,
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
        let file = File::options().write(true).create(true).truncate(false).open(store)?;
        file.set_len(bytes)?;
        Self::serve(place, store, Trouble::default())
    }

    /// Mounts one whose file is there already, and notes all that changes it.
    ///
    /// # Errors
    /// See [`Weak::mount`].
    pub(super) fn record(place: &Path, store: &Path) -> io::Result<Self> {
        let events = Some(Mutex::new(Vec::new()));
        Self::serve(place, store, Trouble { events, ..Trouble::default() })
    }

    fn serve(place: &Path, store: &Path, trouble: Trouble) -> io::Result<Self> {
        std::fs::create_dir_all(place)?;
        let file = File::options().read(true).write(true).open(store)?;
        let kernel = File::options().read(true).write(true).open("/dev/fuse")?;
        let words =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", kernel.as_raw_fd());
        let words = std::ffi::CString::new(words)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("moirai-chaos", place, "fuse", flags, words.as_c_str())?;
        let trouble = Arc::new(trouble);
        for number in 0..THREADS {
            let (kernel, store) = (kernel.try_clone()?, file.try_clone()?);
            let server = Server { kernel, store, trouble: Arc::clone(&trouble) };
            let builder = std::thread::Builder::new().name(format!("weak-{number}"));
            builder.spawn(move || server.serve())?;
        }
        Ok(Self { place: place.to_owned(), trouble })
    }

    /// Makes requests fail from now on, or no more.
    pub(super) fn fail(&self, failure: Option<Failure>) {
        *self.trouble.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Makes each read, write and flush take so much longer.
    pub(super) fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.trouble.delay_ms.store(delay, Ordering::Relaxed);
    }

    /// What was noted so far.
    pub(super) fn events<T>(&self, of: impl FnOnce(&[Event]) -> T) -> T {
        let events = self.trouble.events.as_ref();
        let events = events.map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        of(events.as_deref().map_or(&[], Vec::as_slice))
    }

    /// How many requests failed and how many took longer, so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.trouble.failed), read(&self.trouble.delayed))
    }
}

impl Drop for Weak {
    fn drop(&mut self) {
        self.fail(None);
        self.delay(Duration::ZERO);
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

impl Trouble {
    /// Waits as long as a request has to; the error with which it then fails.
    fn strikes(&self, writes: bool) -> Option<i32> {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            self.delayed.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(delay));
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let failure = *self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let code = match failure? {
            Failure::Error => number.is_multiple_of(FAILS).then_some(fuse::IO_ERROR),
            Failure::Full => writes.then_some(fuse::NO_SPACE),
        };
        self.failed.fetch_add(u64::from(code.is_some()), Ordering::Relaxed);
        code
    }
}

impl Trouble {
    /// Does something to the file and notes it, if that is wanted.
    fn change(
        &self,
        event: impl FnOnce() -> Event,
        change: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(events) = &self.events else { return change() };
        let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
        change()?;
        events.push(event());
        Ok(())
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
            fuse::SETATTR => self.resize(request, size),
            fuse::GETATTR => Answer::Bytes(fuse::attributes(request.node, size)),
            fuse::OPEN | fuse::OPENDIR => Answer::Bytes(fuse::open()),
            fuse::STATFS => Answer::Bytes(fuse::statfs()),
            fuse::READ => self.read(request),
            fuse::WRITE => self.write(request),
            fuse::FSYNC => self.flush(),
            fuse::RELEASE | fuse::RELEASEDIR | fuse::FLUSH | fuse::ACCESS | fuse::READDIR => {
                Answer::empty()
            }
            _ => Answer::Error(fuse::NO_SUCH_CALL),
        })
    }

    /// The disk below is no part of this: it need not be waited for.
    fn flush(&self) -> Answer {
        if let Some(code) = self.trouble.strikes(false) {
            return Answer::Error(code);
        }
        let flushed = self.trouble.change(|| Event::Flush, || Ok(()));
        flushed.map_or_else(Answer::from, |()| Answer::empty())
    }

    /// Another size, if that is what is to be set.
    fn resize(&self, request: &Request<'_>, size: u64) -> Answer {
        let new = request.new_size();
        let event = || Event::Resize(new.unwrap_or(size));
        let set = || new.map_or(Ok(()), |new| self.store.set_len(new));
        let changed = if new.is_some() { self.trouble.change(event, set) } else { Ok(()) };
        let attributes = || Answer::Bytes(fuse::attributes(request.node, new.unwrap_or(size)));
        changed.map_or_else(Answer::from, |()| attributes())
    }

    fn read(&self, request: &Request<'_>) -> Answer {
        let Some((offset, length)) = request.range() else { return Answer::Error(fuse::IO_ERROR) };
        if let Some(code) = self.trouble.strikes(false) {
            return Answer::Error(code);
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
        if let Some(code) = self.trouble.strikes(true) {
            let _ = self.store.write_all_at(&data[..data.len() / 1024 * 512], offset);
            return Answer::Error(code);
        }
        let event = || Event::Write { offset, data: data.to_vec() };
        let written = self.trouble.change(event, || self.store.write_all_at(data, offset));
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
                assert!(std::env::var_os("MOIRAI_REQUIRE_FUSE").is_none());
                return;
            }
        };
        let open = || File::options().read(true).write(true).open(place.join(VOLUME)).unwrap();
        open().write_all_at(&[7; 8192], 4096).unwrap();
        let mut back = [0; 8192];
        open().read_exact_at(&mut back, 4096).unwrap();
        assert_eq!((back, open().metadata().unwrap().len()), ([7; 8192], 1 << 20));

        weak.fail(Some(Failure::Error));
        let failed = (0..9).filter(|_| open().write_all_at(&[8; 512], 0).is_err()).count();
        assert_eq!((failed, weak.counts().0), (3, 3));
        weak.fail(Some(Failure::Full));
        let error = open().write_all_at(&[8; 512], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        weak.fail(None);
        weak.delay(Duration::from_millis(50));
        let begin = std::time::Instant::now();
        open().sync_data().unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(50));
        drop(weak);
        assert!(!place.join(VOLUME).exists());
    }
}

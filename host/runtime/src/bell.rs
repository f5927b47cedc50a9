//! What a mailbox is made of: a bell and a channel. In the tests of feature `loom` both are models,
//! which loom takes through every order of steps; else they are an eventfd and the channel of std.

#[cfg(not(all(test, feature = "loom")))]
pub(crate) use real::{Arc, Bell, Receiver, Sender, SyncSender, channel, sync_channel};

#[cfg(all(test, feature = "loom"))]
pub(crate) use modelled::{Arc, Bell, Receiver, Sender, SyncSender, channel, sync_channel};

#[cfg(not(all(test, feature = "loom")))]
mod real {
    use std::io;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

    /// Rings until it is silenced, however often it was rung.
    #[derive(Debug)]
    pub(crate) struct Bell(OwnedFd);

    impl Bell {
        /// A silent bell.
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }

        /// A counter that is full already wakes the thread just as well.
        pub(crate) fn ring(&self) {
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        pub(crate) fn silence(&self) {
            let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
        }

        /// Readable while it rings.
        pub(crate) fn event(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod modelled {
    use std::io;

    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::mpsc::{Receiver, Sender, Sender as SyncSender, channel};
    use loom::sync::{Condvar, Mutex};
    use rustix::fd::BorrowedFd;

    /// An eventfd: a counter, and who sleeps until it is not zero.
    #[derive(Debug)]
    pub(crate) struct Bell(Mutex<u64>, Condvar);

    impl Bell {
        #[allow(clippy::unnecessary_wraps, reason = "as the real one")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(Mutex::new(0), Condvar::new()))
        }

        pub(crate) fn ring(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_all();
        }

        pub(crate) fn silence(&self) {
            *self.0.lock().unwrap() = 0;
        }

        /// Sleeps until it rings, as a thread does in `epoll` or io_uring.
        pub(crate) fn sleep(&self) {
            let mut count = self.0.lock().unwrap();
            while *count == 0 {
                count = self.1.wait(count).unwrap();
            }
        }

        /// Whether a thread would not sleep.
        pub(crate) fn rings(&self) -> bool {
            *self.0.lock().unwrap() > 0
        }

        pub(crate) fn event(&self) -> BorrowedFd<'_> {
            unreachable!("a modelled bell has no descriptor")
        }
    }

    /// Nobody sends a second answer, so one that never waits for room is the same.
    pub(crate) fn sync_channel<T>(_: usize) -> (SyncSender<T>, Receiver<T>) {
        channel()
    }
}

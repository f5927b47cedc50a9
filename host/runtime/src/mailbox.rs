//! How the rest of the host service asks a thread that owns its state alone: by message, with a
//! bell.
//!
//! Dispatchers and I/O domains own what they decide about; nobody else touches it. A [`Mailbox`]
//! hands them commands and waits for the answer; the bell is an eventfd, so that they can sleep on
//! it together with everything else they wait for.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// The end of those who ask.
#[derive(Debug)]
pub struct Mailbox<C> {
    commands: Sender<C>,
    bell: Arc<OwnedFd>,
}

/// The end of the thread that is asked.
#[derive(Debug)]
pub struct Inbox<C> {
    commands: Receiver<C>,
    bell: Arc<OwnedFd>,
}

/// Where an answer goes. Whoever asked may have stopped waiting; the answer is then nobody's.
pub type Reply<T> = SyncSender<T>;

/// A mailbox and its inbox.
///
/// # Errors
/// No descriptor left.
pub fn mailbox<C>() -> io::Result<(Mailbox<C>, Inbox<C>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = channel();
    let inbox = Inbox { commands: receiver, bell: Arc::clone(&bell) };
    Ok((Mailbox { commands: sender, bell }, inbox))
}

impl<C> Mailbox<C> {
    /// Sends the command that `make` makes of the place for its answer, and waits for that. `None`:
    /// the thread has ended.
    pub fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> C) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        self.tell(make(reply))?;
        answer.recv().ok()
    }

    /// Sends a command that has no answer. `None`: the thread has ended.
    pub fn tell(&self, command: C) -> Option<()> {
        self.commands.send(command).ok()?;
        // A counter that is full already wakes the thread just as well.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        Some(())
    }
}

impl<C> Inbox<C> {
    /// The next command, if there is one.
    pub fn next(&self) -> Option<C> {
        self.commands.try_recv().ok()
    }

    /// Silences the bell. Take all commands afterwards.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
    }

    /// Readable when somebody has asked.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_gets_the_answer_and_a_thread_that_ended_answers_nobody() {
        let (mailbox, inbox) = mailbox::<(u32, Reply<u32>)>().unwrap();
        let thread = std::thread::spawn(move || {
            loop {
                inbox.silence();
                if let Some((number, reply)) = inbox.next() {
                    return reply.send(number + 1);
                }
                std::thread::yield_now();
            }
        });
        assert_eq!(mailbox.ask(|reply| (41, reply)), Some(42));
        thread.join().unwrap().unwrap();
        assert_eq!(mailbox.ask(|reply| (41, reply)), None);
    }
}

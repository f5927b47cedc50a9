//! How the rest of the host service asks a thread that owns its state alone: by message, with a
//! bell.
//!
//! Dispatchers and I/O domains own what they decide about; nobody else touches it. A [`Mailbox`]
//! hands them commands and waits for the answer; the bell is an eventfd, so that they can sleep on
//! it together with everything else they wait for.
//!
//! A thread that never waits can still be stuck, in a call of the kernel. Whoever only wants to
//! know how things are asks a [`Question`]: it waits as long as it likes and then takes what was
//! said last.

use std::io;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// What is asked again and again. One question at a time is on its way: a thread that comes back
/// after an hour does not find a thousand.
#[derive(Debug)]
pub struct Question<T>(Mutex<Asked<T>>);

#[derive(Debug)]
struct Asked<T> {
    pending: Option<Receiver<T>>,
    known: Option<T>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// As of now.
    Now(T),
    /// The thread does not answer; this is what it said last, if it ever did.
    Earlier(Option<T>),
}

impl<T> Default for Question<T> {
    fn default() -> Self {
        Self(Mutex::new(Asked { pending: None, known: None }))
    }
}

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

    /// Asks a question, by the command that `make` makes of the place for its answer, and waits for
    /// that no longer than `patience`; not at all while the thread owes somebody this answer for
    /// longer. `None`: the thread has ended.
    pub fn look<T: Clone>(
        &self,
        question: &Question<T>,
        make: impl FnOnce(Reply<T>) -> C,
        patience: Duration,
    ) -> Option<Known<T>> {
        let mut asked = question.0.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = asked.pending.take().map(|pending| (pending.try_recv(), pending));
        let (answer, patience) = match owed {
            Some((Err(TryRecvError::Empty), pending)) => (pending, Duration::ZERO),
            Some((Err(TryRecvError::Disconnected), _)) => return None,
            answered => {
                // That answer is as old as its question.
                if let Some((Ok(earlier), _)) = answered {
                    asked.known = Some(earlier);
                }
                let (reply, answer) = sync_channel(1);
                self.tell(make(reply))?;
                (answer, patience)
            }
        };
        match answer.recv_timeout(patience) {
            Ok(now) => {
                asked.known = Some(now.clone());
                Some(Known::Now(now))
            }
            Err(RecvTimeoutError::Timeout) => {
                asked.pending = Some(answer);
                Some(Known::Earlier(asked.known.clone()))
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
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

    #[test]
    fn a_thread_that_does_not_answer_is_asked_once_and_known_by_what_it_said_last() {
        const LONG: Duration = Duration::from_secs(20);
        const SHORT: Duration = Duration::from_millis(10);
        let (mailbox, inbox) = mailbox::<Reply<u32>>().unwrap();
        let question = Question::default();
        let look = |patience| mailbox.look(&question, |reply| reply, patience);
        let answer = |number| inbox.next().expect("a question").send(number).unwrap();
        assert_eq!(look(SHORT), Some(Known::Earlier(None)));
        assert_eq!(look(LONG), Some(Known::Earlier(None)), "it owes the first answer");
        answer(1);
        assert!(inbox.next().is_none(), "one question at a time");
        // What it answers late is not how things are now.
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| look(LONG));
            loop {
                if let Some(reply) = inbox.next() {
                    break reply.send(2).unwrap();
                }
                std::thread::yield_now();
            }
            assert_eq!(asked.join().unwrap(), Some(Known::Now(2)));
        });
        assert_eq!(look(SHORT), Some(Known::Earlier(Some(2))));
        drop(inbox);
        assert_eq!(look(LONG), None);
    }
}

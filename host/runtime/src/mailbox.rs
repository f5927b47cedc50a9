//! How the rest of the host service asks a thread that owns its state alone: by message, with a
//! bell.
//!
//! Dispatchers and I/O domains own what they decide about; nobody else touches it. A [`Mailbox`]
//! hands them commands and waits for the answer; the bell is an eventfd, so that they can sleep on
//! it together with everything else they wait for.

use std::io;

use rustix::fd::BorrowedFd;

use crate::bell::{Arc, Bell, Receiver, Sender, SyncSender, channel, sync_channel};

/// The end of those who ask.
#[derive(Debug)]
pub struct Mailbox<C> {
    commands: Sender<C>,
    bell: Arc<Bell>,
}

/// The end of the thread that is asked.
#[derive(Debug)]
pub struct Inbox<C> {
    commands: Receiver<C>,
    bell: Arc<Bell>,
}

/// Where an answer goes. Whoever asked may have stopped waiting; the answer is then nobody's.
pub type Reply<T> = SyncSender<T>;

/// A mailbox and its inbox.
///
/// # Errors
/// No descriptor left.
pub fn mailbox<C>() -> io::Result<(Mailbox<C>, Inbox<C>)> {
    let bell = Arc::new(Bell::new()?);
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
        self.bell.ring();
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
        self.bell.silence();
    }

    /// Readable when somebody has asked.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.event()
    }
}

#[cfg(all(test, feature = "loom"))]
mod interleavings {
    use loom::thread;

    use super::*;

    /// The loop of a thread that owns its state: sleep, silence, take all.
    fn serve(inbox: &Inbox<(u32, Reply<u32>)>, commands: usize) {
        let mut taken = 0;
        while taken < commands {
            inbox.bell.sleep();
            inbox.silence();
            while let Some((number, reply)) = inbox.next() {
                let _ = reply.send(number + 1);
                taken += 1;
            }
        }
    }

    /// Loom fails if in any order of steps somebody sleeps for ever.
    #[test]
    fn whoever_asks_gets_its_answer_in_every_order_of_steps() {
        loom::model(|| {
            let (mailbox, inbox) = mailbox().unwrap();
            let thread = thread::spawn(move || serve(&inbox, 2));
            let other = thread::spawn({
                let (commands, bell) = (mailbox.commands.clone(), Arc::clone(&mailbox.bell));
                let mailbox = Mailbox { commands, bell };
                move || assert_eq!(mailbox.ask(|reply| (41, reply)), Some(42))
            });
            assert_eq!(mailbox.ask(|reply| (1, reply)), Some(2));
            thread.join().unwrap();
            other.join().unwrap();
        });
    }

    /// What is told while the thread takes what was told before is not overlooked.
    #[test]
    fn commands_that_follow_each_other_are_all_taken() {
        loom::model(|| {
            let (mailbox, inbox) = mailbox().unwrap();
            let thread = thread::spawn(move || serve(&inbox, 2));
            let (reply, answers) = channel();
            for number in [1, 2] {
                mailbox.tell((number, reply.clone())).unwrap();
            }
            assert_eq!((answers.recv(), answers.recv()), (Ok(2), Ok(3)));
            thread.join().unwrap();
        });
    }

    /// The proof that this sees a lost command: a thread that silences the bell behind what it has
    /// taken finds one there in some order of steps.
    #[test]
    fn a_thread_that_silences_the_bell_too_late_is_found() {
        let found = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let finds = std::sync::Arc::clone(&found);
        loom::model(move || {
            let (mailbox, inbox) = mailbox::<u32>().unwrap();
            let teller = thread::spawn(move || mailbox.tell(1).unwrap());
            while inbox.next().is_some() {}
            inbox.silence();
            teller.join().unwrap();
            // All is told, the bell is silent, and it has a command.
            let silent = !inbox.bell.rings();
            if silent && inbox.next().is_some() {
                finds.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        });
        assert!(found.load(std::sync::atomic::Ordering::Relaxed));
    }
}

#[cfg(all(test, not(feature = "loom")))]
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

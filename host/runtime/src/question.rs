//! What a thread that owns its state alone is asked again and again: how things are.
//!
//! A thread that never waits can still be stuck, in a call of the kernel. Whoever asks a
//! [`Question`] waits as long as it likes and then takes what was said last.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Mailbox, Reply};

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

impl<C> Mailbox<C> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox;

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

//! Who has not come back from a turn: threads that must never wait are watched.
//!
//! A loop says when it begins a turn and when it rests. [`Watchdog`] looks at all of them twenty
//! times a second and names, once for each incident, the one that has been in a turn for longer
//! than [`STUCK`], and the system call that it is in. The machine itself may have stood still:
//! compare with the log of stalls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use moirai_confine::Role;
use moirai_scheduler::{Moment, Span};

use crate::clock::now;
use crate::refused::Refused;

/// A turn that takes longer is one that waits for something.
pub const STUCK: Span = Span::from_millis(100);
const LOOK: Duration = Duration::from_millis(50);

static WATCHED: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// The turns of one thread; unwatched when it is dropped.
#[derive(Debug)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    thread: i32,
    /// When the turn began; 0 while the thread rests.
    since: AtomicU64,
    longest: AtomicU64,
    /// The turn that was reported last, by its begin.
    reported: AtomicU64,
}

/// What a watched thread has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// Its longest turn, also one that goes on.
    pub longest: Span,
}

impl Turns {
    /// Watches the calling thread under this name.
    #[must_use]
    pub fn of_this_thread(name: &str) -> Self {
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            thread: rustix::thread::gettid().as_raw_nonzero().get(),
            since: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            reported: AtomicU64::new(0),
        });
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|other| other.strong_count() > 0);
        watched.push(Arc::downgrade(&inner));
        Self(inner)
    }

    /// A turn begins; the one before is over, if the thread has not rested.
    pub fn begin(&self, now: Moment) {
        let before = self.0.since.swap(now.as_nanos(), Ordering::Relaxed);
        self.0.note(Moment::from_nanos(before), now);
    }

    /// The turn is over, and nothing else begins until something happens.
    pub fn rest(&self, now: Moment) {
        let before = self.0.since.swap(0, Ordering::Relaxed);
        self.0.note(Moment::from_nanos(before), now);
    }
}

impl Inner {
    /// When the turn began; zero while the thread rests.
    fn since(&self) -> Moment {
        Moment::from_nanos(self.since.load(Ordering::Relaxed))
    }

    fn note(&self, before: Moment, now: Moment) {
        if !before.is_zero() {
            self.longest.fetch_max(now.since(before).as_nanos(), Ordering::Relaxed);
        }
    }

    /// Names the thread if it is in a turn for too long and was not named for it yet.
    fn look(&self, now: Moment) {
        let since = self.since();
        self.note(since, now);
        let stuck = !since.is_zero() && now.since(since) > STUCK;
        let begun = since.as_nanos();
        if stuck && self.reported.swap(begun, Ordering::Relaxed) != begun {
            let (name, ms) = (&self.name, now.since(since).as_millis());
            let place = self.place();
            tracing::warn!(thread = %name, "has been in one turn for {ms} ms; it is in {place}");
        }
    }

    /// Where the kernel has it.
    fn place(&self) -> String {
        let read = |what: &str| {
            let path = format!("/proc/self/task/{}/{what}", self.thread);
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let call = read("syscall");
        match call.split_whitespace().next() {
            Some("running") => "its own code, or has no core".to_owned(),
            Some(number) => format!("system call {number} ({})", read("wchan")),
            None => "a place that the kernel does not tell".to_owned(),
        }
    }
}

/// All watched threads.
#[must_use]
pub fn watched() -> Vec<Watched> {
    let now = now();
    let of = |inner: Arc<Inner>| {
        inner.note(inner.since(), now);
        let longest = Span::from_nanos(inner.longest.load(Ordering::Relaxed));
        Watched { name: inner.name.clone(), longest }
    };
    all().into_iter().map(of).collect()
}

fn all() -> Vec<Arc<Inner>> {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.iter().filter_map(Weak::upgrade).collect()
}

/// A thread that looks at all watched ones; ends with the value.
#[derive(Debug)]
pub struct Watchdog {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts to look.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn start() -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            Role::Watchdog.enter_or_say();
            let mut refused = Refused::default();
            while !ends.load(Ordering::Relaxed) {
                let now = now();
                refused.tell(now);
                all().iter().for_each(|watched| watched.look(now));
                std::thread::park_timeout(LOOK);
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(name: &str) -> Span {
        watched().into_iter().find(|it| it.name == name).map_or(Span::ZERO, |it| it.longest)
    }

    #[test]
    fn the_longest_turn_counts_and_rests_do_not() {
        let turns = Turns::of_this_thread("test-a");
        let at = now();
        turns.begin(at);
        turns.begin(at + Span::from_micros(3));
        turns.rest(at + Span::from_micros(10));
        turns.begin(at + Span::from_micros(90));
        turns.rest(at + Span::from_micros(91));
        assert_eq!(longest("test-a"), Span::from_micros(7));
        drop(turns);
        assert_eq!(longest("test-a"), Span::ZERO, "not watched any more");
    }

    #[test]
    fn a_turn_that_does_not_end_is_seen_while_it_goes_on() {
        let turns = Turns::of_this_thread("test-b");
        let begun = now().saturating_sub(10 * STUCK);
        turns.begin(begun);
        assert!(longest("test-b") >= 10 * STUCK);
        turns.0.look(now());
        assert_eq!(turns.0.reported.load(Ordering::Relaxed), begun.as_nanos());
        let _watchdog = Watchdog::start().expect("a thread");
        assert!(!turns.0.place().is_empty());
    }
}

//! How a vCPU stops at its gate and goes on: what the host's dispatcher does to a word of the gate
//! page, and what the tenant process does when a signal tells it to look
//! (`docs/design/0001-seams.md`).
//!
//! The word is memory that two processes share and a futex; both are behind [`Word`], so that every
//! order in which the two sides can take their steps is tried in the tests here.

/// The vCPU may run.
pub const OPEN: u32 = 1;
/// The vCPU waits.
pub const CLOSED: u32 = 0;

/// A gate's word.
pub trait Word {
    /// Reads it (acquire).
    fn load(&self) -> u32;

    /// Writes it (release).
    fn store(&self, value: u32);

    /// Sleeps until somebody wakes those who sleep here, unless the word has another value than
    /// `expected`: to compare and to fall asleep is one step. May come back for no reason.
    fn wait(&self, expected: u32);

    /// Wakes all who sleep here.
    fn wake(&self);
}

/// Lets the vCPU through and wakes it if it waits.
pub fn open(word: &impl Word) {
    word.store(OPEN);
    word.wake();
}

/// Closes the gate. The vCPU stops at it when it handles the signal sent next.
pub fn close(word: &impl Word) {
    word.store(CLOSED);
}

/// Waits as long as the gate is closed. Safe in a signal handler if the word is.
pub fn pass(word: &impl Word) {
    while word.load() == CLOSED {
        word.wait(CLOSED);
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// A word with a futex as the kernel has it: compare and sleep under its lock, wake under it.
    struct Modelled {
        word: AtomicU32,
        sleepers: Mutex<u32>,
        woken: Condvar,
    }

    impl Modelled {
        fn new() -> Arc<Self> {
            let (word, sleepers) = (AtomicU32::new(CLOSED), Mutex::new(0));
            Arc::new(Self { word, sleepers, woken: Condvar::new() })
        }
    }

    impl Word for Modelled {
        fn load(&self) -> u32 {
            self.word.load(Ordering::Acquire)
        }

        fn store(&self, value: u32) {
            self.word.store(value, Ordering::Release);
        }

        fn wait(&self, expected: u32) {
            let mut sleepers = self.sleepers.lock().unwrap();
            // The kernel reads the word with the lock held, in order with all other operations.
            loom::sync::atomic::fence(Ordering::SeqCst);
            if self.word.load(Ordering::SeqCst) == expected {
                *sleepers += 1;
                drop(self.woken.wait(sleepers).unwrap());
            }
        }

        fn wake(&self) {
            loom::sync::atomic::fence(Ordering::SeqCst);
            let mut sleepers = self.sleepers.lock().unwrap();
            if *sleepers > 0 {
                *sleepers = 0;
                self.woken.notify_all();
            }
        }
    }

    /// Loom fails if in any order of steps somebody sleeps for ever.
    #[test]
    fn a_vcpu_at_a_gate_that_opens_goes_on_whenever_that_is() {
        loom::model(|| {
            let word = Modelled::new();
            let vcpu = thread::spawn({
                let word = Arc::clone(&word);
                move || pass(&*word)
            });
            open(&*word);
            vcpu.join().unwrap();
        });
    }

    #[test]
    fn a_gate_that_opens_closes_and_opens_leaves_nobody_behind() {
        loom::model(|| {
            let word = Modelled::new();
            let vcpu = thread::spawn({
                let word = Arc::clone(&word);
                move || {
                    pass(&*word);
                    pass(&*word);
                }
            });
            open(&*word);
            close(&*word);
            open(&*word);
            vcpu.join().unwrap();
        });
    }

    /// The signal tells the vCPU that the gate was closed; a flag stands for it.
    #[test]
    fn a_vcpu_that_was_told_of_a_closed_gate_does_not_run_before_it_opens() {
        loom::model(|| {
            let word = Modelled::new();
            let (signal, opens) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            open(&*word);
            let vcpu = thread::spawn({
                let (word, signal, opens) = (word.clone(), signal.clone(), opens.clone());
                move || {
                    pass(&*word);
                    if signal.load(Ordering::Acquire) == 1 {
                        pass(&*word);
                        assert_eq!(opens.load(Ordering::Relaxed), 1, "it ran at a closed gate");
                    }
                }
            });
            close(&*word);
            signal.store(1, Ordering::Release);
            opens.store(1, Ordering::Relaxed);
            open(&*word);
            vcpu.join().unwrap();
        });
    }

    /// The proof that this sees a lost wake-up: who wakes before the word says open leaves a
    /// sleeper behind in some order of steps. Nobody waits for it, as loom ends a process in which
    /// a deadlock unwinds.
    #[test]
    fn a_gate_that_wakes_before_it_opens_is_found() {
        let found = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let finds = std::sync::Arc::clone(&found);
        loom::model(move || {
            let word = Modelled::new();
            let vcpu = thread::spawn({
                let word = Arc::clone(&word);
                move || pass(&*word)
            });
            word.wake();
            word.store(OPEN);
            if *word.sleepers.lock().unwrap() > 0 {
                finds.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            word.wake();
            vcpu.join().unwrap();
        });
        assert!(found.load(std::sync::atomic::Ordering::Relaxed));
    }
}

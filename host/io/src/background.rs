//! Work on address spaces that must not hold up the loop: mapping in and unmapping guest memory.
//!
//! Such work takes the lock of this process's address space, and the loop needs that lock when a
//! device is attached. A thread of the fair class that is preempted with the lock in hand would
//! make the loop wait for everything else on its core. So the work is done just below the loop's own
//! priority and on its core: it runs when the loop sleeps, or waits for it.

use super::handle::PRIORITY;
use moirai_runtime::{pin, set_scheduler};

/// Runs `work` on a thread of its own. If there is none to be had, nothing is done.
pub(super) fn background(
    name: &'static str,
    core: Option<usize>,
    work: impl FnOnce() + Send + 'static,
) {
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        // Without the right to real-time priority the loop has none either.
        let placed = core.map_or(Ok(()), |core| pin(0, core));
        let _ = placed.and_then(|()| set_scheduler(0, libc::SCHED_FIFO, PRIORITY - 1));
        work();
    });
    if let Err(error) = thread {
        tracing::warn!("no thread to {name}: {error}");
    }
}

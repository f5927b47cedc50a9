//! Waiting: the one place where devices may interrupt.
//!
//! While the guest works it polls its rings and devices are told to be silent; an interrupt costs
//! it more than a look into memory. Before it halts it asks each [`WakeSource`] for an interrupt,
//! looks once more whether something came meanwhile, sets the timer and halts. No wake-up is lost:
//! an interrupt that comes between the look and the halt is noted in the pending word, and ring 0
//! does not halt while that is set.

use crate::{clock, console, interrupts, platform};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A device that can end a wait.
pub trait WakeSource {
    /// The slot of its interrupt in the pending word, see [`crate::virtio::Device::slot`].
    fn slot(&self) -> u32;
    /// Its interrupt came: tell the device so (lowers a level-held line, as QEMU's).
    fn acknowledge(&mut self);
    /// Asks for an interrupt at the next event; false if there is an event already.
    fn arm(&mut self) -> bool;
    /// Wants no more interrupts.
    fn disarm(&mut self);
}

/// Interrupts taken from the pending word that their source has not acknowledged yet.
static UNACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);
/// When the running one-shot timer ends; 0: it does not run.
static TIMER_AT: AtomicU64 = AtomicU64::new(0);

/// The timer's byte of the pending word.
const TIMER_MASK: u64 = 0xff;

/// Console output gets so much of every wait, and while there is some no wait is longer than this:
/// a tenth of the time.
const CONSOLE_NS: u64 = 100_000;
const CONSOLE_WAIT_NS: u64 = 1_000_000;
/// A deadline nearer than this is not worth a halt (halt and wake cost about 50 us there).
const SPIN_NS: u64 = 30_000;

/// Waits until `deadline` (nanoseconds of [`clock::now`]; `None`: for ever) or until a source has
/// an event, whichever comes first; returns early now and then. Some of the queued console output
/// is written.
pub fn wait(deadline: Option<u64>, sources: &mut [&mut dyn WakeSource]) {
    let mut deadline = deadline.unwrap_or(u64::MAX);
    if console::pending() {
        console::pump(CONSOLE_NS);
        if console::pending() {
            deadline = deadline.min(clock::now().saturating_add(CONSOLE_WAIT_NS));
        }
    }
    acknowledge(sources);
    let mut idle = true;
    for source in sources.iter_mut() {
        idle &= source.arm();
    }
    if idle {
        rest_until(deadline);
    }
    for source in sources.iter_mut() {
        source.disarm();
    }
}

/// Waits until `deadline` without writing queued output: for who counts its wake-ups.
pub fn rest(deadline: u64) {
    while clock::now() < deadline {
        acknowledge(&mut []);
        rest_until(deadline);
    }
}

fn acknowledge(sources: &mut [&mut dyn WakeSource]) {
    let mut came = UNACKNOWLEDGED.load(SeqCst) | platform::pending().swap(0, SeqCst);
    if came & TIMER_MASK != 0 {
        // It may have fired a little before the deadline: the two clocks are not the same.
        TIMER_AT.store(0, SeqCst);
        came &= !TIMER_MASK;
    }
    for source in sources.iter_mut() {
        let mask = 0xff << (8 * source.slot());
        if came & mask != 0 {
            source.acknowledge();
        }
    }
    for source in sources.iter() {
        came &= !(0xff << (8 * source.slot()));
    }
    UNACKNOWLEDGED.store(came, SeqCst);
}

fn rest_until(deadline: u64) {
    let now = clock::now();
    if deadline.saturating_sub(now) < SPIN_NS {
        while clock::now() < deadline {
            core::hint::spin_loop();
        }
        return;
    }
    let running = TIMER_AT.load(SeqCst);
    if running <= now || running != deadline {
        interrupts::set_timer(clock::timer_ticks(deadline - now));
        TIMER_AT.store(deadline, SeqCst);
    }
    platform::halt_if_idle();
}

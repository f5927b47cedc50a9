//! The serial console (16550 at COM1), for output only.
//!
//! A byte costs an exit to the VMM, 26 us on slow hosts (a string instruction is split into bytes
//! there and costs more). So lines are queued, and [`crate::idle`] writes them a little at a time
//! while the application waits ([`pump`]): a report neither delays a packet nor uses up a time
//! slice. [`flush`] writes everything, for what cannot wait.

use crate::clock;
use crate::platform::{read_port, write_port};
use alloc::collections::VecDeque;
use core::cell::RefCell;
use core::fmt;
use moirai_abi::machine::SERIAL_PORT;

const INTERRUPT_ENABLE: u16 = SERIAL_PORT + 1;
const FIFO_CONTROL: u16 = SERIAL_PORT + 2;
const LINE_CONTROL: u16 = SERIAL_PORT + 3;
const LINE_STATUS: u16 = SERIAL_PORT + 5;
const FIFO_ON_AND_CLEAR: u8 = 0x07;
const EIGHT_BITS: u8 = 0x03;
const TRANSMITTER_EMPTY: u8 = 0x20;

/// What a 16550 takes at once.
const FIFO_BYTES: usize = 16;
/// Status reads before a transmitter that stays busy is ignored: a console that nobody reads must
/// not stop the tenant.
const STATUS_TRIES: u32 = 1000;
/// Output that is kept while nobody takes it; later lines are dropped.
const QUEUE_BYTES: usize = 64 * 1024;

/// A cell for the one thread there is.
struct Single<T>(RefCell<T>);
#[allow(unsafe_code, reason = "one thread")]
// SAFETY: there is one thread, and the interrupt entries (shim.S) do not use it.
unsafe impl<T> Sync for Single<T> {}

struct Output {
    queue: VecDeque<u8>,
    /// Bytes that the FIFO takes for sure.
    room: usize,
}

static OUTPUT: Single<Output> =
    Single(RefCell::new(Output { queue: VecDeque::new(), room: FIFO_BYTES }));

/// Prepares the port: no interrupts, FIFO on, 8 bits.
pub(crate) fn init() {
    write_port(INTERRUPT_ENABLE, 0);
    write_port(LINE_CONTROL, EIGHT_BITS);
    write_port(FIFO_CONTROL, FIFO_ON_AND_CLEAR);
}

/// Queues one line of output.
pub fn line(text: &str) {
    let queue = &mut OUTPUT.0.borrow_mut().queue;
    if queue.len() + text.len() < QUEUE_BYTES {
        queue.extend(text.as_bytes());
        queue.push_back(b'\n');
    }
}

/// Is there queued output?
#[must_use]
pub fn pending() -> bool {
    !OUTPUT.0.borrow().queue.is_empty()
}

/// Writes queued output for about `budget_ns`, at least one byte.
pub fn pump(budget_ns: u64) {
    let output = &mut *OUTPUT.0.borrow_mut();
    let until = clock::now().saturating_add(budget_ns);
    while let Some(byte) = output.queue.pop_front() {
        write_port(SERIAL_PORT, byte);
        output.room -= 1;
        // Also at the end: a VMM that gathers writes passes them on when a register is read.
        if output.room == 0 || output.queue.is_empty() {
            await_transmitter();
            output.room = FIFO_BYTES;
        }
        if clock::now() >= until {
            return;
        }
    }
}

/// Writes all queued output.
pub fn flush() {
    pump(u64::MAX);
}

/// Writes a text at once, past the queue and without the heap: for failures.
pub(crate) struct Direct;

impl fmt::Write for Direct {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_through(text.as_bytes());
        Ok(())
    }
}

/// Writes what is queued unless the queue itself is in use: for failures.
pub(crate) fn try_flush() {
    if let Ok(mut output) = OUTPUT.0.try_borrow_mut() {
        let (front, back) = output.queue.as_slices();
        write_through(front);
        write_through(back);
        output.queue.clear();
    }
}

fn write_through(bytes: &[u8]) {
    for piece in bytes.chunks(FIFO_BYTES) {
        await_transmitter();
        piece.iter().for_each(|&byte| write_port(SERIAL_PORT, byte));
    }
    await_transmitter();
}

fn await_transmitter() {
    for _ in 0..STATUS_TRIES {
        if read_port(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            return;
        }
    }
}

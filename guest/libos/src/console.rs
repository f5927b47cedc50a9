//! The serial console (16550 at COM1), for output only.
//!
//! A byte costs an exit to the VMM on most hosts, so lines are queued and written in small pieces
//! while there is time ([`pump`], called by [`crate::idle`]); a line never delays a packet by more
//! than one piece. [`flush`] writes everything, for the end and for panics.

use crate::platform::{read_port, write_port, write_port_string};
use alloc::collections::VecDeque;
use alloc::string::String;
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

static QUEUE: Single<VecDeque<u8>> = Single(RefCell::new(VecDeque::new()));

/// Prepares the port: no interrupts, FIFO on, 8 bits.
pub(crate) fn init() {
    write_port(INTERRUPT_ENABLE, 0);
    write_port(LINE_CONTROL, EIGHT_BITS);
    write_port(FIFO_CONTROL, FIFO_ON_AND_CLEAR);
}

/// Queues one line of output.
pub fn line(text: &str) {
    let mut queue = QUEUE.0.borrow_mut();
    if queue.len() + text.len() < QUEUE_BYTES {
        queue.extend(text.as_bytes());
        queue.push_back(b'\n');
    }
}

/// Is there queued output?
#[must_use]
pub fn pending() -> bool {
    !QUEUE.0.borrow().is_empty()
}

/// Writes one piece of the queued output, at most what the port's FIFO holds.
pub fn pump() {
    let mut queue = QUEUE.0.borrow_mut();
    let mut piece = [0; FIFO_BYTES];
    let len = queue.len().min(FIFO_BYTES);
    for (slot, byte) in piece.iter_mut().zip(queue.drain(..len)) {
        *slot = byte;
    }
    write_piece(piece.get(..len).unwrap_or_default());
}

/// Writes all queued output.
pub fn flush() {
    while pending() {
        pump();
    }
}

/// Writes a text at once, past the queue and without the heap: for failures.
pub(crate) struct Direct;

impl fmt::Write for Direct {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.as_bytes().chunks(FIFO_BYTES).for_each(write_piece);
        Ok(())
    }
}

/// Writes what is queued unless the queue itself is in use: for failures.
pub(crate) fn try_flush() {
    let queued = QUEUE.0.try_borrow_mut().map(|mut queue| core::mem::take(&mut *queue));
    if let Ok(queued) = queued {
        let (front, back) = queued.as_slices();
        front.chunks(FIFO_BYTES).chain(back.chunks(FIFO_BYTES)).for_each(write_piece);
    }
}

fn write_piece(bytes: &[u8]) {
    for _ in 0..STATUS_TRIES {
        if read_port(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            break;
        }
    }
    write_port_string(SERIAL_PORT, bytes);
}

/// Writes `text` so that it can stand between the quotes of a JSON string.
///
/// # Errors
/// Those of `out`.
pub fn write_json_escaped(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(out, "\\{letter}")?,
            letter if u32::from(letter) < 0x20 => write!(out, "\\u{:04x}", u32::from(letter))?,
            letter => out.write_char(letter)?,
        }
    }
    Ok(())
}

/// [`write_json_escaped`] for formatted text, without a buffer.
pub(crate) struct JsonEscaped<'a>(pub(crate) &'a mut dyn fmt::Write);

impl fmt::Write for JsonEscaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_json_escaped(self.0, text)
    }
}

/// Queues one line given in pieces.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let mut text = String::new();
    if fmt::write(&mut text, arguments).is_ok() {
        line(&text);
    }
}

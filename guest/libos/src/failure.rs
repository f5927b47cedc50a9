//! Failures that nobody handles: Rust panics and processor exceptions. Both end as one JSON line on
//! the console, `{"app":...,"event":"error",...}`, and a machine that is powered off.
#![allow(unsafe_code, reason = "reads the record that ring 0 wrote")]

use crate::console::{Direct, try_flush};
use crate::json::Escaped;
use crate::power;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use moirai_abi::machine::END_STATUS_PANIC;

static APP_NAME: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static APP_NAME_LEN: AtomicUsize = AtomicUsize::new(0);

/// What `shim.S` writes on an exception.
#[repr(C)]
#[derive(Clone, Copy)]
struct ExceptionRecord {
    vector: u64,
    error_code: u64,
    rip: u64,
    rsp: u64,
    cr2: u64,
    count: u64,
}

unsafe extern "C" {
    #[link_name = "exception_record"]
    static EXCEPTION_RECORD: ExceptionRecord;
}

/// Names the application in failure reports.
pub fn set_app_name(name: &'static str) {
    APP_NAME.store(name.as_ptr().cast_mut(), Relaxed);
    APP_NAME_LEN.store(name.len(), Relaxed);
}

/// Entered from ring 0 after an exception, on a stack of its own (shim.S). A second exception in
/// here makes ring 0 reset the machine.
#[unsafe(no_mangle)]
extern "C" fn report_exception() -> ! {
    // SAFETY: ring 0 has filled the record and does not touch it again before the next exception.
    let record = unsafe { (&raw const EXCEPTION_RECORD).read_volatile() };
    let ExceptionRecord { vector, error_code, rip, rsp, cr2, .. } = record;
    fail(format_args!(
        "exception {vector} ({}) error code {error_code:#x} at rip {rip:#x}, rsp {rsp:#x}, cr2 \
         {cr2:#x}",
        exception_name(vector)
    ))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}

/// Reports a failure and powers off; needs no heap.
fn fail(message: fmt::Arguments<'_>) -> ! {
    try_flush();
    let mut out = Direct;
    // The console cannot fail, and there is nobody left to tell.
    let _ = write!(out, "{{\"app\":\"{}\",\"event\":\"error\",\"message\":\"", app_name());
    let _ = Escaped(&mut out).write_fmt(message);
    let _ = out.write_str("\"}\n");
    power::fail(END_STATUS_PANIC)
}

fn app_name() -> &'static str {
    let start = APP_NAME.load(Relaxed);
    if start.is_null() {
        return "boot";
    }
    // SAFETY: both come from one `&'static str` in `set_app_name`; the length is stored before
    // anything can read it, as there is one thread.
    let bytes = unsafe { core::slice::from_raw_parts(start, APP_NAME_LEN.load(Relaxed)) };
    core::str::from_utf8(bytes).unwrap_or("boot")
}

fn exception_name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        3 => "breakpoint",
        6 => "invalid opcode",
        8 => "double fault",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        32.. => "unexpected interrupt",
        _ => "processor exception",
    }
}

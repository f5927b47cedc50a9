//! What switches, rounds and wake-ups cost on a core of this host.
//!
//! Two threads of the highest priority pass a byte to and fro through pipes; one of them reads what
//! a round reads, walks through memory that the other has displaced, and sleeps. Takes some 100 ms.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use moirai_runtime::{now, pin, set_scheduler, sleep_until};
use moirai_scheduler::{Amount, Span};
use rustix::pipe::pipe;

const PRIORITY: i32 = 97;
const PASSES: usize = 1_000;
const READS: u32 = 500;
const SLEEPS: usize = 50;
const SLEEP: Span = Span::from_millis(1);
/// What a vCPU has in caches that its neighbours displace, in bytes.
const WORKING_SET: usize = 256 * 1024;
const DISPLACED_BY: usize = 4 * 1024 * 1024;
/// Of a round's work for one vCPU the reading of its account is about half.
const ROUND_PER_READ: u64 = 2;

/// What it found. The core serves nobody else meanwhile, so what takes time is service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// A switch, with the dispatcher's rounds at its ends, at its 99th percentile.
    pub switch: Amount,
    /// Refilling the caches.
    pub cache: Amount,
    /// What a round does for one vCPU.
    pub vcpu: Amount,
    /// How late a wake-up is, at its 99th percentile.
    pub wake_p99: Span,
}

/// Measures on `core`.
///
/// # Errors
/// If a thread cannot be made, pinned or given its priority, or a pipe or file cannot be used.
pub fn measure(core: usize) -> io::Result<Measured> {
    let measuring = std::thread::Builder::new().name(format!("costs-{core}")).spawn(move || {
        pin(0, core)?;
        set_scheduler(0, libc::SCHED_FIFO, PRIORITY)?;
        let pass = passes(core)?;
        let read = reads()?;
        // A slice begins and ends with a round: two classes are changed, a state and an account
        // read.
        let switch = pass.saturating_add(read.saturating_mul(4 * ROUND_PER_READ));
        let vcpu = read * ROUND_PER_READ;
        Ok(Measured {
            switch: switch.service(),
            cache: cache().service(),
            vcpu: vcpu.service(),
            wake_p99: wakes(),
        })
    })?;
    measuring.join().map_err(|_| io::Error::other("the measuring thread panicked"))?
}

/// One switch to the other thread, at its 99th percentile.
fn passes(core: usize) -> io::Result<Span> {
    let ((own_read, other_write), (other_read, own_write)) = (pipe()?, pipe()?);
    let other = std::thread::spawn(move || -> io::Result<()> {
        pin(0, core)?;
        set_scheduler(0, libc::SCHED_FIFO, PRIORITY)?;
        let mut byte = [0];
        while rustix::io::read(&other_read, &mut byte)? > 0 {
            rustix::io::write(&other_write, &byte)?;
        }
        Ok(())
    });
    let mut took = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        let begin = now();
        rustix::io::write(&own_write, &[0])?;
        if rustix::io::read(&own_read, &mut [0])? == 0 {
            break;
        }
        took.push(now().since(begin) / 2);
    }
    drop(own_write);
    other.join().map_err(|_| io::Error::other("the other thread panicked"))??;
    Ok(percentile_99(&mut took))
}

/// Reading the account of one thread.
fn reads() -> io::Result<Span> {
    let file = File::open("/proc/thread-self/schedstat")?;
    let begin = now();
    for _ in 0..READS {
        file.read_at(&mut [0; 96], 0)?;
    }
    Ok(now().since(begin) / u64::from(READS))
}

/// How much longer a walk through a working set takes when another has displaced it.
fn cache() -> Span {
    let (own, other) = (vec![1u8; WORKING_SET], vec![1u8; DISPLACED_BY]);
    let walk = |bytes: &[u8]| {
        let begin = now();
        let sum: u64 = bytes.iter().step_by(64).map(|&byte| u64::from(byte)).sum();
        std::hint::black_box(sum);
        now().since(begin)
    };
    let mut most = Span::ZERO;
    for _ in 0..10 {
        walk(&own);
        let warm = walk(&own);
        walk(&other);
        most = most.max(walk(&own).saturating_sub(warm));
    }
    most
}

fn wakes() -> Span {
    let mut late = Vec::with_capacity(SLEEPS);
    for _ in 0..SLEEPS {
        let until = now() + SLEEP;
        sleep_until(until);
        late.push(now().since(until));
    }
    percentile_99(&mut late)
}

fn percentile_99(values: &mut [Span]) -> Span {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(Span::ZERO)
}

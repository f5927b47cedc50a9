//! What the dispatcher asks of the kernel about a thread: CPU time, state, class, gate.
//!
//! [`Threads`] is the seam between the dispatcher's decisions and the machine: the real one talks
//! to Linux, the one in the tests keeps a virtual machine with a virtual clock.
#![allow(unsafe_code, reason = "scheduling classes and signals of other threads by system call")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use moirai_runtime::{pin, set_scheduler};
use moirai_scheduler::{Amount, Span, Weight};

use crate::GateWord;

/// Where a vCPU stands with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Owed time: SCHED_FIFO at this priority; higher goes first.
    Guaranteed(i32),
    /// On slack: the kernel's fair class at this nice level.
    Fair(i32),
    /// Stopped at its gate, in the fair class should it ignore the gate: until its next slice, or
    /// until others have caught up in the slack.
    Gated,
}

/// CPU time of a thread as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    /// Time it ran.
    pub(super) run: Amount,
    /// Time it was runnable and waited for the core.
    pub(super) wait: Span,
    /// How often it was switched to.
    pub(super) runs: u64,
}

/// One thread under dispatch.
pub(super) trait Threads {
    /// CPU time so far.
    fn cpu_time(&mut self) -> io::Result<CpuTime>;
    /// How often it has gone to sleep so far, at its gate too. Dear to ask: the kernel writes a
    /// page.
    fn sleeps(&mut self) -> io::Result<u64>;
    /// Whether it is runnable (or running) at this moment.
    fn is_runnable(&mut self) -> io::Result<bool>;
    /// Puts it into a class.
    fn set_class(&mut self, class: Class) -> io::Result<()>;
}

/// A vCPU thread of a tenant process.
#[derive(Debug)]
pub(super) struct LinuxThread {
    pid: i32,
    tid: i32,
    schedstat: File,
    stat: File,
    status: File,
    gate: GateWord,
    /// The gate may be closed: by us, or because it never was opened.
    gated: bool,
    nice: i32,
}

impl LinuxThread {
    /// Opens the thread's accounts and pins it to `core`.
    ///
    /// # Errors
    /// If `tid` is no thread of `pid`, or the kernel refuses to pin it.
    pub(super) fn attach(pid: i32, tid: i32, core: usize, gate: GateWord) -> io::Result<Self> {
        let task = format!("/proc/{pid}/task/{tid}");
        let thread = Self {
            pid,
            tid,
            schedstat: File::open(format!("{task}/schedstat"))?,
            stat: File::open(format!("{task}/stat"))?,
            status: File::open(format!("{task}/status"))?,
            gate,
            gated: true,
            nice: 0,
        };
        pin(tid, core)?;
        Ok(thread)
    }

    fn set_nice(&mut self, nice: i32) -> io::Result<()> {
        if nice != self.nice {
            let who = libc::id_t::try_from(self.tid).map_err(io::Error::other)?;
            // SAFETY: setpriority has no memory preconditions; on Linux it is about one thread.
            check(i64::from(unsafe { libc::setpriority(libc::PRIO_PROCESS, who, nice) }))?;
            self.nice = nice;
        }
        Ok(())
    }

    /// A tenant can close its own gate, too, but to its own loss only.
    fn open(&mut self) {
        if self.gated {
            self.gate.open();
            self.gated = false;
        }
    }

    fn signal(&self) -> io::Result<()> {
        // SAFETY: tgkill has no memory preconditions; a thread that is gone gives ESRCH.
        check(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, self.tid, libc::SIGRTMIN()) })
    }
}

impl Threads for LinuxThread {
    fn cpu_time(&mut self) -> io::Result<CpuTime> {
        let mut text = [0u8; 96];
        let length = self.schedstat.read_at(&mut text, 0)?;
        parse_schedstat(text.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "schedstat is unreadable"))
    }

    fn sleeps(&mut self) -> io::Result<u64> {
        let mut text = [0u8; 4096];
        let length = self.status.read_at(&mut text, 0)?;
        parse_sleeps(text.get(..length).unwrap_or_default())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "status is unreadable"))
    }

    fn is_runnable(&mut self) -> io::Result<bool> {
        // The state follows the command name, which may itself contain blanks and parentheses.
        let mut text = [0u8; 128];
        let length = self.stat.read_at(&mut text, 0)?;
        let text = text.get(..length).unwrap_or_default();
        let after = text.iter().rposition(|&byte| byte == b')').unwrap_or(0);
        Ok(text.get(after + 2) == Some(&b'R'))
    }

    fn set_class(&mut self, class: Class) -> io::Result<()> {
        match class {
            Class::Guaranteed(priority) => {
                set_scheduler(self.tid, libc::SCHED_FIFO, priority)?;
                self.open();
            }
            Class::Fair(nice) => {
                self.set_nice(nice)?;
                self.open();
                set_scheduler(self.tid, libc::SCHED_OTHER, 0)?;
            }
            Class::Gated => {
                set_scheduler(self.tid, libc::SCHED_OTHER, 0)?;
                self.gate.close();
                self.gated = true;
                self.signal()?;
            }
        }
        Ok(())
    }
}

impl Drop for LinuxThread {
    fn drop(&mut self) {
        // Whoever was dispatched must not stay frozen or real-time once nobody looks after it.
        let _ = set_scheduler(self.tid, libc::SCHED_OTHER, 0);
        let _ = self.set_nice(0);
        self.gate.open();
    }
}

/// The nice level whose part of the fair class comes nearest to a weight. Level 0 stands for weight
/// 1, and each level below it for 1.25 times as much, down to -20 (weight 87).
pub(super) fn nice(weight: Weight) -> i32 {
    let square = u128::from(weight.get().min(100)).pow(2);
    // The middle between the levels n - 1 and n is 1.25^(n - 1/2): compared in squares.
    let reaches = |level: u32| square * 4u128.pow(2 * level - 1) >= 5u128.pow(2 * level - 1);
    (1..=20).take_while(|&level| reaches(level)).fold(0, |nice, _| nice - 1)
}

/// `schedstat` is "run wait runs", the first two in nanoseconds.
fn parse_schedstat(text: &[u8]) -> Option<CpuTime> {
    let text = std::str::from_utf8(text).ok()?;
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    let mut next = || fields.next()?.ok();
    let (run, wait) = (Amount::from_nanos(next()?), Span::from_nanos(next()?));
    Some(CpuTime { run, wait, runs: next()? })
}

/// Switches that a thread asked for itself: it had nothing to do. Those that others forced on it
/// are the next line.
fn parse_sleeps(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_gives_run_and_wait_time_and_garbage_gives_nothing() {
        assert_eq!(
            parse_schedstat(b"446699 66509 1\n"),
            Some(CpuTime {
                run: Amount::from_nanos(446_699),
                wait: Span::from_nanos(66_509),
                runs: 1
            })
        );
        for bad in [&b""[..], b"12", b"12 13", b"x y z", b"-1 2 3", b"\xff\xfe"] {
            assert_eq!(parse_schedstat(bad), None);
        }
    }

    #[test]
    fn weights_become_the_nearest_nice_levels() {
        let levels = [1, 2, 3, 4, 5, 10, 87, 1000, u32::MAX].map(|w| nice(Weight::new(w).unwrap()));
        assert_eq!(levels, [0, -3, -5, -6, -7, -10, -20, -20, -20]);
    }

    #[test]
    fn a_thread_reads_its_own_accounts() {
        let (page, _fd) = super::super::GatePage::create().unwrap();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mut thread = LinuxThread {
            pid,
            tid: pid,
            schedstat: File::open("/proc/self/schedstat").unwrap(),
            stat: File::open("/proc/thread-self/stat").unwrap(),
            status: File::open("/proc/thread-self/status").unwrap(),
            gate: page.word(0).unwrap(),
            gated: true,
            nice: 0,
        };
        assert!(thread.cpu_time().unwrap().run > Amount::ZERO);
        assert!(thread.is_runnable().unwrap());
        let before = thread.sleeps().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(thread.sleeps().unwrap() > before);
    }

    #[test]
    fn sleeps_are_the_switches_that_a_thread_asked_for() {
        let text = b"Name:\tvcpu 0\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(parse_sleeps(text), Some(17));
        assert_eq!(parse_sleeps(b"nonvoluntary_ctxt_switches:\t4\n"), None);
        assert_eq!(parse_sleeps(b"\xff"), None);
    }

    #[test]
    fn a_thread_of_another_process_is_refused() {
        let (page, _fd) = super::super::GatePage::create().unwrap();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        assert!(LinuxThread::attach(pid, 1, 0, page.word(0).unwrap()).is_err());
    }
}

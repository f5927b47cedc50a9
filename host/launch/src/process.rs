//! Starts a program of ours. It inherits `/dev/null`, stderr and its end of a socket, and nothing
//! else, not even a scheduling class.
//!
//! One thread starts all of them and lives as long as the host process, because they ask the kernel
//! to kill them when their parent *thread* ends (`PR_SET_PDEATHSIG`): a worker of a thread pool
//! that idles out would take them with it.
#![allow(unsafe_code, reason = "posix_spawn with file actions has no safe wrapper")]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{LazyLock, Mutex};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// Descriptor of the socket in a program that was started.
pub const CONTROL_FD: RawFd = 3;

/// A process. Dropping it kills the process and reaps it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    ended: Option<Ended>,
}

/// How a process ended, as the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal (31, `SIGSYS`: it broke its seccomp filter).
    Signalled(i32),
}

impl Process {
    /// Starts the program at `binary`, which is called `name`, with its end of a socket. Its errors
    /// and panics go to `stderr`, or where ours go.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(
        binary: &Path,
        name: &'static CStr,
        control: OwnedFd,
        stderr: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let binary = CString::new(binary.as_os_str().as_bytes())?;
        let pid = on_spawner_thread(Start { binary, name, control, stderr })?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd, ended: None })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor that becomes readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills the process; harmless if it has ended.
    pub fn kill(&self) {
        // The only error is that it is already gone.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Reaps the process if it has ended; `None` if it lives.
    ///
    /// # Errors
    /// Those of `waitid`.
    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits until the process has ended and reaps it.
    ///
    /// # Errors
    /// Those of `waitid`.
    pub fn wait(&mut self) -> io::Result<Ended> {
        self.reap(WaitIdOptions::EXITED)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn reap(&mut self, options: WaitIdOptions) -> io::Result<Option<Ended>> {
        if self.ended.is_none() {
            let wait = || waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
            let Some(status) = rustix::io::retry_on_intr(wait)? else { return Ok(None) };
            let signal = || Ended::Signalled(status.terminating_signal().unwrap_or(0));
            self.ended = Some(status.exit_status().map_or_else(signal, Ended::Exited));
        }
        Ok(self.ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
            let _ = self.wait();
        }
    }
}

/// What is run, how it is called, its end of the socket, and its standard error.
struct Start {
    binary: CString,
    name: &'static CStr,
    control: OwnedFd,
    stderr: Option<OwnedFd>,
}

struct Job {
    start: Start,
    reply: SyncSender<io::Result<Pid>>,
}

static SPAWNER: LazyLock<io::Result<Mutex<Sender<Job>>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("spawner".into()).spawn(move || {
        for job in queue {
            // Nobody waits for the reply only if the asking thread has died.
            let _ = job.reply.send(posix_spawn(&job.start));
        }
    })?;
    Ok(Mutex::new(jobs))
});

/// Starts the thread that starts processes, now and by the calling thread: it may do what its maker
/// may, and later ones may be forbidden to run anything.
///
/// # Errors
/// The kernel refuses a thread.
pub fn prepare_to_spawn() -> io::Result<()> {
    SPAWNER.as_ref().map(drop).map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

fn on_spawner_thread(start: Start) -> io::Result<Pid> {
    let gone = || io::Error::other("the thread that starts processes is gone");
    let spawner = SPAWNER.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
    let (reply, answer) = mpsc::sync_channel(1);
    let job = Job { start, reply };
    spawner.lock().map_err(|_| gone())?.send(job).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// File actions and attributes of one spawn, destroyed with it.
struct Plan {
    actions: libc::posix_spawn_file_actions_t,
    attributes: libc::posix_spawnattr_t,
}

impl Plan {
    fn new(control: RawFd, stderr: Option<RawFd>) -> io::Result<Self> {
        let (mut actions, mut attributes) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both calls initialise the object they are given; glibc's never fail.
        let mut plan = unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            Self { actions: actions.assume_init(), attributes: attributes.assume_init() }
        };
        let (actions, null) = (&raw mut plan.actions, c"/dev/null".as_ptr());
        // SAFETY: `actions` is initialised, and the path is a constant with a terminating zero.
        unsafe {
            if let Some(stderr) = stderr {
                check(libc::posix_spawn_file_actions_adddup2(actions, stderr, 2))?;
            }
            check(libc::posix_spawn_file_actions_adddup2(actions, control, CONTROL_FD))?;
            check(libc::posix_spawn_file_actions_addopen(actions, 0, null, libc::O_RDONLY, 0))?;
            check(libc::posix_spawn_file_actions_addopen(actions, 1, null, libc::O_WRONLY, 0))?;
            check(libc::posix_spawn_file_actions_addclosefrom_np(actions, CONTROL_FD + 1))?;
        }
        plan.set_attributes()?;
        Ok(plan)
    }

    /// Signals as after boot, a process group of its own (the terminal's Ctrl-C is for the host to
    /// handle), and the fair class whatever class the host's threads are in.
    fn set_attributes(&mut self) -> io::Result<()> {
        let attributes = &raw mut self.attributes;
        let (mut none, mut all) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let fair = libc::sched_param { sched_priority: 0 };
        let flags = libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETPGROUP
            | libc::POSIX_SPAWN_SETSCHEDULER;
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: `attributes` is initialised; the signal sets are initialised by the calls that
        // empty and fill them before they are read.
        unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(attributes, none.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(attributes, all.as_ptr()))?;
            check(libc::posix_spawnattr_setpgroup(attributes, 0))?;
            check(libc::posix_spawnattr_setschedpolicy(attributes, libc::SCHED_OTHER))?;
            check(libc::posix_spawnattr_setschedparam(attributes, &raw const fair))?;
            check(libc::posix_spawnattr_setflags(attributes, flags))
        }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: `new` initialised both, and they are destroyed once.
        unsafe {
            libc::posix_spawn_file_actions_destroy(&raw mut self.actions);
            libc::posix_spawnattr_destroy(&raw mut self.attributes);
        }
    }
}

/// The functions of this family return the error number.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

fn posix_spawn(Start { binary, name, control, stderr }: &Start) -> io::Result<Pid> {
    let plan = Plan::new(control.as_raw_fd(), stderr.as_ref().map(AsRawFd::as_raw_fd))?;
    let argv = [name.as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment = [std::ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: the path and the name have terminating zeros, both lists end with a null
    // pointer, and `plan` is initialised and outlives the call.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            binary.as_ptr(),
            &raw const plan.actions,
            &raw const plan.attributes,
            argv.as_ptr(),
            environment.as_ptr(),
        )
    };
    check(error)?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no process id"))
}

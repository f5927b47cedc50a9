//! Tries, from inside each role, what the role must not do, by the system calls themselves. Where a
//! call is not refused it is made with arguments with which it can do no harm.
#![allow(
    unsafe_code,
    reason = "system calls that have no safe wrapper, or must be made as they are"
)]
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io;
use std::os::raw::c_long;
use std::sync::OnceLock;

use moirai_confine::{Role, violations};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities};

use Role::{Dispatcher, Hand, Image, Io, Supervisor, Vsock, Watchdog};

/// Something to try.
struct Attempt {
    what: &'static str,
    call: c_long,
    arguments: [usize; 6],
    /// Who may.
    may: &'static [Role],
}

const fn attempt(
    what: &'static str,
    call: c_long,
    arguments: [usize; 6],
    may: &'static [Role],
) -> Attempt {
    Attempt { what, call, arguments, may }
}

/// No descriptor, no process, no address.
const NOTHING: usize = usize::MAX;
const CODE: usize = (libc::PROT_READ | libc::PROT_EXEC) as usize;
const ANONYMOUS: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
const HERE: usize = libc::AT_FDCWD as usize;
const STREAM: usize = libc::SOCK_STREAM as usize;

/// What nobody may.
fn never() -> Vec<Attempt> {
    // The kernel refuses it with EINVAL: signal handlers cannot be shared without memory.
    let process = libc::CLONE_SIGHAND as usize;
    vec![
        attempt("run", libc::SYS_execve, [NOTHING; 6], &[]),
        attempt("run at", libc::SYS_execveat, [NOTHING; 6], &[]),
        attempt("trace", libc::SYS_ptrace, [NOTHING; 6], &[]),
        attempt("read memory of others", libc::SYS_process_vm_readv, [NOTHING; 6], &[]),
        attempt("take descriptors of others", libc::SYS_pidfd_getfd, [NOTHING; 6], &[]),
        attempt("mount", libc::SYS_mount, [NOTHING; 6], &[]),
        attempt("change the root", libc::SYS_pivot_root, [NOTHING; 6], &[]),
        attempt("leave name spaces", libc::SYS_unshare, [0; 6], &[]),
        attempt("enter name spaces", libc::SYS_setns, [NOTHING; 6], &[]),
        attempt("become root", libc::SYS_setuid, [0; 6], &[]),
        attempt("become root for good", libc::SYS_setresuid, [0; 6], &[]),
        attempt("load a module", libc::SYS_init_module, [NOTHING; 6], &[]),
        attempt("load a kernel", libc::SYS_kexec_load, [NOTHING; 6], &[]),
        attempt("run in the kernel", libc::SYS_bpf, [NOTHING; 6], &[]),
        attempt("count events", libc::SYS_perf_event_open, [NOTHING; 6], &[]),
        attempt("handle faults", libc::SYS_userfaultfd, [NOTHING; 6], &[]),
        attempt("ask for keys", libc::SYS_keyctl, [NOTHING; 6], &[]),
        attempt("open by number", libc::SYS_open_by_handle_at, [NOTHING; 6], &[]),
        attempt("make a process", libc::SYS_clone, [process, 0, 0, 0, 0, 0], &[]),
        attempt("fork", libc::SYS_vfork, [0; 6], &[]),
    ]
}

/// What some may.
fn sometimes() -> Vec<Attempt> {
    let path = c"/proc/self/stat".as_ptr() as usize;
    let null = c"/dev/null".as_ptr() as usize;
    let writable = libc::O_WRONLY as usize;
    let unix = libc::AF_UNIX as usize;
    vec![
        attempt("unmount", libc::SYS_umount2, [NOTHING; 6], &[Supervisor]),
        attempt("signal", libc::SYS_kill, [own_pid(), 0, 0, 0, 0, 0], &[Supervisor]),
        attempt("make a ring", libc::SYS_io_uring_setup, [0; 6], &[Supervisor]),
        attempt(
            "make a socket of the network",
            libc::SYS_socket,
            [libc::AF_INET as usize, STREAM, 0, 0, 0, 0],
            &[Supervisor],
        ),
        attempt(
            "make a socket",
            libc::SYS_socket,
            [unix, STREAM, 0, 0, 0, 0],
            &[Supervisor, Hand, Vsock],
        ),
        attempt("connect", libc::SYS_connect, [NOTHING; 6], &[Supervisor, Hand, Vsock]),
        attempt(
            "open to read",
            libc::SYS_openat,
            [HERE, path, 0, 0, 0, 0],
            &[Supervisor, Hand, Dispatcher, Watchdog],
        ),
        attempt(
            "open to write",
            libc::SYS_openat,
            [HERE, null, writable, 0, 0, 0],
            &[Supervisor, Hand],
        ),
        attempt("remove", libc::SYS_unlink, [NOTHING; 6], &[Supervisor, Hand]),
        attempt("rename", libc::SYS_rename, [NOTHING; 6], &[Supervisor, Hand]),
        attempt(
            "change bytes of a file",
            libc::SYS_pwrite64,
            [NOTHING; 6],
            &[Supervisor, Hand, Image],
        ),
        attempt(
            "set a class",
            libc::SYS_sched_setscheduler,
            [NOTHING; 6],
            &[Supervisor, Dispatcher, Io],
        ),
        attempt(
            "map code",
            libc::SYS_mmap,
            [0, 4096, CODE, ANONYMOUS, NOTHING, 0],
            &[Supervisor, Hand],
        ),
    ]
}

fn own_pid() -> usize {
    usize::try_from(std::process::id()).unwrap()
}

/// Makes the call; the kernel's error number, or 0. What was made is not taken back.
fn make(attempt: &Attempt) -> i32 {
    let [a, b, c, d, e, f] = attempt.arguments;
    // SAFETY: no call of the table reaches memory of this process but the constant paths: the
    // others have no addresses, bad ones, or map anonymous memory where the kernel chooses.
    let result = unsafe { libc::syscall(attempt.call, a, b, c, d, e, f) };
    if result >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() }
}

/// What the thread of a role found: the attempts that did not end as they should.
fn try_all(role: Role) -> Vec<String> {
    role.enter().unwrap();
    let mut wrong = Vec::new();
    for attempt in never().into_iter().chain(sometimes()) {
        let error = make(&attempt);
        let refused = error == libc::EPERM;
        if refused == attempt.may.contains(&role) {
            let what = attempt.what;
            wrong.push(format!("{role:?} tried to {what}: error {error}"));
        }
    }
    let more = CapabilitySet::SETUID | CapabilitySet::SYS_PTRACE;
    let more = CapabilitySets { effective: more, permitted: more, inheritable: more };
    if rustix::thread::set_capabilities(None, more).is_ok() {
        wrong.push(format!("{role:?} gave itself capabilities"));
    }
    // glibc blocks all signals while it makes a process or a thread.
    if std::process::Command::new("/bin/true").status().is_ok() {
        wrong.push(format!("{role:?} has run a program"));
    }
    let thread = std::thread::Builder::new().spawn(|| ()).map(std::thread::JoinHandle::join);
    if thread.is_ok() != matches!(role, Supervisor | Hand | Io) {
        wrong.push(format!("{role:?} made a thread: {thread:?}"));
    }
    wrong
}

/// Compartments once for the whole test program, by a thread that makes all others.
fn within<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    static BEGUN: OnceLock<Vec<String>> = OnceLock::new();
    let thread = std::thread::spawn(move || {
        let missing = BEGUN.get_or_init(|| moirai_confine::begin().unwrap());
        assert!(missing.is_empty(), "this machine cannot show it: {missing:?}");
        f()
    });
    thread.join().unwrap()
}

/// One test, because the first thread to begin is the maker of all that follow.
#[test]
fn each_role_is_refused_what_it_must_not_do() {
    let wrong = within(|| {
        let each = |role| std::thread::spawn(move || try_all(role)).join().unwrap();
        let wrong: Vec<_> = Role::ALL.into_iter().flat_map(each).collect();
        assert!(violations().1 > Role::ALL.len(), "what was refused is not told");
        assert_eq!(violations(), (Vec::new(), 0), "it is told once");

        let (thread, call) = std::thread::spawn(|| {
            Role::Log.enter().unwrap();
            make(&attempt("connect", libc::SYS_connect, [NOTHING; 6], &[]));
            (rustix::thread::gettid().as_raw_nonzero().get(), libc::SYS_connect)
        })
        .join()
        .unwrap();
        let (seen, made) = violations();
        assert_eq!(made, 1);
        assert_eq!(i64::from(seen[0].call), call);
        assert_eq!(i64::from(seen[0].thread), i64::from(thread));

        // Files by Landlock, where the filter allows to read.
        for role in [Dispatcher, Watchdog] {
            let open = move || {
                role.enter().unwrap();
                let outside = std::fs::File::open("/etc/passwd").unwrap_err();
                (outside.kind(), std::fs::File::open("/proc/stat").is_ok())
            };
            let found = std::thread::spawn(open).join().unwrap();
            assert_eq!(found, (io::ErrorKind::PermissionDenied, true), "{role:?}");
        }

        // A thread that has a role makes threads with no more than it has.
        let made = std::thread::spawn(|| {
            Io.enter().unwrap();
            let inner = || {
                let all = std::fs::File::open("/proc/stat").map(drop);
                (all.unwrap_err().kind(), capabilities(None).unwrap().permitted)
            };
            std::thread::spawn(inner).join().unwrap()
        });
        let (error, powers) = made.join().unwrap();
        assert_eq!(error, io::ErrorKind::PermissionDenied);
        assert!(CapabilitySet::SYS_NICE.contains(powers), "{powers:?}");
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

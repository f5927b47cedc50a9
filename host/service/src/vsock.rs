//! The host's side of a tenant's vsock (`docs/design/0007-linux-tenants.md`): clients of the host
//! come to `STATE_DIR/NAME.vsock` and say which port of the guest they want; connections of the
//! guest to port P go to `STATE_DIR/NAME.vsock_P`, if somebody listens there.
//!
//! One thread per tenant, which only introduces: connected sockets go to the tenant process, and no
//! byte of a stream passes here. It waits for nobody. What the tenant process says is hostile: it
//! names a number, and the number becomes a file name below the state directory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use moirai_confine::Role;
use moirai_launch::ChannelError;
use moirai_launch::channel::Channel;
use moirai_launch::handover::{FromTenant, HostHandover, ToTenant};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags, chmod, fchmod, fcntl_getfl, fcntl_setfl, unlink};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, socket_with, socketpair,
};

/// Clients that may connect before they are looked at.
const BACKLOG: i32 = 16;
/// Clients that have not finished their first line. The one that has been silent for longest makes
/// room for the next.
const MAX_NEWCOMERS: usize = 32;
/// Longest first line: `CONNECT 4294967295`.
const MAX_LINE_BYTES: usize = 18;

/// A tenant's vsock, as long as this lives. Dropping it removes the socket of the host; streams go
/// on until either end closes them.
#[derive(Debug)]
pub struct Vsock {
    path: PathBuf,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Vsock {
    /// Listens for the clients of tenant `name` on a socket with these permissions (0600: only this
    /// user). Returns the end of the hand-over socket that belongs to the tenant process
    /// ([`moirai_launch::LaunchFds::own_devices`]).
    ///
    /// # Errors
    /// The path is too long for a socket (107 bytes), or the kernel refuses.
    pub fn start(state_dir: &Path, name: &str, mode: u32) -> io::Result<(Self, OwnedFd)> {
        let path = state_dir.join(format!("{name}.vsock"));
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Only ours: the tenant process has a file description of its own.
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let server = Server {
            listener: listener(&path, Mode::from_raw_mode(mode))?,
            handover: Channel::new(ours),
            stop: stop.try_clone()?,
            path: path.clone(),
            newcomers: VecDeque::new(),
        };
        let thread = std::thread::Builder::new().name(format!("vsock {name}"));
        let thread = Some(thread.spawn(move || {
            Role::Vsock.enter_or_say();
            server.run();
        })?);
        Ok((Self { path, stop, thread }, theirs))
    }

    /// Where clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // Cannot fail: nobody else writes to it.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported already.
            let _ = thread.join();
        }
        // Gone already if somebody has tidied up.
        let _ = unlink(&self.path);
    }
}

fn listener(path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path).map_err(|errno| match errno {
        Errno::NAMETOOLONG => io::Error::other(format!(
            "{} is too long for the name of a socket; choose a shorter `state_dir`",
            path.display()
        )),
        errno => errno.into(),
    })?;
    match unlink(path) {
        // A host service that was killed has left it behind.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file inherits the permissions, less the process's mask: it is never wider than asked for.
    fchmod(&socket, mode)?;
    bind(&socket, &address)?;
    chmod(path, mode)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn watch(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

/// A client that has not said what it wants.
#[derive(Debug)]
struct Newcomer {
    socket: OwnedFd,
    line: Vec<u8>,
}

/// What came of listening to a client.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// It has not said everything.
    Part,
    /// It wants this port.
    Port(u32),
    /// It does not speak this protocol, or is gone.
    Nonsense,
}

impl Newcomer {
    /// Reads its first line, a byte at a time: what follows belongs to the guest.
    fn listen(&mut self) -> Heard {
        loop {
            let mut byte = [0];
            match recv(&self.socket, &mut byte, RecvFlags::DONTWAIT) {
                Ok((1, _)) if byte == *b"\n" => return port(&self.line),
                Ok((1, _)) if self.line.len() < MAX_LINE_BYTES => self.line.push(byte[0]),
                Err(Errno::AGAIN) => return Heard::Part,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return Heard::Nonsense,
            }
        }
    }
}

fn port(line: &[u8]) -> Heard {
    let digits = line.strip_prefix(b"CONNECT ").unwrap_or_default();
    let number = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    number.and_then(|text| text.parse().ok()).map_or(Heard::Nonsense, Heard::Port)
}

struct Server {
    listener: OwnedFd,
    handover: HostHandover,
    stop: OwnedFd,
    path: PathBuf,
    newcomers: VecDeque<Newcomer>,
}

impl Server {
    /// Introduces until it is stopped or the tenant process is gone.
    fn run(mut self) {
        loop {
            let fixed = [self.stop.as_fd(), self.handover.as_fd(), self.listener.as_fd()];
            let clients = self.newcomers.iter().map(|newcomer| newcomer.socket.as_fd());
            let mut fds: Vec<_> = fixed.into_iter().chain(clients).map(watch).collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "vsock stands still");
                    return;
                }
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let (fixed, clients) = ready.split_at(3.min(ready.len()));
            if fixed.first() == Some(&true) {
                return;
            }
            self.hear(clients);
            if fixed.get(1) == Some(&true) && !self.answer() {
                return;
            }
            if fixed.get(2) == Some(&true) {
                self.welcome();
            }
        }
    }

    fn welcome(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else { return };
        if self.newcomers.len() >= MAX_NEWCOMERS {
            self.newcomers.pop_front();
        }
        self.newcomers.push_back(Newcomer { socket, line: Vec::new() });
    }

    /// Listens to the clients that have said something.
    fn hear(&mut self, ready: &[bool]) {
        let newcomers = std::mem::take(&mut self.newcomers);
        for (mut newcomer, ready) in newcomers.into_iter().zip(ready) {
            match if *ready { newcomer.listen() } else { Heard::Part } {
                Heard::Part => self.newcomers.push_back(newcomer),
                // If the tenant process does not take it, dropping it hangs up.
                Heard::Port(port) => {
                    let fds = [newcomer.socket.as_fd()];
                    let _ = self.handover.send(&ToTenant::Connect { port }, &fds);
                }
                Heard::Nonsense => {}
            }
        }
    }

    /// One question of the tenant process. `false` if it is gone.
    fn answer(&self) -> bool {
        match self.handover.receive() {
            Ok((FromTenant::Open { port, id }, _)) => {
                let socket = self.open(port);
                let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                // A tenant process that does not take its answers has asked in vain.
                let _ = self.handover.send(&ToTenant::Opened { id }, &fds);
                true
            }
            Err(ChannelError::Io(error)) => error.kind() == io::ErrorKind::WouldBlock,
            Err(ChannelError::Malformed(_) | ChannelError::Truncated) => true,
            Err(_) => false,
        }
    }

    /// Connects with whoever listens for the guest on `port`, without waiting for a listener that
    /// is busy.
    fn open(&self, port: u32) -> Option<OwnedFd> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let address = SocketAddrUnix::new(Path::new(&path)).ok()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        connect(&socket, &address).ok()?;
        Some(socket)
    }
}

#[cfg(test)]
#[path = "vsock_tests.rs"]
mod tests;

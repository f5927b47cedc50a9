//! The roles of the host service's threads, and what each may do.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use moirai_sandbox::{Filter, Program, leave_files};
use rustix::thread::CapabilitySet;

use crate::{calls, has_begun, powers};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first thread, when the start is over: hears signals, makes hands, ends everything.
    Supervisor,
    /// Carries out requests, or supervises a tenant.
    Hand,
    /// Keeps the CPU contracts of a core.
    Dispatcher,
    /// Serves disks and links.
    Io,
    /// Maps a guest's memory in or out.
    Memory,
    /// Asks and changes the tables of an image.
    Image,
    /// Speaks HTTP.
    Api,
    /// Introduces the clients of a tenant's vsock.
    Vsock,
    /// Waits for the peers of an export.
    Export,
    /// Measures the noise of the machine.
    Probe,
    /// Names threads that do not come back, and what was refused.
    Watchdog,
    /// Looks whether contracts are kept.
    Kept,
    /// Writes the log.
    Log,
}

/// What of the file system can still be opened.
enum Files {
    /// Whatever its maker could.
    AsBefore,
    /// Below `/proc`, for reading.
    Proc,
    /// Nothing.
    None,
}

/// What a role may do, as its threads install it.
struct Bounds {
    powers: CapabilitySet,
    files: Files,
    filter: fn() -> Filter,
    /// It makes threads, and must not make processes.
    makes_threads: bool,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 13] = [
        Self::Supervisor,
        Self::Hand,
        Self::Dispatcher,
        Self::Io,
        Self::Memory,
        Self::Image,
        Self::Api,
        Self::Vsock,
        Self::Export,
        Self::Probe,
        Self::Watchdog,
        Self::Kept,
        Self::Log,
    ];

    /// Leaves the calling thread what the role needs, for good, and so the threads that it makes
    /// from now on. Without [`begin`](crate::begin) it changes nothing.
    ///
    /// # Errors
    /// The kernel refuses a step; the thread may have lost a part of what it had.
    pub fn enter(self) -> io::Result<()> {
        if !has_begun() {
            return Ok(());
        }
        let bounds = self.bounds();
        powers::keep(bounds.powers)?;
        let signals = bounds.powers.contains(CapabilitySet::KILL);
        let files: Option<&[&Path]> = match bounds.files {
            Files::AsBefore => None,
            Files::Proc => Some(&[Path::new("/proc")]),
            Files::None => Some(&[]),
        };
        // That the kernel has none is said by `begin`.
        let _ =
            files.map(|files| leave_files(files, signals)).transpose().map_err(io::Error::other)?;
        if bounds.makes_threads {
            program(&NO_CLONE3, calls::no_clone3)?.install()?;
            program(&THREADS_ONLY, calls::threads_only)?.install()?;
        } else {
            program(&ALONE, calls::alone)?.install()?;
        }
        let place = PROGRAMS.get(self as usize).ok_or(io::ErrorKind::NotFound)?;
        program(place, bounds.filter)?.install()
    }

    /// The same for a thread whose work is needed in any case: says in the log what it has kept.
    pub fn enter_or_say(self) {
        if let Err(error) = self.enter() {
            tracing::error!(role = ?self, %error, "a thread has kept rights that it does not need");
        }
    }

    fn bounds(self) -> Bounds {
        const NONE: CapabilitySet = CapabilitySet::empty();
        const NICE: CapabilitySet = CapabilitySet::SYS_NICE;
        const KILL: CapabilitySet = CapabilitySet::KILL;
        const FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
        let of = |powers, files, filter: fn() -> Filter| Bounds {
            powers,
            files,
            filter,
            makes_threads: false,
        };
        let makes_threads = |bounds| Bounds { makes_threads: true, ..bounds };
        match self {
            Self::Supervisor => {
                let powers = CapabilitySet::SYS_ADMIN | KILL | FILES;
                makes_threads(of(powers, Files::AsBefore, calls::supervisor))
            }
            Self::Hand => makes_threads(of(KILL | FILES, Files::AsBefore, calls::hand)),
            Self::Dispatcher => of(NICE | KILL, Files::Proc, calls::dispatcher),
            Self::Io => makes_threads(of(NICE, Files::None, calls::io)),
            // The thread that makes it can open none either.
            Self::Memory => of(NONE, Files::AsBefore, calls::memory),
            // It ends its process, which has a user of its own.
            Self::Image => of(KILL, Files::None, calls::image),
            Self::Api => of(NONE, Files::None, calls::api),
            // Sockets of other users are connected to.
            Self::Vsock => of(FILES, Files::None, calls::vsock),
            Self::Export => of(NONE, Files::None, calls::export),
            Self::Probe => of(NONE, Files::None, calls::probe),
            Self::Watchdog => of(NONE, Files::Proc, calls::watchdog),
            Self::Kept | Self::Log => of(NONE, Files::None, calls::common),
        }
    }
}

static PROGRAMS: [OnceLock<Program>; Role::ALL.len()] =
    [const { OnceLock::new() }; Role::ALL.len()];
static NO_CLONE3: OnceLock<Program> = OnceLock::new();
static THREADS_ONLY: OnceLock<Program> = OnceLock::new();
static ALONE: OnceLock<Program> = OnceLock::new();

/// Compiled once: a guest's memory comes and goes, each time with a thread.
fn program(
    place: &'static OnceLock<Program>,
    filter: fn() -> Filter,
) -> io::Result<&'static Program> {
    if let Some(made) = place.get() {
        return Ok(made);
    }
    let made = filter().program()?;
    Ok(place.get_or_init(|| made))
}

/// Whether the kernel restricts files; asked by a thread that ends.
pub(crate) fn has_landlock() -> bool {
    std::thread::spawn(|| leave_files(&[], false).is_ok_and(|restricted| restricted))
        .join()
        .unwrap_or(false)
}

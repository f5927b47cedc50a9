//! `moirai-tenant run IMAGE`: plays the host service for one VM without devices. The console is on
//! stdin and stdout; SIGTERM presses the power button, a second one ends the VM. For tests,
//! measurements and debugging.
#![allow(unsafe_code, reason = "signalfd has no safe wrapper")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use thiserror::Error;
use vmm_sys_util::signal::{block_signal, create_sigset};

use moirai_launch::{
    Boot, ChannelError, Child, ExitReason, FromHost, KvmError, LaunchFds, LaunchSpec, Sandbox,
    SpawnError, ToHost, Transport,
};

const USAGE: &str = "usage: moirai-tenant run IMAGE [--initrd FILE] [--cmdline WORDS] \
                     [--memory 64M] [--vcpus 1] [--boot auto|pvh|ring3] [--transport mmio|pci] \
                     [--prefault] [--no-sandbox] [--time]";

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// Bad arguments.
    #[error("{0}\n{USAGE}")]
    Usage(String),
    /// The image or the initrd cannot be opened.
    #[error("cannot open {path}: {error}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// No KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The tenant process cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The tenant process died.
    #[error("the tenant process died: {0}")]
    Channel(#[from] ChannelError),
    /// The VM cannot be built.
    #[error("{error}; {hint}")]
    Failed {
        /// What went wrong.
        error: String,
        /// What to do.
        hint: String,
    },
    /// The guest did not end by itself.
    #[error("{0}")]
    Ended(ExitReason),
    /// The kernel.
    #[error(transparent)]
    System(#[from] io::Error),
}

struct Options {
    image: PathBuf,
    initrd: Option<PathBuf>,
    spec: LaunchSpec,
    time: bool,
}

/// Runs one VM until it ends.
///
/// # Errors
/// Bad arguments, a launch that fails, a guest that crashes.
pub fn main(arguments: &[String]) -> Result<ExitCode, RunError> {
    let options = parse(arguments)?;
    let open = |path: &PathBuf| {
        open_regular(path).map_err(|error| RunError::Open { path: path.clone(), error })
    };
    let stop = stop_signal()?;
    let (console, theirs) = UnixStream::pair()?;
    let fds = LaunchFds {
        kvm: moirai_launch::open_kvm()?,
        image: open(&options.image)?,
        console: theirs.into(),
        gate: open_gates()?,
        initrd: options.initrd.as_ref().map(open).transpose()?,
        devices: Vec::new(),
        own_devices: Vec::new(),
    };
    let binary = std::env::current_exe()?;
    let start = Instant::now();
    let child = moirai_launch::spawn(&binary, &options.spec, fds)?;
    pump(&child, console, &stop, options.time.then_some(start))
}

/// Opens a file; a pipe or a device would never end.
fn open_regular(path: &Path) -> io::Result<OwnedFd> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file.into());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// Becomes readable when somebody wants this process to end.
fn stop_signal() -> io::Result<OwnedFd> {
    block_signal(libc::SIGTERM).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let signals = create_sigset(&[libc::SIGTERM])?;
    // SAFETY: the set is initialised and outlives the call.
    let fd = unsafe { libc::signalfd(-1, &raw const signals, libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A gate page with all gates open.
///
/// # Errors
/// Those of `memfd_create` and its kin.
pub fn open_gates() -> io::Result<OwnedFd> {
    let page = memfd_create("moirai-gate", MemfdFlags::CLOEXEC)?;
    ftruncate(&page, 4096)?;
    let open: Vec<u8> = (0..1024).flat_map(|_| 1u32.to_ne_bytes()).collect();
    rustix::io::pwrite(&page, &open, 0)?;
    Ok(page)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Console,
    Control,
    Input,
    Stop,
}

/// Carries the console to and fro until the VM has ended.
fn pump(
    child: &Child,
    mut console: UnixStream,
    stop: &OwnedFd,
    mut time: Option<Instant>,
) -> Result<ExitCode, RunError> {
    let mut buffer = [0; 4096];
    let (mut stdin_open, mut console_open, mut stopping) = (true, true, false);
    loop {
        // The console first: a message about the end counts only when the console is drained, so
        // that nothing of it is lost.
        let stdin = io::stdin();
        let control = child.control().as_fd();
        let mut sources: Vec<(Source, BorrowedFd<'_>)> = Vec::new();
        if console_open {
            sources.push((Source::Console, console.as_fd()));
        }
        sources.extend([(Source::Control, control), (Source::Stop, stop.as_fd())]);
        if stdin_open {
            sources.push((Source::Input, stdin.as_fd()));
        }
        match first_ready(&sources)? {
            Source::Console => {
                let len = console.read(&mut buffer)?;
                console_open = len > 0;
                if let Some(start) = time.take() {
                    eprintln!("first guest byte after {} us", start.elapsed().as_micros());
                }
                io::stdout().write_all(buffer.get(..len).unwrap_or_default())?;
                io::stdout().flush()?;
            }
            Source::Control => {
                if let Some(code) = report(child)? {
                    return Ok(code);
                }
            }
            Source::Stop => {
                rustix::io::read(stop, &mut buffer).map_err(io::Error::from)?;
                let command = if stopping { FromHost::Kill } else { FromHost::Stop };
                child.control().send(&command, &[])?;
                stopping = true;
            }
            Source::Input => {
                let len = io::stdin().read(&mut buffer)?;
                stdin_open = len > 0;
                // A guest that has ended reads no more; the control socket says why.
                let _ = console.write_all(buffer.get(..len).unwrap_or_default());
            }
        }
    }
}

/// Waits; the first of `sources` that has something.
fn first_ready(sources: &[(Source, BorrowedFd<'_>)]) -> io::Result<Source> {
    let mut fds: Vec<_> =
        sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
    let ready = fds.iter().position(|fd| !fd.revents().is_empty());
    let source = ready.and_then(|index| sources.get(index));
    source.map(|(source, _)| *source).ok_or_else(|| io::Error::other("poll found nothing"))
}

/// Takes one message of the tenant process.
fn report(child: &Child) -> Result<Option<ExitCode>, RunError> {
    match child.control().receive()?.0 {
        ToHost::Running { missing, .. } => {
            for sentence in missing {
                eprintln!("moirai-tenant: sandbox: {sentence}");
            }
            Ok(None)
        }
        ToHost::Balloon(_) => Ok(None),
        ToHost::Failed { error, hint, .. } => Err(RunError::Failed { error, hint }),
        ToHost::Exited { reason: ExitReason::PowerOff, .. } => {
            eprintln!("moirai-tenant: the guest has powered off");
            Ok(Some(ExitCode::SUCCESS))
        }
        ToHost::Exited { reason: ExitReason::Reset, .. } => {
            eprintln!("moirai-tenant: the guest has reset the machine");
            Ok(Some(ExitCode::SUCCESS))
        }
        ToHost::Exited { reason, .. } => Err(RunError::Ended(reason)),
    }
}

fn parse(arguments: &[String]) -> Result<Options, RunError> {
    let usage = |text: &str| RunError::Usage(text.to_owned());
    let mut words = arguments.iter();
    if words.next().map(String::as_str) != Some("run") {
        return Err(usage("this process is started by the host service, or as `run`"));
    }
    let image = words.next().ok_or_else(|| usage("no image"))?.into();
    let mut spec = LaunchSpec {
        name: "run".to_owned(),
        memory_bytes: 64 << 20,
        prefault: false,
        huge_pages: false,
        vcpus: 1,
        cmdline: String::new(),
        boot: Boot::Auto,
        initrd: false,
        transport: Transport::Mmio,
        devices: Vec::new(),
        own_devices: Vec::new(),
        sandbox: Sandbox::default(),
    };
    let (mut time, mut initrd) = (false, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| usage(&format!("{word} needs a value")));
        match word.as_str() {
            "--memory" => spec.memory_bytes = size(value()?).ok_or_else(|| usage("bad size"))?,
            "--vcpus" => spec.vcpus = value()?.parse().map_err(|_| usage("bad --vcpus"))?,
            "--cmdline" => spec.cmdline.clone_from(value()?),
            "--boot" => spec.boot = boot(value()?).ok_or_else(|| usage("bad --boot"))?,
            "--initrd" => initrd = Some(value()?.into()),
            "--transport" => {
                spec.transport = transport(value()?).ok_or_else(|| usage("bad --transport"))?;
            }
            "--prefault" => spec.prefault = true,
            "--no-sandbox" => spec.sandbox.enabled = false,
            "--time" => time = true,
            _ => return Err(usage(&format!("unknown option {word}"))),
        }
    }
    spec.initrd = initrd.is_some();
    Ok(Options { image, initrd, spec, time })
}

fn transport(word: &str) -> Option<Transport> {
    match word {
        "mmio" => Some(Transport::Mmio),
        "pci" => Some(Transport::Pci),
        _ => None,
    }
}

fn boot(word: &str) -> Option<Boot> {
    match word {
        "auto" => Some(Boot::Auto),
        "pvh" => Some(Boot::Pvh),
        "ring3" => Some(Boot::Ring3),
        _ => None,
    }
}

/// Bytes of a size like `64M`.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 10),
        Some(digits) if text.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

//! `moirai-tenant run IMAGE`: plays the host service for one VM without devices. The console is on
//! stdin and stdout. For tests, measurements and debugging.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use thiserror::Error;

use crate::launch::{
    self, Boot, ChannelError, Child, ExitReason, KvmError, LaunchFds, LaunchSpec, Sandbox,
    SpawnError, ToHost, Transport,
};

const USAGE: &str = "usage: moirai-tenant run IMAGE [--memory 64M] [--vcpus 1] [--cmdline WORDS] \
                     [--boot auto|pvh|ring3] [--prefault] [--no-sandbox] [--time]";

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// Bad arguments.
    #[error("{0}\n{USAGE}")]
    Usage(String),
    /// The image cannot be opened.
    #[error("cannot open the image {path}: {error}")]
    Image {
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
    #[error("the VM ended: {0:?}")]
    Ended(ExitReason),
    /// The kernel.
    #[error(transparent)]
    System(#[from] io::Error),
}

struct Options {
    image: PathBuf,
    spec: LaunchSpec,
    time: bool,
}

/// Runs one VM until it ends.
///
/// # Errors
/// Bad arguments, a launch that fails, a guest that crashes.
pub fn main(arguments: &[String]) -> Result<ExitCode, RunError> {
    let options = parse(arguments)?;
    let image = File::open(&options.image)
        .map_err(|error| RunError::Image { path: options.image.clone(), error })?;
    let (console, theirs) = UnixStream::pair()?;
    let fds = LaunchFds {
        kvm: launch::open_kvm()?,
        image: image.into(),
        console: theirs.into(),
        gate: open_gates()?,
        initrd: None,
        devices: Vec::new(),
        own_devices: Vec::new(),
    };
    let binary = std::env::current_exe()?;
    let start = Instant::now();
    let child = launch::spawn(&binary, &options.spec, fds)?;
    pump(&child, console, options.time.then_some(start))
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

/// Carries the console to and fro until the VM has ended.
fn pump(
    child: &Child,
    mut console: UnixStream,
    mut time: Option<Instant>,
) -> Result<ExitCode, RunError> {
    let mut buffer = [0; 4096];
    let (mut stdin_open, mut console_open) = (true, true);
    loop {
        let watch = |open| if open { PollFlags::IN } else { PollFlags::empty() };
        let stdin = io::stdin();
        let (input, output) = (stdin.as_fd(), console.as_fd());
        let mut fds = [
            PollFd::from_borrowed_fd(child.control().as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(if console_open { output } else { input }, PollFlags::IN),
            PollFd::from_borrowed_fd(input, watch(stdin_open)),
        ];
        let count = if stdin_open {
            3
        } else if console_open {
            2
        } else {
            1
        };
        let (watched, _) = fds.split_at_mut(count);
        rustix::io::retry_on_intr(|| poll(watched, None)).map_err(io::Error::from)?;
        let [control, output, input] = fds.map(|fd| !fd.revents().is_empty());
        if output && console_open {
            let len = console.read(&mut buffer)?;
            console_open = len > 0;
            if let Some(start) = time.take() {
                eprintln!("first guest byte after {} us", start.elapsed().as_micros());
            }
            io::stdout().write_all(buffer.get(..len).unwrap_or_default())?;
            io::stdout().flush()?;
        } else if control {
            // Only when the console is drained, so that nothing of it is lost.
            if let Some(code) = report(child)? {
                return Ok(code);
            }
        }
        if input && stdin_open && !control {
            let len = io::stdin().read(&mut buffer)?;
            stdin_open = len > 0;
            console.write_all(buffer.get(..len).unwrap_or_default())?;
        }
    }
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
        ToHost::Failed { error, hint, .. } => Err(RunError::Failed { error, hint }),
        ToHost::Exited { reason: ExitReason::PowerOff | ExitReason::Reset, .. } => {
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
    let mut time = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| usage(&format!("{word} needs a value")));
        match word.as_str() {
            "--memory" => spec.memory_bytes = size(value()?).ok_or_else(|| usage("bad size"))?,
            "--vcpus" => spec.vcpus = value()?.parse().map_err(|_| usage("bad --vcpus"))?,
            "--cmdline" => spec.cmdline.clone_from(value()?),
            "--boot" => spec.boot = boot(value()?).ok_or_else(|| usage("bad --boot"))?,
            "--prefault" => spec.prefault = true,
            "--no-sandbox" => spec.sandbox.enabled = false,
            "--time" => time = true,
            _ => return Err(usage(&format!("unknown option {word}"))),
        }
    }
    Ok(Options { image, spec, time })
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

//! An emulated machine, from its start to its end.
//!
//! The machine writes a file every five seconds (`beat`). If nothing has run in a machine for three
//! minutes, it stands still: `lab` keeps the registers and stacks of its processors and ends it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::place::{Place, quoted};
use super::terminal::Raw;
use crate::run::{Ending, bounded};

/// Between two looks at the beat.
const LOOK: Duration = Duration::from_secs(5);
/// Looks that find nothing new until a machine is taken to stand still. They are counted, and not
/// the time, because the development machine may stand still, too.
const PATIENCE: u32 = 36;

/// How a machine ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its command, which had this status.
    Command(u8),
    /// Before its command did.
    Early { reason: String, stood_still: bool },
}

/// Where the machine's second serial port, its command's terminal, is read from.
#[derive(Debug)]
pub(super) enum Input<'a> {
    Nothing,
    /// Our standard input.
    Ours(&'a Raw),
}

/// Runs a shell command in a machine. `disks` are its volumes from /dev/vdb on; what it writes
/// there is forgotten. `output` gets what the command says.
pub(super) fn boot<T: Send>(
    place: &Place,
    command: &str,
    disks: &[PathBuf],
    limit: Duration,
    input: Input<'_>,
    output: impl FnOnce(io::PipeReader) -> T + Send,
) -> io::Result<(End, T)> {
    prepare(place, command)?;
    let mut emulator = emulator(place, "serial", &words(place));
    attach(&mut emulator, place, disks);
    let last_words = match input {
        Input::Nothing => {
            emulator.stdin(Stdio::null());
            ":"
        }
        Input::Ours(raw) => {
            emulator.stdin(Stdio::piped());
            raw.restore()
        }
    };
    let (mut stood_still, mut late, mut watch) = (false, false, Watch::new(LOOK));
    let stop = |elapsed| {
        late = elapsed >= limit;
        stood_still = !late && watch.stands_still(elapsed, &place.run.join("beat"));
        if stood_still {
            autopsy(place);
        }
        late || stood_still
    };
    let (ending, said) = bounded::watch(&mut emulator, last_words, stop, output)?;
    let status = fs::read_to_string(place.run.join("status")).unwrap_or_default();
    if let Ok(status) = status.trim().parse() {
        return Ok((End::Command(status), said));
    }
    let why = match ending {
        Ending::Stopped if stood_still => "THE MACHINE STANDS STILL".to_owned(),
        Ending::Stopped => {
            format!("the machine has not come to its end within {} s", limit.as_secs())
        }
        Ending::Exited(_) => "the machine ended before the command did".to_owned(),
    };
    let reason =
        format!("{why}; the end of its serial log:\n{}", tail(&place.run.join("serial.log"), 40));
    Ok((End::Early { reason, stood_still }, said))
}

/// What the machine finds in the folder of the run, and nothing of the machine before it.
fn prepare(place: &Place, command: &str) -> io::Result<()> {
    let run = &place.run;
    for old in ["status", "beat", "serial.log", "serial.monitor"] {
        let _ = fs::remove_file(run.join(old));
    }
    let beat = quoted(&run.join("beat").to_string_lossy());
    let script = format!("while :; do echo >{beat}; sleep 5; done &\n{command}\n");
    fs::write(run.join("command"), script)?;
    fs::write(run.join("folder"), std::env::current_dir()?.to_string_lossy().as_bytes())?;
    let disk = run.join("disk");
    File::create(&disk)?.set_len(4 << 30)?;
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"])
        .arg(&disk)
        .status()?;
    if made.success() { Ok(()) } else { Err(io::Error::other("mke2fs could not make the disk")) }
}

fn words(place: &Place) -> String {
    let (share, run) = (place.lab.join("share"), &place.run);
    format!("lab.share={} lab.run={}", share.display(), run.display())
}

/// The emulator with what all machines have in common. It runs in the run's folder, because the
/// path of a socket must be short. The kernel's messages go to `NAME.log` there.
pub(super) fn emulator(place: &Place, name: &str, words: &str) -> Command {
    let mut command = Command::new(&place.emulator);
    command.current_dir(&place.run);
    command.args(["-L", "/usr/share/seabios", "-L", "/usr/share/qemu"]);
    command.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-nodefaults", "-no-user-config"]);
    command.args(["-no-reboot", "-display", "none", "-kernel"]);
    command.arg(place.lab.join("machine/vmlinux"));
    command.args(["-append", &format!("console=ttyS0 quiet panic=-1 tsc=reliable {words}")]);
    command.args(["-monitor", &format!("unix:{name}.monitor,server=on,wait=off")]);
    command.args(["-serial", &format!("file:{name}.log")]);
    command
}

/// Devices of a machine that runs a command.
fn attach(command: &mut Command, place: &Place, disks: &[PathBuf]) {
    let machine = &place.machine;
    command.args(["-smp", &machine.cpus.to_string(), "-m", &machine.memory, "-initrd"]);
    command.arg(place.lab.join("machine/initramfs.cpio"));
    command.args(["-chardev", "stdio,id=tty,signal=off", "-serial", "chardev:tty"]);
    command.args(["-drive", "file=disk,format=raw,if=virtio,cache=unsafe,discard=unmap"]);
    for disk in disks {
        let options = "format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap";
        command.args(["-drive", &format!("file={},{options}", disk.display())]);
    }
    let share = place.lab.join("share");
    let shared = "security_model=none,multidevs=remap";
    command.args(["-virtfs", &format!("local,path=/,mount_tag=root,readonly=on,{shared}")]);
    command.args(["-virtfs", &format!("local,path={},mount_tag=share,{shared}", share.display())]);
}

/// Whether a machine stands still.
#[derive(Debug)]
struct Watch {
    every: Duration,
    next: Duration,
    last: Option<SystemTime>,
    same: u32,
}

impl Watch {
    fn new(every: Duration) -> Self {
        Self { every, next: every, last: None, same: 0 }
    }

    fn stands_still(&mut self, elapsed: Duration, beat: &Path) -> bool {
        if elapsed < self.next {
            return false;
        }
        self.next = elapsed + self.every;
        self.look(fs::metadata(beat).and_then(|beat| beat.modified()).ok())
    }

    /// A look at when the machine was last seen to run.
    fn look(&mut self, beat: Option<SystemTime>) -> bool {
        self.same = if beat == self.last { self.same + 1 } else { 0 };
        self.last = beat;
        self.same >= PATIENCE
    }
}

/// What the processors are at: all of it to `logs/standstill`, the registers to the serial log.
fn autopsy(place: &Place) {
    let (run, kept) = (&place.run, place.lab.join("logs/standstill"));
    let said =
        interrogate(run).unwrap_or_else(|error| format!("its monitor does not answer: {error}\n"));
    let _ = fs::write(&kept, &said);
    let Ok(mut log) = OpenOptions::new().append(true).create(true).open(run.join("serial.log"))
    else {
        return;
    };
    let _ = writeln!(log, "lab: THE MACHINE STANDS STILL (all of it is in {})", kept.display());
    for line in said.lines().filter(|line| line.starts_with("CPU#") || line.contains("RIP=")) {
        let _ = writeln!(log, "{line}");
    }
}

/// Asks QEMU's monitor five times, so that what moves is seen to.
fn interrogate(run: &Path) -> io::Result<String> {
    let folder = File::open(run)?;
    // Short enough for a socket.
    let path = format!("/proc/self/fd/{}/serial.monitor", folder.as_raw_fd());
    let mut monitor = UnixStream::connect(path)?;
    monitor.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut said = Vec::new();
    for _ in 0..5 {
        monitor.write_all(b"info registers -a\ncpu 0\nx/100gx $rsp\ncpu 1\nx/100gx $rsp\n")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    // It never closes: the time limit of the read ends this.
    let _ = monitor.read_to_end(&mut said);
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The last lines of a file.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::place::tests::fake;
    use super::*;

    fn run(script: &str, limit: Duration) -> (End, String) {
        let lab = tempfile::tempdir().unwrap();
        let place = fake(lab.path(), script);
        boot(&place, "echo", &[], limit, Input::Nothing, |pipe| io::read_to_string(pipe).unwrap())
            .unwrap()
    }

    #[test]
    fn a_machine_that_runs_its_command_ends_with_its_status_and_output() {
        let (end, said) = run("grep -c echo command; echo 7 >status", Duration::from_secs(60));
        assert_eq!((end, said.as_str()), (End::Command(7), "2\n"));
    }

    #[test]
    fn a_machine_that_ends_early_shows_the_end_of_its_serial_log() {
        let (end, _) = run("echo 'Kernel panic' >serial.log", Duration::from_secs(60));
        let End::Early { reason, stood_still: false } = end else { panic!("{end:?}") };
        assert!(reason.starts_with("the machine ended before the command did; "), "{reason}");
        assert!(reason.ends_with("Kernel panic"), "{reason}");
    }

    #[test]
    fn a_machine_at_its_time_limit_is_ended() {
        let (end, said) = run("echo begins; sleep 600", Duration::from_millis(300));
        let End::Early { reason, stood_still: false } = end else { panic!("{end:?}") };
        assert!(reason.starts_with("the machine has not come to its end within 0 s"), "{reason}");
        assert_eq!(said, "begins\n");
    }

    #[test]
    fn a_machine_whose_beat_stops_for_three_minutes_of_looks_stands_still() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut watch = Watch::new(LOOK);
        for second in 0..100 {
            assert!(!watch.look(at(second)), "it beats");
        }
        for _ in 1..PATIENCE {
            assert!(!watch.look(at(99)), "not for long enough");
        }
        assert!(!watch.look(at(100)), "it beats again");
        for _ in 1..PATIENCE {
            assert!(!watch.look(at(100)));
        }
        assert!(watch.look(at(100)));
        // One that never begins to beat.
        let mut watch = Watch::new(LOOK);
        assert_eq!((0..PATIENCE).filter(|_| watch.look(None)).count(), 1);
    }

    #[test]
    fn looks_are_five_seconds_apart_also_if_asked_all_the_time() {
        let (mut watch, beat) = (Watch::new(LOOK), Path::new("/no/such/file"));
        let still = |second| watch.stands_still(Duration::from_secs(second), beat);
        assert_eq!((0..600).map(still).position(|still| still), Some(180));
    }
}

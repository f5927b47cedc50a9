//! From starting the program to the first byte that the guest writes: Moirai's tenant process
//! beside QEMU's microvm, with the same image and the same memory.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use moirai_tests::root;

use crate::children::Program;
use crate::options::Options;
use crate::pair::Pairs;
use crate::report::{Goal, Report};

/// A guest that says nothing within this time never will.
const LIMIT: Duration = Duration::from_secs(20);
/// The guest ends by itself, soon after it has spoken.
const WORDS: &str = "for_ms=5 report_ms=0";

/// Starts VMs in turn.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    let image = root().join("target/images/carnage");
    let mut within = Vec::new();
    let pairs = Pairs::take(
        options.starts,
        || {
            let (outside, inside) = ours(&image);
            within.extend(inside);
            outside
        },
        || first_byte(&mut qemu(&image)).0,
    );
    report.compare(
        "exec to first guest byte",
        "ms",
        "QEMU microvm, same image",
        pairs,
        Goal::AtMost(3.0),
    );
    report.figure("the same, spawned by a host that runs", "ms", within, Goal::AtMost(3.0));
    report.note(
        "exec: `moirai-tenant run` is two processes, a host and its tenant; the second line begins \
         where the first has just started, as when the host service launches a tenant",
    );
}

/// From outside, and as `moirai-tenant run --time` sees it: milliseconds.
fn ours(image: &Path) -> (f64, Option<f64>) {
    let tenant = root().join("target/release/moirai-tenant");
    let mut command = Command::new(tenant);
    command.arg("run").arg(image).args(["--memory", "64M", "--time", "--cmdline", WORDS]);
    let (outside, said) = first_byte(&mut command);
    let micros = said.split("first guest byte after ").nth(1);
    let micros = micros.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    (outside, micros.map(|micros| micros / 1000.0))
}

fn qemu(image: &PathBuf) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", "microvm,accel=kvm,acpi=off,x-option-roms=off,rtc=off"])
        .args(["-cpu", "host,-arch-capabilities", "-m", "64", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-append", WORDS])
        .arg("-kernel")
        .arg(image);
    command
}

/// Milliseconds until a program's first byte on standard output, and what it wrote on standard
/// error.
fn first_byte(command: &mut Command) -> (f64, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut program = Program::start(command);
    let mut output = program.0.stdout.take().expect("it is piped");
    let mut errors = program.0.stderr.take().expect("it is piped");
    let mut byte = [0];
    let count = output.read(&mut byte).expect("its output can be read");
    let millis = begin.elapsed().as_secs_f64() * 1000.0;
    let drained = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let ended = program.wait(LIMIT);
    drop(program);
    let _ = drained.join();
    let mut said = String::new();
    let _ = errors.read_to_string(&mut said);
    assert!(count == 1 && ended.is_some(), "{:?} does not run the guest: {said}", command);
    (millis, said)
}

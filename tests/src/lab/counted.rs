//! Two machines whose clocks count instructions, with everything in their memory, do the same;
//! their figures have to be the same to the last digit. A third one does it without scheduling.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::machine::{self, emulator};
use super::place::{Log, Place, quoted};
use super::programs;
use crate::run::{Outcome, Tally, bounded};

/// The machines, and what the test program is told: `control` runs without scheduling.
const MACHINES: [(&str, &str); 3] = [("one", "moirai"), ("two", "moirai"), ("control", "control")];
/// What is loaded in them: no disk, no network.
const MODULES: &str = "irqbypass kvm ccp kvm-amd\n";

/// Runs the machines; the figures go to the log, the promises to the tally.
pub(super) fn run(place: &Place, limit: Duration, log: &mut Log) -> io::Result<Tally> {
    let program = programs::build("counted")?;
    let memory = pack(place, &program)?;
    let ran: Vec<io::Result<bounded::Ending>> = thread::scope(|scope| {
        let start = |(name, policy)| {
            let memory = &memory;
            scope.spawn(move || boot(place, memory, name, policy, limit))
        };
        let all: Vec<_> = MACHINES.into_iter().map(start).collect();
        let failed = |_| Err(io::Error::other("a machine's thread has failed"));
        all.into_iter().map(|machine| machine.join().unwrap_or_else(failed)).collect()
    });
    ran.into_iter().collect::<io::Result<Vec<_>>>()?;
    let mut said = MACHINES.map(|_| String::new());
    for (text, (name, _)) in said.iter_mut().zip(MACHINES) {
        for end in ["out", "log"] {
            let file = format!("{name}.{end}");
            let _ = fs::copy(place.run.join(&file), place.lab.join("logs").join(&file));
        }
        let bytes = fs::read(place.run.join(format!("{name}.out"))).unwrap_or_default();
        *text = String::from_utf8_lossy(&bytes).replace('\r', "");
    }
    let [one, two, control] = &said;
    write!(log, "{one}{control}")?;
    Ok(judge(one, two, control, |name| machine::tail(&place.run.join(format!("{name}.log")), 40)))
}

/// What the machines' outputs say. `serial` gives the end of a machine's serial log.
fn judge(one: &str, two: &str, control: &str, serial: impl Fn(&str) -> String) -> Tally {
    let mut tally = Tally::default();
    for line in one.lines() {
        let test = line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... "));
        let Some((name, result)) = test else { continue };
        let outcome = match result {
            "ok" => Outcome::Passed,
            _ => Outcome::Failed("this promise was not kept".to_owned()),
        };
        tally.add(name, outcome, None);
    }
    for (name, said) in [("one", one), ("control", control)] {
        if !said.lines().any(|line| line == "[status 0]") {
            let reason = format!("the machine did not come to its end; its log:\n{}", serial(name));
            tally.add(&format!("counted::{name}"), Outcome::Failed(reason), None);
        }
    }
    let same = two.lines().any(|line| line.starts_with("[status")) && one == two;
    let outcome = if same {
        Outcome::Passed
    } else {
        let pair = one.lines().zip(two.lines()).find(|(a, b)| a != b);
        let pair = pair.unwrap_or(("one of them said more", ""));
        Outcome::Failed(format!("first difference: {:?}, {:?}", pair.0, pair.1))
    };
    tally.add("counted::figures_are_the_same_on_every_run", outcome, None);
    tally
}

/// One machine to its end; its output goes to `NAME.out`.
fn boot(
    place: &Place,
    memory: &Path,
    name: &str,
    policy: &str,
    limit: Duration,
) -> io::Result<bounded::Ending> {
    let words = format!("nokaslr random.trust_cpu=off lab.counted={policy}");
    let mut command = emulator(place, name, &words);
    command.args(["-icount", "shift=2,sleep=off", "-rtc", "base=2026-01-01,clock=vm"]);
    command.args(["-seed", &place.machine.seed.to_string(), "-smp", "1", "-m", "2G", "-initrd"]);
    command.arg(memory).args(["-serial", &format!("file:{name}.out")]).stdin(Stdio::null());
    let quiet = |mut pipe| io::copy(&mut pipe, &mut io::sink()).map(drop);
    Ok(bounded::watch(&mut command, ":", |elapsed| elapsed >= limit, quiet)?.0)
}

/// The machine's file system with all programs and their libraries, as an initial RAM disk.
fn pack(place: &Place, program: &Path) -> io::Result<PathBuf> {
    let tree = place.run.join("tree");
    let [(_, binary), (_, tenant), _, (_, images)] = &place.tested;
    let mut copied = Command::new("cp");
    succeed(copied.arg("-r").arg(place.lab.join("machine/tree")).arg(&tree))?;
    fs::write(tree.join("modules/order"), MODULES)?;
    let inside = |path: &Path| tree.join(path.strip_prefix("/").unwrap_or(path));
    let guest = place.lab.join("guest");
    let mut files = libraries(&[binary.as_path(), program])?;
    files.extend([tenant.clone(), images.join("carnage")]);
    files.extend([guest.join("vmlinux"), guest.join("initramfs.cpio")]);
    for file in [binary, program].into_iter().chain(files.iter().map(PathBuf::as_path)) {
        let to = inside(file);
        fs::create_dir_all(to.parent().unwrap_or(&tree))?;
        if file == binary || file == program {
            succeed(Command::new("strip").arg("-o").arg(&to).arg(file))?;
        } else {
            fs::copy(file, &to)
                .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        }
    }
    let words = quoted(&program.to_string_lossy());
    fs::write(tree.join("counted"), format!("{}{words} \"$1\"\n", place.environment()))?;
    let memory = place.run.join("counted.cpio");
    let script = r#"find . | LC_ALL=C sort | bin/busybox cpio -o -H newc -R 0:0 2>/dev/null >"$1""#;
    succeed(Command::new("sh").args(["-c", script, "sh"]).arg(&memory).current_dir(&tree))?;
    Ok(memory)
}

/// The shared libraries of programs, by `ldd`.
fn libraries(programs: &[&Path]) -> io::Result<BTreeSet<PathBuf>> {
    let text =
        String::from_utf8_lossy(&Command::new("ldd").args(programs).output()?.stdout).into_owned();
    Ok(library_paths(&text))
}

/// `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader.
fn library_paths(text: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let (path, _) = line.split_once(" (0x")?;
        let path = path.rsplit_once(' ').map_or(path, |(_, path)| path).trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} ended with {status}", command.get_program().display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "figure moirai.a 1\ntest counted::kept ... ok\ntest counted::broken ... \
                       FAILED\n\
                       [status 0]\n";

    #[test]
    fn promises_are_tests_and_so_is_that_both_machines_say_the_same() {
        let tally = judge(ONE, ONE, "figure control.a 2\n[status 0]\n", |_| String::new());
        assert_eq!(tally.counts().to_string(), "2 passed, 1 failed, 0 skipped");
        assert!(tally.summary().contains("FAILED counted::broken: "), "{}", tally.summary());
    }

    #[test]
    fn machines_that_differ_in_a_figure_are_found_with_the_figure() {
        let two = ONE.replace("a 1", "a 2");
        let tally = judge(ONE, &two, "[status 0]", |_| String::new());
        let difference = r#"first difference: "figure moirai.a 1", "figure moirai.a 2""#;
        assert!(tally.summary().contains(difference), "{}", tally.summary());
    }

    #[test]
    fn machines_that_do_not_come_to_their_end_are_failures_with_their_logs() {
        let tally = judge("", "", "[status 1]\n", |name| format!("{name}'s log"));
        assert_eq!(tally.counts().to_string(), "0 passed, 3 failed, 0 skipped");
        let Outcome::Failed(reason) = &tally.cases[1].outcome else { panic!("{tally:?}") };
        assert!(reason.ends_with("control's log"), "{reason}");
    }

    #[test]
    fn libraries_are_the_paths_of_files() {
        let text = "/bin/a:\n\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n\tnot a dynamic executable\n";
        let paths: Vec<_> = library_paths(text).into_iter().collect();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths, expected.map(PathBuf::from));
    }
}

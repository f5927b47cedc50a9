//! Runs tests of a program one by one, each in a process of its own that has a time limit. A test
//! that hangs costs its own time only, and what it hung at is shown. Runs in the lab's machine.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::args::Each;
use super::{events, machine};
use crate::run::libtest::Reader;
use crate::run::{Case, Ending, Outcome, bounded};

/// Runs the tests; the status is 101 if one has failed, as a test program's.
pub(super) fn run(each: &Each) -> io::Result<u8> {
    let mut failed = false;
    for (index, name) in each.tests.iter().enumerate() {
        events::begins(&each.events, name)?;
        print!("[{:>2}/{}] test {name} ... ", each.after + index + 1, each.of);
        io::stdout().flush()?;
        let case = test(each, name)?;
        let took = case.took.unwrap_or_default();
        let took = format!("{}.{} s", took.as_secs(), took.subsec_millis() / 100);
        match &case.outcome {
            Outcome::Passed => println!("ok, {took}"),
            Outcome::Skipped(reason) => println!("skipped: {reason}"),
            Outcome::Failed(said) => println!("FAILED, {took}\n{said}"),
        }
        events::ends(&each.events, &case)?;
        if matches!(case.outcome, Outcome::Failed(_)) {
            failed = true;
            clear(each.clear.as_deref());
        }
    }
    Ok(if failed { 101 } else { 0 })
}

/// One test, as its program's only one.
fn test(each: &Each, name: &str) -> io::Result<Case> {
    let limit = Duration::from_secs(each.limit);
    let (begin, mut stood) = (Instant::now(), String::new());
    let stop = |elapsed| {
        if elapsed >= limit {
            stood = autopsy(each.clear.as_deref()); // while they stand there
        }
        elapsed >= limit
    };
    // The shell puts both outputs into one.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$@" 2>&1"#, "sh"]).arg(&each.program);
    command.args(["--exact", name, "--test-threads", "1", "--color", "never", "--show-output"]);
    command.stdin(Stdio::null());
    let (ending, said) = bounded::watch(&mut command, ":", stop, read)?;
    let outcome = outcome(each, ending, &said, &stood);
    Ok(Case { name: name.to_owned(), outcome, took: Some(begin.elapsed()) })
}

fn outcome(each: &Each, ending: Ending, said: &str, stood: &str) -> Outcome {
    let Ending::Exited(status) = ending else {
        let limit = each.limit;
        return Outcome::Failed(format!("did not end within {limit} s\n{}{stood}", cleaned(said)));
    };
    if !status.success() {
        return Outcome::Failed(cleaned(said));
    }
    let mut reader = Reader::default();
    said.lines().for_each(|line| reader.line(line));
    let tally = reader.finish();
    match tally.cases.first().map(|case| &case.outcome) {
        Some(outcome) => outcome.clone(),
        None if tally.unnamed == 1 => Outcome::Passed,
        None => Outcome::Failed(format!("its program did not run it\n{}", cleaned(said))),
    }
}

fn read(mut pipe: io::PipeReader) -> String {
    let mut said = Vec::new();
    let _ = io::copy(&mut pipe, &mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// What a test said, without what its program says about it.
fn cleaned(said: &str) -> String {
    let frame = |line: &&str| {
        line.is_empty()
            || ["running", "failures:", "test "].iter().any(|word| line.starts_with(word))
    };
    said.lines().filter(|line| !frame(line)).map(|line| format!("{line}\n")).collect()
}

/// Where everybody stands, and the last that hosts and guests said.
fn autopsy(folder: Option<&Path>) -> String {
    let columns = "pid,tid,cls,rtprio,psr,stat,time,wchan:24,args";
    let ps = Command::new("ps").args(["-eLo", columns, "--no-headers"]).output();
    let ps = ps.map(|output| output.stdout).unwrap_or_default();
    let mut text = String::from("== processes\n");
    for line in String::from_utf8_lossy(&ps).lines().filter(|line| !line.contains('[')) {
        text.extend(line.chars().take(150).chain(['\n']));
    }
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    let folders = entries.into_iter().flatten().flatten();
    for entry in folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "log" || end == "console") {
            text.push_str(&format!("== {}\n{}\n", path.display(), machine::tail(&path, 25)));
        }
    }
    text
}

/// The host services of a failed test have ended with it; what they had is in their folders. Their
/// tenants end a moment later.
fn clear(folder: Option<&Path>) {
    let Some(folder) = folder else { return };
    std::thread::sleep(Duration::from_secs(2));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".tmp") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::events::Events;
    use super::*;

    /// A test program that says what Rust's do.
    const PROGRAM: &str = r#"#!/bin/sh
echo "running 1 test"
case $2 in
    passes) echo "test passes ... ok" ;;
    cannot) printf 'test cannot ... ok\n---- cannot stdout ----\nNOT TESTED HERE: no disk\n' ;;
    ignored) echo "test ignored ... ignored, takes an hour" ;;
    fails) printf 'test fails ... FAILED\n---- fails stdout ----\nleft: 1\n'; exit 101 ;;
    hangs) echo "it waits"; sleep 600 & sleep 600 ;;
esac
[ "$2" = nobody ] || echo "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured"
"#;

    fn each(folder: &Path, tests: &[&str], limit: u64) -> Each {
        let program = folder.join("program");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Each {
            events: folder.join("events"),
            limit,
            of: 9,
            after: 2,
            clear: Some(folder.to_owned()),
            program,
            tests: tests.iter().map(|&test| test.to_owned()).collect(),
        }
    }

    #[test]
    fn a_test_that_hangs_shows_what_it_hung_at_and_the_next_one_runs() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join(".tmpHOST");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("host.log"), "the host waits for its guest\n").unwrap();
        let each = each(folder.path(), &["hangs", "passes"], 1);
        assert_eq!(run(&each).unwrap(), 101);
        let ended = Events::read(&each.events).ended.cases;
        let Outcome::Failed(said) = &ended[0].outcome else { panic!("{ended:?}") };
        assert!(said.starts_with("did not end within 1 s\nit waits\n== processes\n"), "{said}");
        assert!(said.contains("the host waits for its guest"), "{said}");
        assert_eq!(ended[1].outcome, Outcome::Passed);
        assert!(!host.exists(), "what it left is cleared away");
    }

    #[test]
    fn the_outcome_is_what_the_program_says() {
        let folder = tempfile::tempdir().unwrap();
        let tests = ["passes", "cannot", "ignored", "fails", "nobody", "passes"];
        let each = each(folder.path(), &tests, 60);
        assert_eq!(run(&each).unwrap(), 101);
        let found = Events::read(&each.events);
        assert_eq!(found.begun, 6);
        let outcomes: Vec<_> = found.ended.cases.into_iter().map(|case| case.outcome).collect();
        let expected = [
            Outcome::Passed,
            Outcome::Skipped("no disk".to_owned()),
            Outcome::Skipped("takes an hour".to_owned()),
            Outcome::Failed("---- fails stdout ----\nleft: 1\n".to_owned()),
            Outcome::Failed("its program did not run it\n".to_owned()),
            Outcome::Passed,
        ];
        assert_eq!(outcomes, expected);
    }
}

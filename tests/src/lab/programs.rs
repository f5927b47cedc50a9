//! What a run needs built: its test program, and Debian's image for the tests of that name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::Value;

use super::place::Place;
use crate::root;
use crate::run::Group;

/// Builds a test program. `LAB_PROGRAMS` names a folder that has it already, where cargo is not to
/// build it.
pub(super) fn build(name: &str) -> io::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("LAB_PROGRAMS") {
        return fs::canonicalize(Path::new(&folder).join(name));
    }
    let group = Group::new(":")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--locked", "-p", "moirai-tests", "--test", name, "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]).current_dir(root());
    let child = group.start(cargo.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = child.wait_with_output()?;
    let path = executable(&String::from_utf8_lossy(&output.stdout), name);
    match path {
        Some(path) if output.status.success() => Ok(path),
        _ => Err(io::Error::other(format!("the test program `{name}` does not build"))),
    }
}

/// The path of a test program in cargo's messages, which tell of all programs that it was built
/// with.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut paths = messages.filter_map(|message| {
        let target = &message["target"];
        let asked = target["name"] == name && target["kind"][0] == "test";
        asked.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    paths.next()
}

/// Debian's image, made by the `moirai` under test, if it is not there or older than what makes it.
pub(super) fn debian(place: &Place) -> io::Result<PathBuf> {
    let folder = place.lab.join("debian");
    let image = folder.join("root");
    let made = fs::metadata(&image).and_then(|image| image.modified());
    if made.is_ok_and(|made| newest(&root().join("host/cli/src/images")) <= Some(made)) {
        return Ok(image);
    }
    eprintln!("lab: building Debian, a minute or two");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("root") {
            fs::remove_file(entry.path())?;
        }
    }
    let key = folder.join("root.key");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&key);
    run(&mut keygen)?;
    let [(_, moirai), ..] = &place.tested;
    let mut make = Command::new(moirai);
    make.args(["image", "debian"]).arg(&image).arg("--ssh-key").arg(folder.join("root.key.pub"));
    run(&mut make).inspect_err(|_| {
        let _ = fs::remove_file(&image); // half of an image would be taken for one
    })?;
    Ok(image)
}

fn run(command: &mut Command) -> io::Result<()> {
    let group = Group::new(":")?;
    // What it says is news, and not the result.
    let mut child = group.start(command.stdin(Stdio::null()).stdout(io::stderr()))?;
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let program = command.get_program().display();
    Err(io::Error::other(format!("building Debian: {program} ended with {status}")))
}

/// When the newest file below a folder was written.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let time = |path: PathBuf| {
        if path.is_dir() { newest(&path) } else { fs::metadata(path).ok()?.modified().ok() }
    };
    entries.filter_map(|entry| time(entry.path())).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_is_found_among_the_programs_that_cargo_has_built() {
        let messages = [
            r#"{"target":{"kind":["lib"],"name":"moirai_tests"},"executable":null}"#,
            r#"{"target":{"kind":["bin"],"name":"lab"},"executable":"/target/lab"}"#,
            r#"{"target":{"kind":["test"],"name":"lab"},"executable":"/target/deps/lab-1"}"#,
            r#"{"target":{"kind":["bin"],"name":"lab-probe"},"executable":"/target/lab-probe"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let found = executable(&messages.join("\n"), "lab");
        assert_eq!(found, Some(PathBuf::from("/target/deps/lab-1")));
        assert_eq!(executable(&messages.join("\n"), "counted"), None);
    }
}

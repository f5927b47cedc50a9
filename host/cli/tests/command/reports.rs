//! What users of other systems reported, tried here: docs/faults.md names the reports.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::ends::{PATIENCE, wait};

/// A host service in a folder of its own, started by this line of a shell.
///
/// Not `moirai_bench::driver`: its process may be another program than `moirai`, with the host
/// service inside, and what is told to end, or never answers, is what these tests are about.
struct Shell {
    child: Child,
    folder: tempfile::TempDir,
}

impl Shell {
    /// `line` has `$0` for the `moirai` command and `$1` for its configuration.
    fn host(line: &str, stderr: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::host_in(folder, line, stderr)
    }

    fn host_in(folder: tempfile::TempDir, line: &str, stderr: Stdio) -> Self {
        let core = std::thread::available_parallelism().unwrap().get() - 1;
        let path = folder.path().display();
        let text = format!(
            "[host]\ncores = [{core}]\nsocket = \"{path}/s\"\nstate_dir = \"{path}/state\"\n"
        );
        let config = super::file(&folder, &text);
        let mut shell = Command::new("sh");
        shell.args(["-c", line, env!("CARGO_BIN_EXE_moirai")]).arg(config);
        let child = shell.stderr(stderr).spawn().unwrap();
        let mut host = Self { child, folder };
        let begin = moirai_runtime::instant();
        while !host.path("s").exists() {
            assert_eq!(host.child.try_wait().unwrap(), None);
            assert!(moirai_runtime::since(begin) < PATIENCE, "it does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        host
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Whether it answers within seconds.
    fn answers(&self) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
        command.arg("--socket").arg(self.path("s")).arg("list");
        command.output().unwrap().status.success()
    }

    /// Asks `pid` to end; how the shell's process ends then.
    fn ends(&mut self, pid: u32) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
        assert!(sent.unwrap().success());
        wait(&mut self.child).code()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Gone already if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_stays_and_is_not_read_holds_up_nobody() {
    let _turn = super::turn();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let line = "MOIRAI_LOG=trace exec \"$0\" host --config \"$1\"";
    let mut host = Shell::host(line, writer.into());
    for _ in 0..600 {
        let mut stream = UnixStream::connect(host.path("s")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /v1/host HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let pid = host.child.id();
    assert_eq!(host.ends(pid), Some(0));
    // The pipe was full but for a piece of a line, or nothing has been tried.
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    assert!(log.len() > 65_536 - 1024, "{}", log.len());
}

#[test]
fn nobody_else_may_write_what_a_host_service_has_made_whatever_mask_it_inherits() {
    let _turn = super::turn();
    for mask in ["0", "0777"] {
        let line = format!("umask {mask}; exec \"$0\" host --config \"$1\"");
        let mut host = Shell::host(&line, Stdio::null());
        let mut found = 0;
        let mut look = |path: &Path| {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
            assert_eq!(mode & 0o600, 0o600, "{}: {mode:o}", path.display());
            found += 1;
        };
        let state = host.path("state");
        look(&state);
        look(&host.path("s"));
        fs::read_dir(&state).unwrap().for_each(|entry| look(&entry.unwrap().path()));
        assert!(found > 5, "{found}");
        let pid = host.child.id();
        assert_eq!(host.ends(pid), Some(0));
    }
}

#[test]
fn descriptors_that_are_used_up_are_waited_for_and_the_limit_is_raised_where_it_may_be() {
    let _turn = super::turn();
    let log = tempfile::NamedTempFile::new().unwrap();
    let line = "ulimit -n 40; exec \"$0\" host --config \"$1\"";
    let mut host = Shell::host(line, log.reopen().unwrap().into());
    let many: Vec<_> = (0..60).map(|_| UnixStream::connect(host.path("s")).unwrap()).collect();
    std::thread::sleep(Duration::from_secs(2));
    drop(many);
    let begin = moirai_runtime::instant();
    while !host.answers() {
        assert!(moirai_runtime::since(begin) < PATIENCE, "it does not come back");
    }
    let pid = host.child.id();
    assert_eq!(host.ends(pid), Some(0));
    let said = fs::read_to_string(log.path()).unwrap();
    let times = said.matches("cannot take a connection").count();
    assert!((1..=2).contains(&times), "{said}");

    let line = "ulimit -Sn 40; exec \"$0\" host --config \"$1\"";
    let mut host = Shell::host(line, Stdio::null());
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.child.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> =
        limit.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{limit}");
    let pid = host.child.id();
    assert_eq!(host.ends(pid), Some(0));
}

#[test]
fn the_first_process_of_a_container_ends_when_it_is_told_to() {
    let _turn = super::turn();
    let line = "exec unshare -pf --mount-proc --kill-child \"$0\" host --config \"$1\"";
    let mut host = Shell::host(line, Stdio::null());
    let children = format!("/proc/{0}/task/{0}/children", host.child.id());
    let inside: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    assert!(host.answers());
    assert_eq!(host.ends(inside), Some(0));
}

#[test]
fn state_that_was_cut_off_is_made_anew() {
    let _turn = super::turn();
    for damage in [&b""[..], &[0; 300], b"{\"a\":", b"\xff"] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("state/tenants")).unwrap();
        let files = ["core-costs.json", "lock", "tenants/a.json", "exports/a", "realtime"];
        fs::create_dir_all(folder.path().join("state/exports")).unwrap();
        for name in files {
            fs::write(folder.path().join("state").join(name), damage).unwrap();
        }
        let line = "exec \"$0\" host --config \"$1\"";
        let mut host = Shell::host_in(folder, line, Stdio::null());
        assert!(host.answers(), "{damage:?}");
        let costs = fs::read_to_string(host.path("state/core-costs.json")).unwrap();
        assert!(costs.contains("\"measured\": true"), "{costs}");
        let pid = host.child.id();
        assert_eq!(host.ends(pid), Some(0));
    }
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_refused_at_its_key_and_as_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(108);
    let config = super::file(&folder, &format!("[host]\ncores = [0]\nsocket = \"/{long}\"\n"));
    for words in
        [["plan", config.to_str().unwrap(), ""], ["host", "--config", config.to_str().unwrap()]]
    {
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let output = super::moirai(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("3:10") && said.contains("109 bytes"), "{said}");
    }
    let output = super::moirai(&["--socket", &long, "list"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("at most 107 bytes"), "{said}");
}

#[test]
fn a_configuration_from_a_windows_editor_is_read_or_says_how_to_save_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[host]\r\ncores = [0]\r\nprofile = \"none\"\r\n";
    let utf16 = || text.encode_utf16().flat_map(u16::to_le_bytes);
    let path = folder.path().join("m.toml");
    let plan = |bytes: Vec<u8>| {
        fs::write(&path, bytes).unwrap();
        super::moirai(&["plan", path.to_str().unwrap()])
    };
    assert!(plan([b"\xef\xbb\xbf", text.as_bytes()].concat()).status.success());
    let output = plan([0xff, 0xfe].into_iter().chain(utf16()).collect());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("save it as text in UTF-8"), "{said}");
}

#[test]
fn arguments_that_are_no_text_are_taken_as_paths_and_refused_as_names() {
    let bad = OsStr::from_bytes(b"x\xffy");
    let cases: [(&[&str], i32); 5] =
        [(&[], 2), (&["plan"], 2), (&["show"], 2), (&["set", "a"], 2), (&["list", "--socket"], 4)];
    for (words, wanted) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
        let output = command.args(words).arg(bad).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(wanted), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn every_test_that_faults_md_names_is_in_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let mut source = String::new();
    for folder in [
        "abi",
        "devices",
        "guest",
        "host",
        "image",
        "sandbox",
        "scheduler",
        "simulator",
        "tests",
        "vmm",
    ] {
        read_sources(&root.join(folder), &mut source);
    }
    let table = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let (mut names, mut missing) = (0, Vec::new());
    for word in table.split('`').skip(1).step_by(2) {
        let is_test = word.len() > 20
            && word.contains('_')
            && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        if is_test {
            names += 1;
            if !source.contains(&format!("fn {word}(")) {
                missing.push(word);
            }
        }
    }
    assert!(names > 90, "{names}");
    assert_eq!(missing, Vec::<&str>::new());
    // Every report has its address and a test of its own.
    let (_, reports) = table.split_once("## Public reports that were tried").unwrap();
    let rows: Vec<_> = reports.lines().filter(|line| line.starts_with("| [")).collect();
    assert!(rows.len() >= 22, "{}", rows.len());
    for row in rows {
        let last = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
        let named =
            last.split('`').skip(1).step_by(2).any(|word| source.contains(&format!("fn {word}(")));
        assert!(row.contains("https://github.com/") && named, "{row}");
    }
}

fn read_sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            File::open(&path).unwrap().read_to_string(into).unwrap();
        }
    }
}

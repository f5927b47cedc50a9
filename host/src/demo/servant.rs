//! The host service of the demo: `moirai host` as anybody would start it, asked through the same
//! command line.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::DemoError;
use super::scene::Scene;
use moirai_api::Stats;
use moirai_api::client::Client;

/// How long the host service may take to answer for the first time, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running host service; ends with the value.
#[derive(Debug)]
pub(super) struct Servant {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Servant {
    /// Starts the service and waits until it answers.
    pub(super) fn start(scene: &Scene, scheduling: bool) -> Result<Self, DemoError> {
        let log = scene.file(if scheduling { "with.log" } else { "without.log" });
        let failed = |source| DemoError::Folder { path: log.clone(), source };
        let output = File::create(&log).map_err(failed)?;
        let mut command = moirai(&scene.socket());
        command.arg("host").arg("--config").arg(scene.file("host.toml"));
        if !scheduling {
            command.arg("--no-scheduling");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        end_with_parent(&mut command);
        let child = command.spawn().map_err(failed)?;
        let mut servant = Self { child, socket: scene.socket(), log };
        let begin = Instant::now();
        while servant.ask(&["list", "--json"]).is_err() {
            let ended = servant.child.try_wait().ok().flatten().is_some();
            if ended || begin.elapsed() > PATIENCE {
                return Err(DemoError::Host { what: "does not start", said: servant.last_words() });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(servant)
    }

    /// Starts the tenants of a file.
    pub(super) fn launch(&self, file: &Path) -> Result<(), DemoError> {
        self.ask(&["launch", &file.to_string_lossy(), "--json"]).map(drop)
    }

    /// What is on the console of a tenant.
    pub(super) fn console(&self, tenant: &str) -> Result<String, DemoError> {
        self.ask(&["console", tenant, "--once"])
    }

    /// One look at everything.
    pub(super) fn stats(&self) -> Result<Stats, DemoError> {
        let refused = |why: String| DemoError::Refused { what: "report".to_owned(), why };
        let client = Client::new(&self.socket).map_err(|error| refused(error.to_string()))?;
        client.get("/v1/stats").map_err(|error| refused(error.to_string()))
    }

    /// Ends the service, which ends its tenants.
    pub(super) fn end(mut self) -> Result<(), DemoError> {
        self.terminate();
        let begin = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => {
                    return Err(DemoError::Host {
                        what: "did not end well",
                        said: self.last_words(),
                    });
                }
            }
        }
    }

    fn ask(&self, words: &[&str]) -> Result<String, DemoError> {
        let refused = |why: String| DemoError::Refused { what: words.join(" "), why };
        let output = moirai(&self.socket).args(words).stdin(Stdio::null()).output();
        let output = output.map_err(|error| refused(error.to_string()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(refused(String::from_utf8_lossy(&said).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.terminate();
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program, talking to that socket.
fn moirai(socket: &Path) -> Command {
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("moirai"));
    let mut command = Command::new(me);
    command.arg("--socket").arg(socket);
    command
}

/// A killed demo leaves no host service behind: it is told to end, and cleans up.
#[allow(unsafe_code, reason = "what runs between fork and exec is unsafe by nature")]
fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

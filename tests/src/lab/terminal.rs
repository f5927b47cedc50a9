//! Our terminal, if there is one, while a shell in the machine has it.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::place::quoted;

/// What is typed goes to the machine as it is; ends with the value.
#[derive(Debug)]
pub(super) struct Raw {
    /// The shell command that gives the terminal back.
    restore: String,
}

impl Raw {
    pub(super) fn begin() -> Self {
        Self { restore: raw().unwrap_or_else(|| ":".to_owned()) }
    }

    pub(super) fn restore(&self) -> &str {
        &self.restore
    }
}

fn raw() -> Option<String> {
    if !io::stdin().is_terminal() {
        return None;
    }
    // The path and not the descriptor: who restores it if we die has other descriptors.
    let path: PathBuf = std::fs::read_link("/proc/self/fd/0").ok()?;
    let saved = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output().ok()?.stdout;
    let saved = String::from_utf8(saved).ok()?;
    Command::new("stty").args(["raw", "-echo"]).status().ok()?;
    Some(format!("stty -F {} {}", quoted(&path.to_string_lossy()), quoted(saved.trim())))
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &self.restore]).status();
    }
}

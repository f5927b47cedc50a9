//! `moirai image`: makes what tenants boot.
//!
//! | file | what |
//! | --- | --- |
//! | `debian.rs` | a Debian root file system with its kernel, by mmdebstrap and mke2fs |
//! | `essential.sh`, `customize.sh` | what mmdebstrap runs while it builds that |
//! | `kernel.rs` | the uncompressed kernel inside a bzImage |
//! | `libos.rs` | a library OS application as one image |
//!
//! Nothing here runs while tenants do; it is for people and scripts that prepare them.

mod debian;
mod kernel;
mod libos;

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use thiserror::Error;

pub use debian::{Built, Debian, debian};
pub use libos::libos;

/// Why an image could not be made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A program is not installed.
    #[error("{tool} is not installed; run: apt-get install {package}")]
    NoTool {
        /// Its name.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program failed; it has said on standard error why.
    #[error("{tool} failed ({status})")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// Not root.
    #[error("building a root file system needs root: its files belong to root; run it by sudo")]
    NotRoot,
    /// A user or host name that Debian would not take.
    #[error(
        "{value:?} cannot be a {what}: 1 to 32 small letters, digits, \"-\" or \"_\", a letter \
         first"
    )]
    Name {
        /// What it should have been.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// A size into which Debian does not fit.
    #[error("{bytes} bytes are too few for Debian; give 1G or more, in whole blocks of 4K")]
    Size {
        /// The size.
        bytes: u64,
    },
    /// A file that is no public key.
    #[error("{path} holds no SSH public key (a line as \"ssh-ed25519 AAAA... name\")")]
    Key {
        /// Its path.
        path: PathBuf,
    },
    /// A kernel from which no uncompressed one can be taken.
    #[error("{path}: {why}")]
    Kernel {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such application.
    #[error("there is no application {app:?}; there are: {known}")]
    NoApp {
        /// What was asked for.
        app: String,
        /// Those that there are, with commas.
        known: String,
    },
    /// Not in the source tree.
    #[error(
        "library OS applications are built from the source tree; run this inside it (no guest/apps \
         here or above)"
    )]
    NoTree,
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Runs a program; what it prints goes to standard error, for standard output is ours.
fn run(command: &mut Command, tool: &'static str, package: &'static str) -> Result<(), ImageError> {
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ImageError::Tool { tool, status }),
        Err(_) => Err(ImageError::NoTool { tool, package }),
    }
}

/// For `map_err`: the error with the path it is about.
fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.into();
    |error| ImageError::File { path, error }
}

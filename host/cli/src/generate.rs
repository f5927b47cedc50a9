//! `moirai completions` and `moirai man`.

use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::{Failure, Status, print};

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "moirai", &mut script);
    print(String::from_utf8_lossy(&script))
}

pub(super) fn man(directory: &Path) -> Result<Status, Failure> {
    clap_mangen::generate_to(Cli::command(), directory).map_err(|error| {
        let directory = directory.display();
        let message = format!("cannot write man pages into {directory}: {error}");
        Failure::new(Status::Failed, message)
    })?;
    Ok(Status::Done)
}

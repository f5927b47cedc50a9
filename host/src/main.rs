//! The `moirai` command. All it does is in `moirai_host::cli`.

use std::process::ExitCode;

use clap::Parser;
use moirai_host::cli;

fn main() -> ExitCode {
    ExitCode::from(cli::run(cli::Cli::parse()) as u8)
}

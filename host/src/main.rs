//! The `moirai` command. All it does is in `moirai_host::cli`.

use std::process::ExitCode;

use moirai_host::cli;

fn main() -> ExitCode {
    let status = cli::parse().map_or_else(|ended| ended, cli::run);
    ExitCode::from(status as u8)
}

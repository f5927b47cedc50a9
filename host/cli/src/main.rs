//! The `moirai` command. All it does is in `moirai_cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = moirai_cli::parse().map_or_else(|ended| ended, moirai_cli::run);
    ExitCode::from(status as u8)
}

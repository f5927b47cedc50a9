//! Linux tenants in a machine of their own: see `moirai_tests::lab`.

use std::process::ExitCode;

fn main() -> ExitCode {
    moirai_tests::lab::main()
}

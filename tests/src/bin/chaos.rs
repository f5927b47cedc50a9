//! Faults at random, for `make chaos`: see `moirai_tests::chaos`.

use std::process::ExitCode;

fn main() -> ExitCode {
    moirai_tests::chaos::main()
}

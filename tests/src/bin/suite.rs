//! All tests, for `make test`: see `moirai_tests::suite`.

use std::process::ExitCode;

fn main() -> ExitCode {
    moirai_tests::suite::main()
}
